# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a load costs on an engine, and the terms of its latency profile."""

from collections.abc import Sequence
from dataclasses import fields
import math

from slice_ros.bench.schedule.workload import Arrival
from slice_ros.scheduling.latency import LatencyModel

PUBLISHED_TIGHTNESS = 1.8   # see `auto_scale`


def with_overhead(latency: LatencyModel, ms: float) -> LatencyModel:
    """Return a latency model whose every step takes `ms` more, however many parts it has."""
    return LatencyModel(**terms(latency) | {
        'prefill_base_ms': latency.prefill_base_ms + ms, 'shared_ms': latency.shared_ms + ms,
        'decode_ms': tuple((batch, alone + ms) for batch, alone in latency.decode_ms)})


def terms(latency: LatencyModel) -> dict:
    """Return the terms of a latency model by their names."""
    return {f.name: getattr(latency, f.name) for f in fields(LatencyModel) if f.init}


def auto_scale(arrivals: Sequence[Arrival], latency: LatencyModel) -> float:
    """Return the factor on objectives that makes them as tight as in the published setting.

    There, a decode step of 4 requests and the prefill of a mean prompt take 50 + 40 ms, 1.8 times
    the tightest TPOT. Contexts are the mean ones of the arrivals. The factor is 1 if no class has
    a TPOT objective.
    """
    tightest = min(a.slo.tpot for a in arrivals)
    if tightest == math.inf:
        return 1.0
    return mixed_cost(arrivals, latency)['separate_ms'] / (1e3 * PUBLISHED_TIGHTNESS * tightest)


def mixed_cost(arrivals: Sequence[Arrival], latency: LatencyModel) -> dict:
    """Return the ms of a decode of 4 and the prefill of a mean prompt, in one step and in two.

    Contexts are the mean ones of the arrivals.
    """
    prompt = sum(a.prompt_tokens for a in arrivals) / len(arrivals)
    context = int(4 * (prompt + sum(a.output_tokens for a in arrivals) / len(arrivals) / 2))
    tokens = round(prompt)
    separate = latency.decode(4, context) + latency.prefill(tokens)
    together = latency.step(4, context, [(tokens, 0)])
    return {'batch': 4, 'context': context, 'tokens': tokens, 'separate_ms': 1e3 * separate,
            'ms': 1e3 * together, 'ratio': together / separate}


def saturation(arrivals: Sequence[Arrival], latency: LatencyModel, max_batch: int) -> float:
    """Return the requests a second that keep the engine busy at full batches."""
    cost = 0.0
    for a in arrivals:
        context = max_batch * (a.prompt_tokens + a.output_tokens // 2)
        cost += latency.prefill(a.prompt_tokens) + (
            (a.output_tokens - 1) * latency.decode(max_batch, context) / max_batch)
    return len(arrivals) / cost
