# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Phase 2 of SLICE, rate allocation: which selected requests share the next step.

The pace of a request is the time it has per token it still needs: the distance between its ones
in the decode mask (arXiv 2510.18544). A step may take as long as the pace of every candidate in
it allows; candidates join in order of utility density while it does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import math

from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import PrefillChunk
from slice_ros.scheduling.slice.demand import Demand
from slice_ros.scheduling.slice.limits import CHEAP, chunk_of, LEAST_CHUNK, Limits, MAX_GAP, URGENT_STEPS

PACE_SHARE = 0.7     # share of the time per token that a step may take,
BRISK_SHARE = 0.4    # and while all requests can be served, with time to spare


@dataclass(eq=False, slots=True)
class Candidate:
    """A decode candidate: a running request, and for how long its next token may be delayed.

    `slack` is the seconds that it can be left out in all, `gap` those at a stretch to stay within
    its inter-token gap, and `pace` the time it has for each token.
    """

    demand: Demand
    slack: float
    pace: float
    gap: float


def longest_step(candidates: Iterable[Candidate], share: float, limits: Limits) -> float:
    """Return how long a step with `candidates` may take, in seconds: a `share` of each pace."""
    return max(limits.short, share * min([c.pace for c in candidates], default=math.inf))


def candidate_of(demand: Demand, rank: int, now: float, limits: Limits) -> Candidate:
    """Return the candidate of `demand`, the `rank`-th of the running ones by utility density.

    It has to keep two due times: that of its milestone, should the answer end there, and the
    deadline, should it be a long one.
    """
    tpot = demand.request.slo.tpot
    # It would decode beside those before it, and no slower than its own objective asks for.
    speed = min(limits.times[min(rank, limits.efficient_batch) - 1],
                max(limits.times[0], PACE_SHARE * tpot))
    to_milestone, to_deadline = demand.milestone - now, demand.deadline - now
    to_gap = demand.request.last_token_at + MAX_GAP * tpot - now
    generated = demand.request.generated   # some may be new since the last measure
    tokens, most = max(demand.least - generated, 1), max(demand.longest - generated, 1)
    slack = min(to_milestone - tokens * speed, to_deadline - most * speed)
    pace = min(to_milestone / tokens, to_deadline / most)
    return Candidate(demand, slack, pace, to_gap - speed)


def batch_of(candidates: Sequence[Candidate], limits: Limits, share: float) -> list[Candidate]:
    """Return the batch of the next step: `candidates` in order, within a `share` of all paces.

    The last ones are left out if they can wait and the step is more efficient without them.
    """
    batch: list[Candidate] = []
    times = limits.times
    for candidate in candidates[:limits.batch]:
        if times[len(batch)] > longest_step(batch, share, limits):
            break
        batch.append(candidate)
    best = len(batch)
    for size in range(len(batch) - 1, 0, -1):
        if batch[size].slack <= times[size - 1]:
            break
        if times[size - 1] * best < times[best - 1] * size:
            best = size
    return batch[:best]


def prefill_of(waiting: Sequence[Demand], candidates: Sequence[Candidate], now: float,
               limits: Limits, latency: LatencyModel, most: int) -> PrefillChunk | None:
    """Return the prefill to do before the next decode, of at most `most` tokens, if any.

    `waiting` and `candidates` are in order of utility density. The first waiting request that may
    start is prefilled, if the candidates before it stay on time.
    """
    candidates = candidates[:limits.batch]  # those behind wait for these, not for a prefill
    for demand in waiting:
        before = [c for c in candidates if c.demand.density >= demand.density]
        room = min([c.slack for c in before], default=math.inf)
        if demand.prefill > room or not may_start(demand, before, now, limits, latency):
            continue
        gap = min([c.gap for c in before], default=math.inf)
        chunk = chunk_of(demand.request, min(room, gap), limits, latency, most,
                         math.inf if before else prefill_slack(demand, now))
        if not before or latency.prefill(chunk.tokens, demand.cached) - limits.saved <= gap:
            return chunk
    return None


def may_start(demand: Demand, before: Sequence[Candidate], now: float, limits: Limits,
              latency: LatencyModel) -> bool:
    """Return whether `demand` may have its first token beside the candidates `before` it.

    Its time per token counts from its first token, so that it waits before that one if at all:
    until it would decode at its pace, or its first token is due soon and its equals leave it the
    time to keep up.
    """
    left = 0.0 if demand.generated else demand.first_due - now - demand.prefill
    if left < 0:
        return False  # its first token would come too late
    pace = longest_step(before, PACE_SHARE, limits)
    urgent = left < URGENT_STEPS * limits.step
    if len(before) < limits.efficient_batch or urgent:
        if len(before) < len(limits.times) and limits.times[len(before)] <= pace:
            return True
    return urgent and _keeps_up(demand, before, now)


def _keeps_up(demand: Demand, before: Sequence[Candidate], now: float) -> bool:
    """Return whether the candidates `before` it leave `demand` the time to keep up.

    The cycle formula at their paces: of each second a candidate takes its cost per token over its
    pace. Only equals count. A request of another utility ends or falls behind by itself, while
    one equal more than fits the cycle would make another one miss its objectives.
    """
    if all(c.demand.request.slo.utility != demand.request.slo.utility for c in before):
        return True
    expected = max((demand.work - demand.prefill) / demand.token_cost, 1.0)
    start = now if demand.generated else demand.first_due
    pace = PACE_SHARE * (demand.finish_due - start) / expected
    left = 1.0 - sum([c.demand.token_cost / max(PACE_SHARE * c.pace, c.demand.token_cost)
                      for c in before])
    return demand.token_cost <= left * pace


def prefill_slack(demand: Demand, now: float) -> float:
    """Return the seconds that its prefill may lose to chunks: 0 if it is late.

    If the longest answer would still keep the deadline, it stays so.
    """
    request = demand.request
    latest = min(demand.expires, demand.finish_due - demand.fastest)
    decodes = request.max_tokens - max(request.generated, 1)
    full_length = demand.deadline - demand.prefill - decodes * demand.record.lone_token_cost
    if full_length >= now:
        latest = min(latest, full_length)
    return max(latest - now, 0.0)


def packed(batch: Sequence[Candidate], chunk: PrefillChunk | None, waiting: Iterable[Demand],
           limits: Limits, latency: LatencyModel, most: int) -> list[PrefillChunk]:
    """Return the prefill chunks that share the step with `batch`: `chunk` and others `waiting`.

    As many of at most `most` tokens together as the paces of the batch allow, or as make the step
    no slower to speak of.
    """
    rows, context = len(batch), sum([c.demand.cached for c in batch])
    longest = max(longest_step(batch, PACE_SHARE, limits), CHEAP * latency.step(rows, context))
    chunks: list[PrefillChunk] = []
    parts: list[tuple[int, int]] = []
    wanted = [chunk] if chunk else []
    wanted += [PrefillChunk(d.request, d.request.pending) for d in waiting]
    for part in wanted:
        request, tokens = part.request, min(part.tokens, most)
        while tokens > 0 and latency.step(rows, context, parts + [(tokens, request.cached)]
                                          ) > longest:
            tokens = tokens // 2 if tokens > LEAST_CHUNK else 0
        if tokens:
            chunks.append(PrefillChunk(request, tokens))
            parts.append((tokens, request.cached))
            most -= tokens
        if tokens < request.pending or most < 1:
            break
        longest = min(longest, max(limits.step, latency.step(rows, context, parts)))
    return chunks
