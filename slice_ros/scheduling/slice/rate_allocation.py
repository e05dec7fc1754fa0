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

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, PrefillChunk
from slice_ros.scheduling.slice.demand import Demand
from slice_ros.slo import SloClass

EFFICIENT = 1.05     # a batch is large enough at this many times the least cost per request
CHEAP = 0.9          # a best-effort batch grows while one more adds less than this of the mean
PACE_SHARE = 0.8     # share of the time per token that a step may take
TPOT_SHARE = 0.8     # share of its TPOT that a request is decoded in at the fastest
MAX_GAP = 2.0        # TPOTs that a request may wait for its next token
LEAST_CHUNK = 16     # tokens; the smallest prefill chunk, where a chunk has no fixed cost
FIXED_SHARE = 4      # the tokens of a chunk take at least this many times its fixed cost
LONGEST_STEP = 1.0   # seconds, where no objective sets less


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a step may be, in seconds, and how large its batch may be.

    `batch` requests fit a step, `efficient_batch` of them make it efficient, and a best-effort
    step takes `best_effort_batch`. ``times[b - 1]`` is the seconds of a decode step over b
    requests, for every b up to the largest batch of the engine.
    """

    step: float
    batch: int
    efficient_batch: int
    best_effort_batch: int
    times: tuple[float, ...]


@dataclass(eq=False, slots=True)
class Candidate:
    """A decode candidate: a running request, and for how long its next token may be delayed.

    `slack` is the seconds that it can be left out in all, `pace` the longest that its next step
    may take, if its answer ends at its milestone; the `likely` ones are no less, and are for an
    answer of the expected length. `gap` is the seconds that it can be left out at a stretch to
    stay within its inter-token gap.
    """

    demand: Demand
    utility: float
    slack: float
    likely_slack: float
    pace: float
    likely_pace: float
    gap: float
    overdue: bool   # if left out of this step too, it may wait a TPOT longer than MAX_GAP

    def slack_beside(self, other: Demand) -> float:
        """Return the seconds it may wait for `other`: it takes a small risk for an equal."""
        return self.likely_slack if other.request.slo.utility >= self.utility else self.slack


def pace_beside(candidates: Sequence[Candidate], other: Demand) -> float:
    """Return how long a step may take, in seconds, that `candidates` share with `other`."""
    utility = other.request.slo.utility
    return min([c.likely_pace if utility >= c.utility else c.pace for c in candidates],
               default=math.inf)


def limits_of(latency: LatencyModel, capacity: Capacity, classes: Iterable[SloClass]) -> Limits:
    """Return the limits of a step while requests of `classes` may arrive.

    An arrival waits for the running step, which must not cost much of the time to its first
    token. An efficient batch fits a step in any case, however strict a class is.
    """
    step = min((min(slo.ttft / 4, 2 * slo.tpot) for slo in classes), default=LONGEST_STEP)
    step = min(step, LONGEST_STEP)
    times = [latency.decode(batch) for batch in range(1, capacity.max_batch + 1)]
    costs = [seconds / batch for batch, seconds in enumerate(times, 1)]
    enough = EFFICIENT * min(costs)
    efficient = next(batch for batch, cost in enumerate(costs, 1) if cost <= enough)
    most = efficient
    while most < capacity.max_batch and times[most] <= step:
        most += 1
    best_effort = efficient
    while (best_effort < most
           and times[best_effort] - times[best_effort - 1] < CHEAP * costs[best_effort - 1]):
        best_effort += 1
    return Limits(max(step, times[efficient - 1]), most, efficient, best_effort, tuple(times))


def candidate_of(demand: Demand, rank: int, now: float, limits: Limits) -> Candidate:
    """Return the candidate of `demand`, the `rank`-th of the running ones by utility density."""
    request = demand.request
    slo, tpot = request.slo, request.slo.tpot
    # It would decode beside those before it, and no slower than its own objective asks for.
    speed = min(limits.times[min(rank, limits.efficient_batch) - 1],
                max(limits.times[0], TPOT_SHARE * tpot))
    to_milestone, to_finish = demand.milestone - now, demand.finish_due - now
    expected = max(demand.work / demand.token_cost, 1.0)
    to_gap = request.last_token_at + MAX_GAP * tpot - now
    slack, likely_slack = to_milestone - demand.tokens * speed, to_finish - expected * speed
    pace = PACE_SHARE * to_milestone / demand.tokens
    likely_pace = PACE_SHARE * to_finish / expected
    most = max(to_gap, tpot)
    return Candidate(demand, slo.utility, slack, max(slack, likely_slack),
                     min(pace, most), min(max(pace, likely_pace), most), to_gap - speed,
                     to_gap + tpot <= 2 * speed)


def batch_of(candidates: Sequence[Candidate], limits: Limits) -> list[Request]:
    """Return the batch of the next step: `candidates` in order, while every pace allows it.

    Of the most useful class, those that are overdue come before their equals.
    """
    top = max([c.utility for c in candidates], default=0.0)
    first = [c for c in candidates if c.overdue and c.utility == top]
    if first:
        candidates = first + [c for c in candidates if c not in first]
    batch: list[Candidate] = []
    for candidate in candidates[:limits.batch]:
        if limits.times[len(batch)] > pace_beside(batch, candidate.demand):
            break
        batch.append(candidate)
    return [candidate.demand.request for candidate in batch]


def prefill_of(waiting: Sequence[Demand], candidates: Sequence[Candidate], now: float,
               limits: Limits, latency: LatencyModel, most: int, places: bool = True
               ) -> PrefillChunk | None:
    """Return the prefill to do before the next decode, of at most `most` tokens, if any.

    `waiting` and `candidates` are in order of utility density. The first waiting request is
    prefilled once it would decode at its pace, or once its first token is due soon and its equals
    leave it the time to keep up, if the candidates before it stay on time. Without `places` it
    waits for neither.
    """
    candidates = candidates[:limits.batch]  # those behind wait for these, not for a prefill
    ahead = 0
    for demand in waiting:
        while ahead < len(candidates) and candidates[ahead].demand.density >= demand.density:
            ahead += 1
        left = 0.0 if demand.generated else demand.first_due - now - demand.prefill
        if left < 0:
            continue  # its first token would come too late
        urgent = left < 2 * limits.step or not places
        if not urgent and ahead >= limits.efficient_batch:
            continue
        before = candidates[:ahead]
        room = min((c.slack_beside(demand) for c in before), default=math.inf)
        if demand.prefill <= room and (_decodes_at_pace(demand, before, latency) or urgent and (
                not places or _keeps_up(demand, before, now))):
            gap = min((c.gap for c in before), default=math.inf)
            chunk = chunk_of(demand.request, min(room, gap), limits, latency, most,
                             math.inf if before else prefill_slack(demand, now))
            if not before or latency.prefill(chunk.tokens, chunk.request.cached) <= gap:
                return chunk
    return None


def _decodes_at_pace(demand: Demand, before: Sequence[Candidate], latency: LatencyModel) -> bool:
    """Return whether `demand` would decode at its pace behind the candidates `before` it.

    Its time per token counts from its first token, so that it waits before that one if at all.
    """
    return latency.decode(len(before) + 1) <= pace_beside(before, demand)


def _keeps_up(demand: Demand, before: Sequence[Candidate], now: float) -> bool:
    """Return whether the candidates `before` it leave `demand` the time to keep up.

    The cycle formula at their paces: of each second a candidate takes its cost per token over its
    pace. Only equals count. A request of another utility ends or falls behind by itself, while
    one equal more than fits the cycle would make another one miss its objectives.
    """
    if all(c.utility != demand.request.slo.utility for c in before):
        return True
    expected = max((demand.work - demand.prefill) / demand.token_cost, 1.0)
    start = now if demand.generated else demand.first_due
    pace = PACE_SHARE * (demand.finish_due - start) / expected
    left = 1.0 - sum(c.demand.token_cost / max(pace_beside([c], demand), c.demand.token_cost)
                     for c in before)
    return demand.token_cost <= left * pace


def prefill_slack(demand: Demand, now: float) -> float:
    """Return the seconds that its prefill may lose: 0 if it is late, infinite once it has missed.

    If the longest answer would still keep the deadline, it stays so.
    """
    if demand.missed:
        return math.inf
    request = demand.request
    latest = min(demand.expires, demand.finish_due - demand.fastest)
    decodes = request.max_tokens - max(request.generated, 1)
    full_length = (request.arrival + request.slo.deadline - demand.prefill
                   - decodes * demand.record.lone_token_cost)
    if full_length >= now:
        latest = min(latest, full_length)
    return max(latest - now, 0.0)


def chunk_of(request: Request, room: float, limits: Limits, latency: LatencyModel,
             most: int, left: float = math.inf) -> PrefillChunk:
    """Return as much of the prefill as fits `room` seconds and a step, in chunks that pay.

    The fixed costs of all its chunks may add up to `left` seconds more than those of chunks of
    `most` tokens.
    """
    tokens = min(request.pending, most)
    room = min(room, limits.step)
    chunks = math.ceil(request.pending / most) + left / max(latency.prefill_base_ms / 1e3, 1e-9)
    least = LEAST_CHUNK
    if latency.prefill_token_ms:
        fixed = FIXED_SHARE * latency.prefill_base_ms / latency.prefill_token_ms
        least = max(least, math.ceil(min(fixed, most)))
    while tokens > least and latency.prefill(tokens, request.cached) > room:
        smaller = max(least, tokens // 2)
        if math.ceil(request.pending / smaller) > chunks:
            break
        tokens = smaller
    return PrefillChunk(request, tokens)
