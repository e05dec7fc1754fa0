# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Phase 2 of SLICE, rate allocation: which selected requests share the next step.

The pace of a request is the time it has per token it still needs: the distance between its ones
in the decode mask (arXiv 2510.18544). A step may take as long as the pace of every candidate in
it allows; candidates join in order of utility density while it does.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
import math

from slice_ros.request import Request
from slice_ros.scheduling.policy import PrefillChunk
from slice_ros.scheduling.slice.demand import Demand
from slice_ros.scheduling.slice.limits import (
    CHEAP, chunk_of, largest_chunk, Limits, Moment, PACE_SHARE, WAITS)

YIELD_RATIO = 5.0    # who can wait yields where others lose this many times as much utility


@dataclass(eq=False, slots=True)
class Candidate:
    """A decode candidate: a running request, and for how long its next token may be delayed.

    `slack` is the seconds that it can be left out in all, `gap` those at a stretch to stay within
    its inter-token gap, and `pace` the time it has for each token. Its forced tokens take
    `further` seconds of the step.
    """

    demand: Demand
    slack: float
    pace: float
    gap: float
    further: float = 0.0


def longest_step(pace: float, limits: Limits) -> float:
    """Return how long a step may take, in seconds, where the least `pace` is given."""
    return max(limits.short, PACE_SHARE * pace)


def candidate_of(demand: Demand, rank: int, at: Moment) -> Candidate:
    """Return the candidate of `demand`, the `rank`-th of the running ones by utility density.

    It has to keep two due times: that of its milestone, should the answer end there, and the
    deadline, should it be a long one.
    """
    request, limits = demand.request, at.limits
    tpot, generated = request.slo.tpot, request.generated
    # It would decode beside those before it, and no slower than its own objective asks for.
    speed = min(limits.times[min(rank, limits.efficient_batch) - 1],
                max(limits.times[0], PACE_SHARE * tpot))
    to_milestone, to_deadline = demand.milestone - at.now, demand.deadline - at.now
    tokens, most = max(demand.least - generated, 1), max(demand.longest - generated, 1)
    spent = demand.step_share * speed
    return Candidate(
        demand, slack=min(to_milestone - tokens * spent, to_deadline - most * spent),
        pace=min(to_milestone / tokens, to_deadline / most),
        gap=request.last_token_at + WAITS * tpot - at.now - speed,
        further=request.forced * at.latency.further_ms / 1e3)


def yields(utility: float, wait: float, others: float, slower: float) -> bool:
    """Return whether a request of `utility` leaves a step to `others`, the sum of theirs.

    It would lose the `wait` seconds of the step; they lose the `slower` seconds that it adds. This
    is Smith's rule of weighted completion times (Nav. Res. Logist. Q. 3, 1956) for steps that are
    shared, in favour of efficient ones.
    """
    return YIELD_RATIO * utility * wait < others * slower


def batch_of(candidates: Sequence[Candidate], limits: Limits) -> list[Candidate]:
    """Return the batch of the next step: `candidates` in order, within the paces of all.

    The last ones are left out if they can wait and either make the others too slow, or the step
    is more efficient without them.
    """
    batch: list[Candidate] = []
    times, pace, others, further = limits.times, math.inf, 0.0, 0.0
    for candidate in candidates:
        size, utility = len(batch), candidate.demand.request.slo.utility
        further += candidate.further
        if times[size] + further > longest_step(pace, limits):
            break
        if (size and candidate.slack > WAITS * times[size - 1]
                and yields(utility, times[size - 1], others, times[size] - times[size - 1])):
            break
        batch.append(candidate)
        pace = min(pace, candidate.pace)
        others += utility
    best = len(batch)
    for size in range(len(batch) - 1, 0, -1):
        if batch[size].slack <= times[size - 1]:
            break
        if times[size - 1] * best < times[best - 1] * size:
            best = size
    return batch[:best]


