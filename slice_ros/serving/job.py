# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A live request as the serving loop keeps it, and a step that has been computed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TYPE_CHECKING

from slice_ros.errors import ErrorCode
from slice_ros.request import Request
from slice_ros.scheduling.policy import Step
from slice_ros.serving.delivery import Delivery
from slice_ros.serving.sessions import Turn

if TYPE_CHECKING:
    from slice_ros.engine import Output, TokenSequence


@dataclass(eq=False, slots=True)
class Job:
    """A live request: its progress, its tokens in the engine, and where they go."""

    request: Request
    sequence: 'TokenSequence'
    on_output: Callable[[Delivery], bool | None]
    turn: Turn | None = None
    deliveries: int = 0            # made so far
    prefixes_seen: int = -1        # value of `Loop.prefixes` at the last look into the cache

    def delivery(self, text: str, reason: str | None = None, error: ErrorCode = ErrorCode.NONE,
                 message: str = '') -> tuple[Callable[[Delivery], bool | None], Delivery]:
        """Return what `DeliveryThread.put` takes: the token just sampled, or the end."""
        request = self.request
        at = request.ended_at if error else request.last_token_at
        delivery = Delivery(request, self.deliveries, text, reason, error, message,
                            request.generated, at)
        self.deliveries += 1
        return self.on_output, delivery


def begin_cached(step: Step, adopt: Callable[[Request], int]) -> Step:
    """Have requests that a step begins and prefills whole adopt what is cached of their prompts.

    When they arrived, there may have been no slot for it, or nothing cached yet. `adopt` returns
    how many tokens a request has adopted; these are left out of its chunk.
    """
    begun = [chunk.request for chunk in step.prefill
             if not chunk.request.cached and chunk.tokens == chunk.request.pending]
    if not sum([adopt(request) for request in begun]):
        return step
    return replace(step, prefill=tuple(
        replace(chunk, tokens=min(chunk.tokens, chunk.request.pending)) for chunk in step.prefill))


class ComputedStep(NamedTuple):
    """A step whose requests have advanced, and whose tokens wait to be delivered; seconds."""

    at: float       # when the engine had computed it
    plan: float     # duration of the plan
    took: float     # duration of the forward pass, with the time yielded before it
    shape: tuple[int, int, list[tuple[int, int]]]  # arguments of `LatencyModel.observe`
    outputs: list[tuple[Job, 'Output']]            # jobs that have a new token
