# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""An optimistic bound on attainment that no schedule can exceed."""

from collections.abc import Sequence
import math

from slice_ros.bench.schedule.workload import Arrival
from slice_ros.scheduling.latency import LatencyModel


def capacity_bound(workload: Sequence[Arrival], latency: LatencyModel, max_batch: int) -> float:
    """Return the share of `workload` that any schedule could attain, at most.

    The cheapest requests count, as many as fit the time from the first arrival to the last
    instant at which any request could still attain. A request costs its prefill plus its later
    tokens at the least ``l(b) / b`` over the batch sizes with ``l(b) <= TPOT``.
    """
    if not workload:
        return 1.0
    # One table for all: the context that a request reads is added to its share, not to l(b).
    times = [latency.decode(batch) for batch in range(1, max_batch + 1)]
    costs = sorted(_cost(a, times, latency) for a in workload)
    left = max(_last_chance(a) for a in workload) - min(a.time for a in workload)
    attained = 0
    for cost in costs:
        left -= cost
        if left < -1e-9:  # a sum of floats may miss an exact fit
            break
        attained += 1
    return attained / len(workload)


def _cost(a: Arrival, times: Sequence[float], latency: LatencyModel) -> float:
    """Return the least seconds of accelerator by which `a` attains; infinite if it cannot."""
    shares = [t / batch for batch, t in enumerate(times, 1) if t <= a.slo.tpot]
    # The prefill samples the first token, so that one costs no decode step.
    decodes = min(a.output_tokens, a.max_tokens) - 1
    if not decodes:
        return latency.prefill(a.prompt_tokens)
    if not shares:
        return math.inf
    reads = latency.decode(1, a.prompt_tokens) - latency.decode(1)
    return latency.prefill(a.prompt_tokens) + decodes * (min(shares) + reads)


def _last_chance(a: Arrival) -> float:
    """Return the latest instant of the last token of `a` at which `a` still attains."""
    tokens = min(a.output_tokens, a.max_tokens)
    paced = a.slo.ttft + (a.slo.tpot * (tokens - 1) if tokens > 1 else 0.0)
    return a.time + min(a.slo.deadline, paced)
