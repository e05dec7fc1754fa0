# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A live request as the loop has it, and what a step has done for such requests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TYPE_CHECKING

from slice_ros.errors import ErrorCode
from slice_ros.request import Request
from slice_ros.serving.delivery import Delivery
from slice_ros.serving.sessions import Turn

if TYPE_CHECKING:
    from slice_ros.engine import Output, TokenSequence


@dataclass(eq=False, slots=True)
class Job:
    request: Request
    sequence: 'TokenSequence'
    on_output: Callable[[Delivery], bool | None]
    turn: Turn | None = None
    delivered: int = 0
    looked_at: int = -1      # Loop.prefixes when the cache was last asked for its prompt

    def news(self, text: str, reason: str | None = None, error: ErrorCode = ErrorCode.NONE,
             message: str = '') -> tuple[Callable[[Delivery], bool | None], Delivery]:
        """Return what `Courier.put` takes: the token just sampled, or the end."""
        request = self.request
        at = request.ended_at if error else request.last_token_at
        delivery = Delivery(request, self.delivered, text, reason, error, message,
                            request.generated, at)
        self.delivered += 1
        return self.on_output, delivery


class Done(NamedTuple):
    """A step whose requests have advanced; times are seconds."""

    at: float
    plan: float     # planning it
    took: float     # the pass, and the rest before it, which listeners were left
    shape: tuple[int, int, list[tuple[int, int]]]  # as `LatencyModel.observe` takes it
    told: list[tuple[Job, 'Output']]               # who has a token, and which
