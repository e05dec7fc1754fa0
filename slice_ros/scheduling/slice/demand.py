# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What each request still needs: work, due times, utility density; and the record of each class.

Work is in seconds of the accelerator, due times are instants on the clock of `plan`. Both follow
from a request's progress, its objectives and the expected length of its answer.
"""

from dataclasses import dataclass
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.lengths import AnswerLengths
from slice_ros.slo import SloClass

EARLY_SHARE = 0.05      # share of the answers that end before their milestone, see `measure`
HEADROOM = 0.95         # answers are paced to this share of their TPOT: steps are not that exact
ARRIVAL_MEMORY = 20.0   # seconds over which arrivals are counted, and forgotten
LEAST_WORK = 1e-3       # seconds; keeps the utility density finite
DEFAULT_DUE = 1.0       # seconds from now to the first token where no objective sets it


@dataclass(eq=False, slots=True)
class Demand:
    """One live request as the scheduler sees it at one moment."""

    request: Request
    record: 'ClassRecord'
    generated: int = -1        # progress and epoch that the figures below were computed from
    cached: int = -1
    epoch: int = -1
    prefill: float = 0.0       # seconds of prefill still ahead
    token_cost: float = 0.0    # seconds of accelerator per decoded token
    work: float = 0.0          # seconds of accelerator to the expected end
    tokens: int = 0            # decodes until it may first end
    milestone: float = 0.0     # when those must be done to keep the mean TPOT and the deadline
    first_due: float = 0.0     # latest first token; infinite once it is out
    finish_due: float = 0.0    # latest last token, if the answer has its expected length
    fastest: float = 0.0       # seconds to the expected end if it ran alone
    density: float = 0.0       # utility per second of work still ahead, the order of the selection
    expires: float = 0.0       # from then on an objective is missed for good
    due_after: float = -math.inf  # DEFAULT_DUE where that sets `first_due`, which then moves on
    missed: bool = False       # an objective has been missed for good
    selected: bool = False


class ClassRecord:
    """What is known of one class: answer lengths, arrivals, work of a fresh request."""

    __slots__ = ('slo', 'lengths', 'token_cost', 'lone_token_cost', 'epoch', 'work', '_count',
                 '_counted_at')

    def __init__(self, slo: SloClass, now: float) -> None:
        self.slo = slo
        self.lengths = AnswerLengths()
        self.token_cost = 0.0       # seconds of accelerator per token, nothing cached,
        self.lone_token_cost = 0.0  # and where a request decodes alone
        self.epoch = 0              # changes whenever cached demands of the class are out of date
        self.work = 0.0             # running mean of the work of a fresh request, seconds
        self._count = 0.0
        self._counted_at = now

    def arrived(self, at: float, work: float) -> None:
        """Count an arrival and the `work` (seconds) that it is expected to bring."""
        at = max(at, self._counted_at)
        self._count = self._count * math.exp((self._counted_at - at) / ARRIVAL_MEMORY) + 1
        self._counted_at = at
        self.work += (work - self.work) * max(0.05, 1 / self._count if self._count > 1 else 1.0)

    def load(self, now: float, since: float) -> float:
        """Return the seconds of work that arrive each second; arrivals are counted `since`."""
        count = self._count * math.exp(min(0.0, self._counted_at - now) / ARRIVAL_MEMORY)
        counted = 1 - math.exp(-(now - since + 2.0) / ARRIVAL_MEMORY)  # less than 1 while young
        return self.work * count / (ARRIVAL_MEMORY * counted)


def least_token_cost(latency: LatencyModel, most: int, tpot: float) -> float:
    """Return the least ``l(b) / b`` in seconds over the batches up to `most` that keep `tpot`."""
    best = max(latency.decode(1), LEAST_WORK)
    for batch in range(2, most + 1):
        seconds = latency.decode(batch)
        if seconds > tpot:
            break
        best = min(best, max(seconds / batch, LEAST_WORK / batch))
    return best


def prefill_seconds(latency: LatencyModel, request: Request, chunk: int) -> float:
    """Return the seconds that feeding all pending tokens takes, in chunks of at most `chunk`."""
    pending, cached = request.pending, request.cached
    if pending <= chunk:
        return latency.prefill(pending, cached)
    whole, rest = divmod(pending, chunk)
    # A chunk reads the tokens before it: the mean context stands for that of each chunk.
    middle = cached + (pending - chunk) // 2
    return whole * latency.prefill(chunk, middle) + latency.prefill(rest, cached + whole * chunk)


def measure(demand: Demand, now: float, latency: LatencyModel, chunk: int) -> None:
    """Bring `demand` up to date with its request's progress, at `now`.

    `chunk` is the largest prefill chunk, in tokens. The formulas are in docs/scheduling.md.
    """
    request, record = demand.request, demand.record
    slo, generated = request.slo, request.generated
    ttft, tpot, deadline = slo.ttft, slo.tpot, request.arrival + slo.deadline
    demand.generated, demand.cached, demand.epoch = generated, request.cached, record.epoch
    reads = latency.decode_context_ms * request.context / 1e3
    token_cost = record.token_cost + reads
    length = record.lengths.expected(generated, request.max_tokens)
    least = record.lengths.least(generated, request.max_tokens, EARLY_SHARE)
    demand.prefill = 0.0 if request.decoding else prefill_seconds(latency, request, chunk)
    if generated:
        start = request.first_token_at
        left, least_left = length - generated, least - generated
        demand.first_due, demand.due_after = math.inf, -math.inf
        expires = deadline if start <= request.arrival + ttft else -math.inf
    else:
        left, least_left = length - 1, least - 1
        # With a deadline alone, the first token may be as late as still leaves time for the rest.
        start = min(request.arrival + ttft, deadline - left * token_cost)
        expires = min(request.arrival + ttft, deadline)
        if start == math.inf:
            start, demand.due_after = max(now, request.arrival) + DEFAULT_DUE, DEFAULT_DUE
        demand.first_due = start
    finish = start + (length - 1) * tpot if left or generated else start
    demand.finish_due = min(finish, deadline) if length > 1 else min(start, deadline)
    headroom = 1.0 if request.pace else HEADROOM  # rate control lets no request get that far ahead
    demand.milestone = min(start + headroom * (least - 1) * tpot if least > 1 else start, deadline)
    demand.tokens, demand.token_cost = max(least_left, 1), token_cost
    demand.work = demand.prefill + left * token_cost
    demand.fastest = demand.prefill + left * (record.lone_token_cost + reads)
    demand.density = slo.utility / max(demand.work, LEAST_WORK)
    demand.expires = expires - demand.prefill
    demand.missed = now > demand.expires
