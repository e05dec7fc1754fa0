# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Phase 2 of SLICE: what each selected request can bear, and so who shares the next step.

A request's pace is the time it has per token it still needs: the distance between its ones in
the decode mask. A step may take as long as the pace of its rows allows; rows join in order of
worth while it does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, PrefillChunk
from slice_ros.scheduling.slice.demand import Demand
from slice_ros.slo import SloClass

WORTHWHILE = 1.05    # a batch is big enough when a row costs at most this times the least cost
CHEAP = 0.9          # on slack a row joins that adds less than this share of a mean row's time
TIGHT = 0.8          # rows are paced to this share of the time they have
SMOOTH = 2.0         # a selected row waits at most this many TPOTs for its next token
LEAST_CHUNK = 16     # tokens; the smallest prefill chunk, where a chunk has no fixed cost
FIXED_SHARE = 4      # the tokens of a chunk take at least this many times its fixed cost
LONGEST_STEP = 1.0   # seconds, where no objective says less


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a step may be in seconds, the rows that fit it, and the rows worth gathering.

    A step on slack takes `slack` rows; `times` are the seconds of a decode step over 1, 2, ...
    rows, as many as a step may have.
    """

    step: float
    rows: int
    target: int
    slack: int
    times: tuple[float, ...]


@dataclass(eq=False, slots=True)
class Row:
    """A selected request that is decoding, and how much its next token may be held up.

    `slack` is the time in seconds it can be left out in all, `pace` the longest its next step may
    take, if its answer turns out short; the `likely` ones are no less, and for an answer of the
    expected length. `gap` is how long it can be left out at a stretch for its answer to flow.
    """

    demand: Demand
    utility: float
    slack: float
    likely_slack: float
    pace: float
    likely_pace: float
    gap: float
    overdue: bool   # left out of this step too, it could wait a TPOT longer than SMOOTH allows

    def slack_beside(self, other: Demand) -> float:
        """Return the seconds it may wait for `other`: its equals are worth a small risk."""
        return self.likely_slack if other.request.slo.utility >= self.utility else self.slack


def pace_beside(rows: Sequence[Row], other: Demand) -> float:
    """Return how long a step may take that `rows` share with `other`."""
    utility = other.request.slo.utility
    return min([row.likely_pace if utility >= row.utility else row.pace for row in rows],
               default=math.inf)


def limits_of(latency: LatencyModel, capacity: Capacity, classes: Iterable[SloClass]) -> Limits:
    """Return the limits of a step with requests of `classes` about.

    An arrival waits for the step that runs: it must not cost much of the time to its first
    token. However strict a class is, a step may hold as many rows as it takes to be efficient.
    """
    step = min((min(slo.ttft / 4, 2 * slo.tpot) for slo in classes), default=LONGEST_STEP)
    step = min(step, LONGEST_STEP)
    times = [latency.decode(batch) for batch in range(1, capacity.max_batch + 1)]
    costs = [seconds / batch for batch, seconds in enumerate(times, 1)]
    enough = WORTHWHILE * min(costs)
    target = next(batch for batch, cost in enumerate(costs, 1) if cost <= enough)
    rows = target
    while rows < capacity.max_batch and times[rows] <= step:
        rows += 1
    slack = target
    while slack < rows and times[slack] - times[slack - 1] < CHEAP * costs[slack - 1]:
        slack += 1
    return Limits(max(step, times[target - 1]), rows, target, slack, tuple(times))


def pace_of(demand: Demand, rank: int, now: float, limits: Limits) -> Row:
    """Return what `demand`, the `rank`-th most useful of those that decode, can bear."""
    request = demand.request
    slo, tpot = request.slo, request.slo.tpot
    # It would decode beside those worth more, and no slower than its own objective asks for.
    speed = min(limits.times[min(rank, limits.target) - 1], max(limits.times[0], 0.8 * tpot))
    first, expected = demand.milestone - now, demand.finish_due - now
    ahead = max(demand.work / demand.unit, 1.0)
    smooth = request.last_token_at + SMOOTH * tpot - now
    slack, likely_slack = first - demand.tokens * speed, expected - ahead * speed
    pace, likely_pace = TIGHT * first / demand.tokens, TIGHT * expected / ahead
    most = max(smooth, tpot)
    return Row(demand, slo.utility, slack, max(slack, likely_slack),
               min(pace, most), min(max(pace, likely_pace), most), smooth - speed,
               smooth + tpot <= 2 * speed)


def batch_of(rows: Sequence[Row], limits: Limits) -> list[Request]:
    """Return who decodes in the next step: `rows` in order of worth, while all bear its time.

    Of the most useful class, those whose last token was long ago come before their equals.
    """
    top = max([row.utility for row in rows], default=0.0)
    first = [row for row in rows if row.overdue and row.utility == top]
    if first:
        rows = first + [row for row in rows if row not in first]
    batch: list[Row] = []
    for row in rows[:limits.rows]:
        if limits.times[len(batch)] > pace_beside(batch, row.demand):
            break
        batch.append(row)
    return [row.demand.request for row in batch]


def prefill_of(waiting: Sequence[Demand], rows: Sequence[Row], now: float, limits: Limits,
               latency: LatencyModel, most: int, places: bool = True) -> PrefillChunk | None:
    """Choose the prefill to do before the next decode, of at most `most` tokens, if any.

    The most useful of `waiting` goes first, once it would decode at its pace, or its first token
    is due soon and its equals leave it the time to keep up, as long as the `rows` of at least its
    worth stay on time. Without `places` it waits for neither.
    """
    rows = rows[:limits.rows]  # those behind wait for these, not for a prefill
    ahead = 0
    for demand in waiting:
        while ahead < len(rows) and rows[ahead].demand.worth >= demand.worth:
            ahead += 1
        left = 0.0 if demand.generated else demand.first_due - now - demand.prefill
        if left < 0:
            continue  # its first token would come too late
        urgent = left < 2 * limits.step or not places
        if not urgent and ahead >= limits.target:
            continue
        before = rows[:ahead]
        room = min((row.slack_beside(demand) for row in before), default=math.inf)
        if demand.prefill <= room and (_joins(demand, before, latency) or urgent and (
                not places or _keeps_up(demand, before, now))):
            gap = min((row.gap for row in before), default=math.inf)
            chunk = chunk_of(demand.request, min(room, gap), limits, latency, most,
                             math.inf if before else to_spare(demand, now))
            if not before or latency.prefill(chunk.tokens, chunk.request.cached) <= gap:
                return chunk
    return None


def _joins(demand: Demand, before: Sequence[Row], latency: LatencyModel) -> bool:
    """Return whether `demand` would decode at its pace behind those `before` it.

    Its time per token counts from its first token, so that it had better wait for a place.
    """
    return latency.decode(len(before) + 1) <= pace_beside(before, demand)


def _keeps_up(demand: Demand, before: Sequence[Row], now: float) -> bool:
    """Return whether the rows `before` it leave `demand` the time to keep up, if any is its equal.

    The cycle formula at their paces: of each second a row takes its cost per token over its pace.
    What is worth more than `demand` ends or falls behind without it; its equals do not make way,
    so that beginning one more than the cycle holds would only lose another.
    """
    if all(row.utility != demand.request.slo.utility for row in before):
        return True
    ahead = max((demand.work - demand.prefill) / demand.unit, 1.0)
    pace = TIGHT * (demand.finish_due - (now if demand.generated else demand.first_due)) / ahead
    left = 1.0 - sum(row.demand.unit / max(pace_beside([row], demand), row.demand.unit)
                     for row in before)
    return demand.unit <= left * pace


def to_spare(demand: Demand, now: float) -> float:
    """Return the seconds that its prefill may lose: none if it is late, any if it is lost."""
    if demand.lost:
        return math.inf
    request = demand.request
    latest = min(demand.expires, demand.finish_due - demand.fastest)
    decodes = request.max_tokens - max(request.generated, 1)
    full_length = (request.arrival + request.slo.deadline - demand.prefill
                   - decodes * demand.kind.alone)
    if full_length >= now:  # even the longest answer keeps the deadline, and is to keep it
        latest = min(latest, full_length)
    return max(latest - now, 0.0)


def chunk_of(request: Request, room: float, limits: Limits, latency: LatencyModel,
             most: int, left: float = math.inf) -> PrefillChunk:
    """Return as much of the prefill as fits `room` seconds and a step, in chunks that pay.

    Their fixed costs may add up to `left` seconds more than those of chunks of `most` tokens.
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
