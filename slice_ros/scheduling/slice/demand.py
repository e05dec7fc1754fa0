# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What each request still needs: work, due times and utility density.

Work is in seconds of the accelerator, due times are instants on the clock of `plan`. Both follow
from a request's progress, its objectives and the expected length of its answer.
"""

from dataclasses import dataclass
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.lengths import AnswerLengths, KnownLength
from slice_ros.scheduling.slice.classes import ClassRecord
from slice_ros.scheduling.slice.limits import UNSET


@dataclass(eq=False, slots=True)
class Demand:
    """One live request as the scheduler sees it at one moment."""

    request: Request
    record: ClassRecord
    lengths: AnswerLengths | KnownLength
    generated: int = -1        # progress and epoch that the figures below were computed from
    cached: int = -1
    epoch: int = -1
    prefill: float = 0.0       # seconds of prefill still ahead
    step_share: float = 1.0    # of its tokens, those that take a step: the others are forced
    token_cost: float = 0.0    # seconds of accelerator per decoded token
    work: float = 0.0          # seconds of accelerator to the expected end
    least: int = 0             # tokens at which its answer may first end
    milestone: float = 0.0     # when those must be there to keep the mean TPOT and the deadline
    longest: int = 0           # tokens of a long answer
    deadline: float = 0.0      # when even those must be there
    first_due: float = 0.0     # latest first token; infinite once it is out
    finish_due: float = 0.0    # latest last token, if the answer has its expected length
    fastest: float = 0.0       # seconds to the expected end if it ran alone
    density: float = 0.0       # utility per second of work still ahead, the order of the selection
    expires: float = 0.0       # from then on an objective is missed for good
    missed: bool = False       # an objective has been missed for good
    selected: bool = False


def step_share(request: Request) -> float:
    """Return the share of a request's tokens that take a step: as of those it has had, and one."""
    return 1.0 - request.jumped / (request.generated + 1)


def prefill_seconds(latency: LatencyModel, request: Request, chunk: int, saved: float) -> float:
    """Return the seconds that feeding all pending tokens takes, in chunks of at most `chunk`.

    `saved` is what each chunk shares with the decodes of its step, in seconds.
    """
    pending, cached = request.pending, request.cached
    whole, rest = divmod(pending, chunk)
    # A chunk reads the tokens before it: the mean context stands for that of each chunk.
    middle = cached + (pending - chunk) // 2
    seconds = whole * latency.prefill(chunk, middle)
    seconds += latency.prefill(rest, cached + whole * chunk)
    return max(seconds - math.ceil(pending / chunk) * saved, 0.0)


def measure(demand: Demand, now: float, latency: LatencyModel, chunk: int) -> None:
    """Bring `demand` up to date with its request's progress, at `now`.

    `chunk` is the largest prefill chunk, in tokens. The formulas are in docs/scheduling.md.
    """
    request, record, lengths = demand.request, demand.record, demand.lengths
    slo, generated, most = request.slo, request.generated, request.max_tokens
    ttft, tpot, deadline = slo.ttft, slo.tpot, request.arrival + slo.deadline
    demand.generated, demand.cached, demand.epoch = generated, request.cached, record.epoch
    reads = latency.decode_context_ms * request.context / 1e3
    share = demand.step_share = step_share(request)
    forced = (1.0 - share) * latency.further_ms / 1e3
    token_cost = share * (record.token_cost + reads) + forced
    least, length, longest = lengths.estimate(generated, most, record.reach)
    done = max(generated, 1)   # the prefill brings the first token
    left, demand.least, demand.longest = length - done, least, longest
    demand.prefill = (0.0 if request.decoding
                      else prefill_seconds(latency, request, chunk, record.saved))
    if generated:
        start = request.first_token_at
        demand.first_due = math.inf
        expires = deadline if start <= request.arrival + ttft else -math.inf
    else:
        # With a deadline alone, the first token may be as late as still leaves time for the rest.
        start = min(request.arrival + ttft,
                    deadline - max(longest - done, 1) * record.lone_token_cost)
        expires = min(request.arrival + ttft, deadline)
        if start == math.inf:
            start = max(now, request.arrival) + UNSET  # it moves on
        demand.first_due = start
    demand.finish_due = min(start + (length - 1) * tpot, deadline) if length > 1 else start
    demand.milestone = min(start + (least - 1) * tpot, deadline) if least > 1 else start
    demand.token_cost, demand.deadline = token_cost, deadline
    demand.work = demand.prefill + left * token_cost
    demand.fastest = demand.prefill + left * (share * (record.lone_token_cost + reads) + forced)
    demand.density = slo.utility / demand.work if demand.work else math.inf
    demand.expires = expires - demand.prefill
    demand.missed = now > demand.expires
