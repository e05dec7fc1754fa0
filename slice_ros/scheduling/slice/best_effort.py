# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of requests whose objectives are lost, absent or out of reach.

They are served on slack, when nobody else decodes, the most useful first. An answer that has
begun should flow all the same: one of the most useful class takes part now and then even while
others can still be served, and slack begins no more of them than can be kept flowing.
"""

from collections.abc import Iterable, Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import PrefillChunk
from slice_ros.scheduling.slice.demand import ClassRecord, Demand
from slice_ros.scheduling.slice.rate_allocation import chunk_of, Limits, Row, SMOOTH, to_spare

LONGEST_GAP = 2.5  # TPOTs; no prefill on slack keeps the next token of an answer back for longer


def flow_of(demand: Demand, now: float, limits: Limits) -> Row:
    """Return the row of a lost `demand` that is to be finished: it minds nothing but long gaps."""
    request = demand.request
    slo, tpot = request.slo, request.slo.tpot
    speed = max(limits.times[0], 0.8 * tpot)
    gap = request.last_token_at + SMOOTH * tpot - now
    overdue = gap + tpot <= 2 * speed
    return Row(demand, slo.utility, math.inf, math.inf, math.inf, math.inf, gap - speed, overdue)


def may_begin(request: Request, flowing: Sequence[Demand], kinds: Iterable[ClassRecord],
              now: float, since: float) -> bool:
    """Return whether `request` would flow beside those `flowing`, on what arrivals leave.

    The first may begin in any case, and so may one of a class that is not kept flowing.
    """
    slo = request.slo
    if not flowing or slo.utility < flowing[0].request.slo.utility:
        return True
    load = sum(kind.load(now, since) for kind in kinds if kind.slo.utility >= slo.utility)
    return load + sum(d.unit / (SMOOTH * d.request.slo.tpot) for d in flowing) < 1.0


def slack_step(demands: Iterable[Demand], now: float, limits: Limits, latency: LatencyModel,
               most: int) -> tuple[list[Request], PrefillChunk | None]:
    """Return who of `demands` (the most useful first) decodes on slack, or what to prefill.

    As many rows as make a batch efficient, and more that cost it little; whoever waits and is
    more useful than the last of them is prefilled, of `most` tokens at most, unless an answer
    that has begun could not bear it.
    """
    rows: list[Request] = []
    first = None
    for demand in demands:
        if demand.request.ready:
            rows.append(demand.request)
        elif first is None and not demand.request.decoding:
            first = demand
        if len(rows) == limits.slack:
            break
    if first is None:
        return rows, None
    chunk = chunk_of(first.request, math.inf, limits, latency, most,
                     math.inf if rows else to_spare(first, now))
    end = now + latency.prefill(chunk.tokens, first.request.cached) + latency.decode(len(rows))
    if any(end > r.last_token_at + LONGEST_GAP * r.slo.tpot for r in rows):
        return rows, None
    return rows, chunk
