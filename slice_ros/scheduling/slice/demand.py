# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What each request still needs: work, due times and worth, and what arrivals to expect.

Work is in seconds of the accelerator, due times are instants on the clock of `plan`. Both follow
from a request's progress, its objectives and the expected length of its answer.
"""

from dataclasses import dataclass
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.lengths import AnswerLengths
from slice_ros.slo import SloClass

EARLY = 0.05       # the answer may turn out this short: share of answers that do, see `least`
HEADROOM = 0.95    # answers are paced to this share of their TPOT: steps are not that exact
MEMORY = 20.0      # seconds over which arrivals are counted, and forgotten
CLASSES = 64       # classes remembered; the one heard of least recently makes room
LEAST_WORK = 1e-3  # seconds; keeps worth per second finite


@dataclass(eq=False, slots=True)
class Demand:
    """One live request as the scheduler sees it at one moment."""

    request: Request
    kind: 'ClassRecord'
    generated: int = -1      # progress that the figures below were computed from
    cached: int = -1
    epoch: int = -1
    prefill: float = 0.0     # seconds of prefill still ahead
    unit: float = 0.0        # seconds of accelerator per decoded token
    work: float = 0.0        # seconds of accelerator to the expected end
    tokens: int = 0          # decodes until it may first end
    milestone: float = 0.0   # when those must be done for the mean TPOT and the deadline to hold
    first_due: float = 0.0   # latest first token (infinite once it is out)
    finish_due: float = 0.0  # latest last token, if the answer has its expected length
    fastest: float = 0.0     # seconds to the expected end if it ran alone
    worth: float = 0.0       # utility per second of work still ahead: what requests are ranked by
    expires: float = 0.0     # from when on an objective is missed for good
    rolls: float = -math.inf  # 1 s where `first_due` is as far from now, since nothing sets it
    lost: bool = False       # an objective has been missed for good
    selected: bool = False


class ClassRecord:
    """What is known of one class: answer lengths, arrivals, work of a fresh request."""

    __slots__ = ('slo', 'lengths', 'unit', 'alone', 'epoch', 'work', '_count', '_counted_at',
                 '_since')

    def __init__(self, slo: SloClass, now: float) -> None:
        self.slo = slo
        self.lengths = AnswerLengths()
        self.unit = 0.0           # seconds of accelerator per token, nothing cached,
        self.alone = 0.0          # and where a request decodes alone
        self.epoch = 0            # changes whenever cached demands of the class are out of date
        self.work = 0.0           # running mean of the work of a fresh request, seconds
        self._count = 0.0
        self._counted_at = self._since = now

    def arrived(self, at: float, work: float) -> None:
        """Count an arrival, with the work it was expected to bring."""
        at = max(at, self._counted_at)
        self._count = self._count * math.exp((self._counted_at - at) / MEMORY) + 1
        self._counted_at = at
        self.work += (work - self.work) * max(0.05, 1 / self._count if self._count > 1 else 1.0)

    def load(self, now: float, since: float) -> float:
        """Return the seconds of work that arrive each second, on the mean of the last while."""
        count = self._count * math.exp(min(0.0, self._counted_at - now) / MEMORY)
        watched = 1 - math.exp(-(now - since + 2.0) / MEMORY)  # less than all while young
        return self.work * count / (MEMORY * watched)


def unit_cost(latency: LatencyModel, most: int, tpot: float) -> float:
    """Return the least ``l(b) / b`` over the batch sizes up to `most` that can keep `tpot`."""
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
    # Chunks read what lies before them: the mean stands for each.
    middle = cached + (pending - chunk) // 2
    return whole * latency.prefill(chunk, middle) + latency.prefill(rest, cached + whole * chunk)


def measure(demand: Demand, now: float, latency: LatencyModel, chunk: int) -> None:
    """Bring `demand` up to date with its request's progress, at `now`."""
    request, kind = demand.request, demand.kind
    slo, generated = request.slo, request.generated
    ttft, tpot, deadline = slo.ttft, slo.tpot, request.arrival + slo.deadline
    demand.generated, demand.cached, demand.epoch = generated, request.cached, kind.epoch
    reads = latency.decode_context_ms * request.context / 1e3
    unit = kind.unit + reads
    length = kind.lengths.expected(generated, request.max_tokens)
    least = kind.lengths.least(generated, request.max_tokens, EARLY)
    demand.prefill = 0.0 if request.decoding else prefill_seconds(latency, request, chunk)
    if generated:
        start = request.first_token_at
        ahead, sure = length - generated, least - generated
        demand.first_due, demand.rolls = math.inf, -math.inf
        expires = deadline if start <= request.arrival + ttft else -math.inf
    else:
        ahead, sure = length - 1, least - 1
        # With a deadline alone the first token may be as late as still leaves time for the rest;
        # with neither, a cycle of 1 s from now stands in.
        start = min(request.arrival + ttft, deadline - ahead * unit)
        expires = min(request.arrival + ttft, deadline)
        if start == math.inf:
            start, demand.rolls = max(now, request.arrival) + 1.0, 1.0
        demand.first_due = start
    finish = start + (length - 1) * tpot if ahead or generated else start
    demand.finish_due = min(finish, deadline) if length > 1 else min(start, deadline)
    headroom = 1.0 if request.pace else HEADROOM  # rate control lets nobody get that far ahead
    demand.milestone = min(start + headroom * (least - 1) * tpot if least > 1 else start, deadline)
    demand.tokens, demand.unit = max(sure, 1), unit
    demand.work = demand.prefill + ahead * unit
    demand.fastest = demand.prefill + ahead * (kind.alone + reads)
    demand.worth = slo.utility / max(demand.work, LEAST_WORK)
    demand.expires = expires - demand.prefill
    demand.lost = now > demand.expires