def startable(waiting: Iterable[Demand], candidates: Sequence[Candidate], at: Moment
              ) -> Iterator[tuple[Demand, float, float]]:
    """Yield the `waiting` ones that may have their first token beside the candidates before them.

    Both are in order of utility density. With each come the least slack and the least gap of
    those before it. Its time per token counts from its first token, so that it waits before that
    one if at all: until it would decode at its pace, or its first token is due soon and its
    equals leave it the time to keep up. Until then it yields to those that would wait for it.
    """
    limits, before = at.limits, 0
    slack = gap = pace = math.inf
    others = rest = busy = 0.0
    utilities = set()
    for demand in waiting:
        utility = demand.request.slo.utility
        while before < len(candidates) and candidates[before].demand.density >= demand.density:
            last = candidates[before]
            slack, gap, pace = min(slack, last.slack), min(gap, last.gap), min(pace, last.pace)
            others += last.demand.request.slo.utility
            utilities.add(last.demand.request.slo.utility)
            cost = last.demand.token_cost
            busy += cost / max(PACE_SHARE * last.pace, cost)
            rest = max(rest, last.demand.fastest)
            before += 1
        left = 0.0 if demand.generated else demand.first_due - at.now - demand.prefill
        if left < 0:
            continue  # its first token would come too late
        urgent = left < WAITS * limits.step
        if not urgent and yields(utility, rest, others, min(demand.prefill, limits.chunk)):
            continue  # those before it have ended by then
        fits = (before < len(limits.times)
                and limits.times[before] <= longest_step(pace, limits))
        if (fits and (urgent or before < limits.efficient_batch)
                or urgent and (utility not in utilities or _keeps_up(demand, busy, at.now))):
            yield demand, slack, gap


def prefill_of(waiting: Iterable[Demand], candidates: Sequence[Candidate], at: Moment
               ) -> PrefillChunk | None:
    """Return the prefill to do before the next decode, if any.

    The first request that may start is prefilled, if the candidates before it stay on time.
    """
    for demand, slack, gap in startable(waiting, candidates, at):
        if demand.prefill > slack:
            continue
        chunk = (chunk_of(demand.request, min(slack, gap), at) if gap < math.inf
                 else lone_chunk(demand, at))
        if at.latency.prefill(chunk.tokens, demand.cached) - at.limits.saved <= gap:
            return chunk
    return None


def lone_chunk(demand: Demand, at: Moment) -> PrefillChunk:
    """Return the next chunk of a prefill that nobody's decodes are waiting for.

    It is the largest if the fixed costs of smaller ones would make the request late, with an
    answer of the expected length or of `max_tokens`.
    """
    request = demand.request
    chunk = chunk_of(request, math.inf, at)
    cuts = math.ceil(request.pending / chunk.tokens) - math.ceil(request.pending / at.most)
    decodes = (request.max_tokens - request.generated) * demand.record.lone_token_cost
    latest = min(demand.expires, demand.finish_due - demand.fastest,
                 demand.deadline - demand.prefill - decodes)
    late = cuts * at.latency.prefill_base_ms / 1e3 > latest - at.now
    return largest_chunk(request, at) if late else chunk


def _keeps_up(demand: Demand, busy: float, now: float) -> bool:
    """Return whether the candidates before it leave `demand` the time to keep up.

    The cycle formula at their paces: of each second a candidate takes its cost per token over its
    pace, all of them the share `busy`. Only equals count. A request of another utility ends or
    falls behind by itself, while one equal more than fits the cycle would make another one miss
    its objectives.
    """
    expected = max((demand.work - demand.prefill) / demand.token_cost, 1.0)
    start = now if demand.generated else demand.first_due
    return demand.token_cost * expected <= (
        (1.0 - busy) * PACE_SHARE * (demand.finish_due - start))


def packed(batch: Sequence[Candidate], due: PrefillChunk | None, wanted: Iterable[PrefillChunk],
           at: Moment) -> list[PrefillChunk]:
    """Return as many of the prefill chunks as may share the step with `batch`: `due` goes first.

    Their tokens are as many as the paces of the batch allow, or as make the step no slower to
    speak of. Those `wanted` yield to the batch.
    """
    latency, limits, most, least = at.latency, at.limits, at.most, len(at.limits.times)
    rows, context = len(batch), sum([c.demand.request.cached for c in batch])
    further = sum([c.demand.request.forced for c in batch])
    utility = sum([c.demand.request.slo.utility for c in batch])
    seconds = latency.step(rows, context, (), further)
    longest = max(longest_step(min([c.pace for c in batch]), limits), CHEAP * seconds)
    chunks: list[PrefillChunk] = []
    parts: list[tuple[int, int]] = []

    def with_part(tokens: int, request: Request) -> float:
        return latency.step(rows, context, [*parts, (tokens, request.cached)], further)
    for chunk in chain([due] if due else [], wanted):
        request, tokens = chunk.request, min(chunk.tokens, most)
        slower = with_part(min(tokens, least), request) - seconds
        if chunk is not due and yields(request.slo.utility, seconds, utility, slower):
            break
        short = min(longest, seconds + limits.chunk_seconds(request))
        while tokens and with_part(tokens, request) > (
                short if tokens > least else longest):
            tokens = tokens // 2 if tokens > least else 0
        if tokens:
            chunks.append(PrefillChunk(request, tokens))
            parts.append((tokens, request.cached))
            most -= tokens
        if tokens < request.pending or most < 1:
            break
        seconds = latency.step(rows, context, parts, further)
        longest = min(longest, max(limits.step, seconds))
    return chunks
