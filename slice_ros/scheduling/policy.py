# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The contract every scheduling policy keeps.

A policy is asked for one step at a time: given the time, the live requests and a latency model,
`Policy.plan` says who decodes, who prefills how much, and who gives up memory. The simulator and
the real server call the same objects in the same way. A policy reads requests and never changes
them; what it must not know (how long an answer will turn out) is not on a request at all.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the engine can hold and do at once."""

    max_batch: int = 16           # requests in one decode step
    slots: int = 64               # requests with a KV cache at the same time
    kv_tokens: int = 1 << 20      # tokens in all KV caches together
    prefill_chunk: int = 512      # prompt tokens in one step


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """`tokens` of a request's pending tokens (1 .. ``request.pending``) to feed in this step."""

    request: Request
    tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass, and what has to happen before it.

    ``evict`` gives up KV caches (recomputed when those requests next run) before the pass;
    ``drop`` ends requests with DEADLINE_MISSED. A step with neither decode nor prefill is idle:
    plan again at ``wake_at``, or when a request arrives, ends or is no longer gated if that is
    ``None``.
    """

    decode: tuple[Request, ...] = ()
    prefill: tuple[PrefillChunk, ...] = ()
    wake_at: float | None = None
    evict: tuple[Request, ...] = ()
    drop: tuple[Request, ...] = ()

    @property
    def idle(self) -> bool:
        return not self.decode and not self.prefill


class Policy(ABC):
    """A scheduling policy. One instance serves one engine; it is called from one thread."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity

    @abstractmethod
    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        """Return the next step for the live `requests`: none ended, in order of arrival.

        Only those that are ``ready`` may be decoded: where rate control holds one, its room and
        time go to others, and when nobody else can use them the step is idle.
        """

    def finished(self, request: Request) -> None:
        """Learn from a request that has just ended, whatever its final state."""

    def inherit(self, earlier: 'Policy') -> None:
        """Take over what `earlier`, whose place this policy takes, has learnt.

        Called before the first plan, where options, capacity or the objectives of live requests
        have changed.
        """

    def on_idle(self) -> None:
        """Hear that nothing follows the last step at once: the time from now on is not its."""

    def overhead(self) -> float:
        """Return the seconds that the step just planned costs beyond its forward pass.

        Only the simulator charges it (moving KV caches to the host and back, in policies that
        do); the real engine takes the time it takes.
        """
        return 0.0
