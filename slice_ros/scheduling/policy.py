# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The contract of every scheduling policy.

A policy is asked for one step at a time. Given the time, the live requests and a latency model,
`Policy.plan` returns which requests decode, which prefill how many tokens, and which give up
memory. The simulator and the server call the same objects in the same way. A policy reads
requests and never changes them. The length of an answer is no field of a request, so that no
policy can know it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.prediction import Prediction


@dataclass(frozen=True, slots=True)
class Capacity:
    """Limits of the engine."""

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

    A request that decodes feeds all its pending tokens: the last one, and those forced behind it.
    ``evict`` gives up KV caches (recomputed when those requests next run) before the pass;
    ``drop`` ends requests with DEADLINE_MISSED. A step with neither decode nor prefill is idle:
    plan again at ``wake_at`` (seconds), or, if that is ``None``, when a request arrives, ends or
    is no longer gated. A step names each request at most once.
    """

    decode: tuple[Request, ...] = ()
    prefill: tuple[PrefillChunk, ...] = ()
    wake_at: float | None = None
    evict: tuple[Request, ...] = ()
    drop: tuple[Request, ...] = ()

    @property
    def idle(self) -> bool:
        return not self.decode and not self.prefill

    @property
    def shape(self) -> tuple[int, int, list[tuple[int, int]], int]:
        """Batch, its cached tokens, chunks, further tokens: arguments of `LatencyModel.step`."""
        return (len(self.decode), sum([r.cached for r in self.decode]),
                [(chunk.tokens, chunk.request.cached) for chunk in self.prefill],
                sum([r.forced for r in self.decode]))


class Policy(ABC):
    """A scheduling policy. One instance serves one engine.

    One thread calls it; `predict` alone may be called by any thread. `name` is the name that
    `make_policy` was given, otherwise the name of the class.
    """

    @dataclass(frozen=True, slots=True)
    class Options:
        """The options of the policy: a subclass declares each with its type and a default.

        Raises ``ValueError`` naming the option when a value is out of range.
        """

    def __init__(self, capacity: Capacity, options: 'Policy.Options | None' = None) -> None:
        self.capacity = capacity
        self.options = self.Options() if options is None else options
        self.name = type(self).__name__

    @property
    def capacity_ratio(self) -> float:
        """Share of a cycle that the selection may fill, 0 to 1; NaN if the policy has none."""
        return math.nan

    @abstractmethod
    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        """Return the next step for the live `requests`: none ended, in order of arrival.

        `now` is in seconds on the clock of the requests. Only a request that is ``ready`` may be
        decoded. Rate control gates the others: their room and time go to other requests, and the
        step is idle if no other request can use them.
        """

    def predict(self, now: float, request: Request, live: Sequence[Request],
                latency: LatencyModel) -> Prediction | None:
        """Predict the times of `request` if it arrived `now` beside the `live` ones.

        Any thread may call this, also during `plan`; it changes nothing. None means that the
        policy cannot be asked while it plans.
        """
        return None

    def fresh(self) -> 'Policy':
        """Return a new policy of the same class, name, capacity and options."""
        policy = type(self)(self.capacity, self.options)
        policy.name = self.name
        return policy

    def reveal(self, request: Request, tokens: int) -> None:
        """Take note that the answer to `request` will have exactly `tokens` tokens.

        Called before the first plan with this request, and only by a simulation that is meant to
        be clairvoyant; elsewhere no policy knows a length.
        """

    def finished(self, request: Request) -> None:
        """Learn from a request that has just ended, in any final state."""

    def inherit(self, earlier: 'Policy') -> None:
        """Take over what `earlier` has learnt; this policy replaces it.

        Called before the first plan, when options, capacity or the objectives of live requests
        have changed.
        """

    def on_idle(self) -> None:
        """Note that no step follows the last one at once: the time from now on is not its."""

    def overhead(self) -> float:
        """Return the seconds that the step just planned costs beyond its forward pass.

        Only the simulator charges it (moving KV caches to the host and back, for example); on
        the engine this time passes by itself.
        """
        return 0.0
