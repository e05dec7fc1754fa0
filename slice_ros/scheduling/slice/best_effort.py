# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Best effort: requests whose objectives are missed, absent or out of reach.

They are served in steps in which no selected request decodes, the highest utility density first.
Gap control bounds the time between their tokens. A started request of the most useful class also
takes part in steps of selected requests when its gap would grow too long, and no more requests
are started than gap control can serve.
"""

from collections.abc import Iterable, Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import PrefillChunk
from slice_ros.scheduling.slice.demand import ClassRecord, Demand
from slice_ros.scheduling.slice.rate_allocation import (
    Candidate, chunk_of, Limits, MAX_GAP, prefill_slack, TPOT_SHARE)

MAX_GAP_BY_PREFILL = 2.5  # TPOTs; a best-effort prefill delays no next token for longer


def gap_candidate(demand: Demand, now: float, limits: Limits) -> Candidate:
    """Return the candidate of a missed `demand` under gap control: only its gap limits a step."""
    request = demand.request
    slo, tpot = request.slo, request.slo.tpot
    speed = max(limits.times[0], TPOT_SHARE * tpot)
    gap = request.last_token_at + MAX_GAP * tpot - now
    overdue = gap + tpot <= 2 * speed
    return Candidate(demand, slo.utility, math.inf, math.inf, math.inf, math.inf, gap - speed,
                     overdue)


def may_start(request: Request, gap_controlled: Sequence[Demand], records: Iterable[ClassRecord],
              now: float, since: float) -> bool:
    """Return whether gap control could serve `request` too, in the time that arrivals leave.

    `gap_controlled` are the started requests under gap control, `since` is when arrivals began to
    be counted. The first request may start in any case, and so may one of a less useful class,
    which is not under gap control.
    """
    slo = request.slo
    if not gap_controlled or slo.utility < gap_controlled[0].request.slo.utility:
        return True
    load = sum(record.load(now, since) for record in records if record.slo.utility >= slo.utility)
    return load + sum(d.token_cost / (MAX_GAP * d.request.slo.tpot)
                      for d in gap_controlled) < 1.0


def best_effort_step(demands: Iterable[Demand], now: float, limits: Limits, latency: LatencyModel,
                     most: int) -> tuple[list[Request], PrefillChunk | None]:
    """Return which of `demands` decode in a best-effort step, or the prefill to do instead.

    `demands` are in order of utility density. The batch is as large as is efficient, and larger
    where one more request adds little time. The first request that waits for its prefill is
    prefilled if it comes before the last of the batch, by at most `most` tokens, unless that
    would make the gap of a started request too long.
    """
    batch: list[Request] = []
    first = None
    for demand in demands:
        if demand.request.ready:
            batch.append(demand.request)
        elif first is None and not demand.request.decoding:
            first = demand
        if len(batch) == limits.best_effort_batch:
            break
    if first is None:
        return batch, None
    chunk = chunk_of(first.request, math.inf, limits, latency, most,
                     math.inf if batch else prefill_slack(first, now))
    end = now + latency.prefill(chunk.tokens, first.request.cached) + latency.decode(len(batch))
    if any(end > r.last_token_at + MAX_GAP_BY_PREFILL * r.slo.tpot for r in batch):
        return batch, None
    return batch, chunk
