# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A request of vLLM's as a policy sees it: the `Request` of this package, copied from theirs.

vLLM runs ahead: it counts tokens as computed when they are scheduled, and with asynchronous
scheduling a request is scheduled again before its last token is known. A policy sees such tokens
as generated, at the time at which they are expected. Counts are copied and never advanced here, so
that preemption, hits in the prefix cache and rejected drafts need no code of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import Protocol

from slice_ros.request import Request, State
from slice_ros.slo import SloClass


class VllmRequest(Protocol):
    """What is read of `vllm.v1.request.Request`."""

    request_id: str
    arrival_time: float              # seconds of `time.time`
    max_tokens: int
    num_prompt_tokens: int
    num_output_tokens: int           # known
    num_output_placeholders: int     # sampled by steps in flight
    num_computed_tokens: int         # those of steps in flight included
    num_stale_output_tokens: int     # in flight since before a preemption
    drop_stale_output: bool
    next_decode_eligible_step: int   # not to be scheduled before, pipelines


@dataclass(eq=False, slots=True)
class Mirror:
    """Their request, and ours that a policy sees."""

    theirs: VllmRequest
    ours: Request
    received: int = 0    # output tokens that have come back

    def refresh(self, next_step: int) -> bool:
        """Copy the counts; return whether a policy may be shown it in step `next_step` of theirs.

        It may not while output is in flight that was computed before a preemption.
        """
        theirs, ours = self.theirs, self.ours
        generated = theirs.num_output_tokens + theirs.num_output_placeholders
        pending = ours.prompt_tokens + generated - theirs.num_computed_tokens
        if pending < 1:  # all is in flight: so is the token that comes of it
            generated += 1 - pending
        ours.gated = (pending < 1 or generated >= ours.max_tokens
                      or theirs.next_decode_eligible_step > next_step)
        if ours.cached != theirs.num_computed_tokens or ours.generated != generated:
            ours.cached, ours.generated = theirs.num_computed_tokens, generated
            ours.state = (State.WAITING if not ours.cached
                          else State.RUNNING if generated else State.PREFILL)
        return not theirs.num_stale_output_tokens or theirs.drop_stale_output

    def launched(self, next_step: int, expected: float) -> None:
        """Note that a step with this request was scheduled, which is `expected` to end then."""
        before = self.ours.generated
        self.refresh(next_step)
        if self.ours.generated > before:
            self._sampled(expected)

    def returned(self, next_step: int, now: float) -> None:
        """Note that a step with this request has come back `now`."""
        tokens = self.theirs.num_output_tokens
        if tokens > self.received:
            if not self.received:
                self.ours.first_token_at = now
            self.received = tokens
            in_flight = self.theirs.num_output_placeholders > 0
            self._sampled(max(now, self.ours.last_token_at) if in_flight else now)
        self.refresh(next_step)

    def _sampled(self, at: float) -> None:
        self.ours.last_token_at = at
        if math.isnan(self.ours.first_token_at):
            self.ours.first_token_at = at


def mirror_of(theirs: VllmRequest, slo: SloClass, most_tokens: int, clock: Callable[[], float],
              wall: Callable[[], float]) -> Mirror:
    """Return the mirror of a new request, which has room for `most_tokens`, prompt included.

    Its time of arrival is one of `wall`, ours one of `clock`, both in seconds.
    """
    prompt = theirs.num_prompt_tokens
    room = max(1, min(theirs.max_tokens, most_tokens - prompt))
    arrival = clock() - max(0.0, wall() - theirs.arrival_time)
    return Mirror(theirs, Request(theirs.request_id, slo, arrival, prompt, room))
