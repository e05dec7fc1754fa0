# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Asks a policy for the next step of vLLM's engine, and learns how long steps take.

Between two calls of `schedule` there may be several steps in flight. A step is planned for when
those are expected to end. It has taken from its launch, or the return of the one before, to its
own return.
"""

from collections import deque
from collections.abc import Callable, Mapping
import logging
import math
import time

from slice_ros.errors import ErrorCode
from slice_ros.request import Request, State
from slice_ros.scheduling.contract import check_step, FAULTS, plan_step, PolicyError
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step
from slice_ros.slo import SloClass
from slice_ros.vllm.mirror import Mirror, mirror_of, VllmRequest

log = logging.getLogger('slice_ros.vllm')

MOST_REST = 0.1   # seconds without a plan: whatever else may have changed is seen by then
TRIES = 2         # policies that may fail, before vLLM's own order applies for good

Shape = tuple[int, int, list[tuple[int, int]]]   # arguments of `LatencyModel.step`


class StepPlanner:
    """Plans with `policy` until it has failed `TRIES` times; then `plan` returns None.

    `clock` gives the seconds of all times here, `wall` those of vLLM's times of arrival.
    """

    def __init__(self, policy: Policy, latency: LatencyModel, most_tokens: int) -> None:
        self.policy, self.latency, self.most_tokens = policy, latency, most_tokens
        self.clock: Callable[[], float] = time.monotonic
        self.wall: Callable[[], float] = time.time
        self.mirrors: dict[str, Mirror] = {}   # by request id, in order of arrival
        self.failures = 0
        self.rests_until = -math.inf   # no step is due before, unless something changes
        self._in_flight: deque[tuple[float, Shape]] = deque()   # launched at, what is computed
        self._busy_until = -math.inf   # when the steps in flight are expected to end
        self._returned_at = -math.inf  # the last step

    @property
    def in_flight(self) -> int:
        """Steps that were launched and have not come back."""
        return len(self._in_flight)

    def add(self, theirs: VllmRequest, slo: SloClass) -> None:
        """Take in a request that has arrived."""
        self.mirrors[theirs.request_id] = mirror_of(theirs, slo, self.most_tokens, self.clock,
                                                    self.wall)
        self.rests_until = -math.inf

    def end(self, request_id: str, state: State, error: ErrorCode = ErrorCode.NONE) -> None:
        """Forget a request that has ended, if it is known; the policy learns from it."""
        mirror = self.mirrors.pop(request_id, None)
        if mirror is None:
            return
        self.rests_until = -math.inf
        mirror.ours.end(state, self.clock(), error)
        self._tell(lambda: self.policy.finished(mirror.ours))
        if not self.mirrors:
            self._tell(self.policy.on_idle)

    def plan(self, next_step: int) -> Step | None:
        """Return the step number `next_step`; None where vLLM's own order is to be used.

        The requests that it drops have ended.
        """
        shown = [m.ours for m in self.mirrors.values() if m.refresh(next_step)]
        if self.failures >= TRIES:
            return None
        now = self.clock()
        if not shown or now < self.rests_until:
            return Step()
        now = max(now, self._busy_until) if self._in_flight else now
        try:
            step = plan_step(self.policy, now, shown, self.latency)
            check_step(self.policy, step, shown)
            self._check_idle(step, shown)
        except FAULTS:
            self._fail()
            return None
        for request in step.drop:
            self.end(request.id, State.FAILED, ErrorCode.DEADLINE_MISSED)
        if step.idle and not (step.drop or step.evict):
            wake_at = math.inf if step.wake_at is None else step.wake_at
            self.rests_until = min(wake_at, self.clock() + MOST_REST)
        return step

    def _check_idle(self, step: Step, shown: list[Request]) -> None:
        """Raise `PolicyError` when nothing would ever be done; vLLM itself keeps its limits."""
        if (step.idle and step.wake_at is None and not (step.drop or step.evict)
                and not any(request.gated for request in shown)):
            raise PolicyError(f'policy {self.policy.name} does nothing, and {len(shown)} '
                              'requests wait for it')

    def launched(self, tokens: Mapping[str, int], next_step: int) -> None:
        """Note the `tokens` of each request in the step that was just scheduled, if any."""
        if not tokens:
            return
        batch, context, chunks, mirrors = 0, 0, [], []
        for request_id, count in tokens.items():
            mirror = self.mirrors.get(request_id)
            if mirror is None:
                continue  # one that is not planned for
            before = mirror.theirs.num_computed_tokens - count
            if mirror.ours.decoding:
                batch, context = batch + 1, context + before
            else:
                chunks.append((count, before))
            mirrors.append(mirror)
        now = self.clock()
        begin = max(now, self._busy_until) if self._in_flight else now
        self._busy_until = begin + self.latency.step(batch, context, chunks)
        # A step with other requests in it teaches nothing: its shape is not known.
        known = len(mirrors) == len(tokens)
        self._in_flight.append((now, (batch, context, chunks) if known else (0, 0, [])))
        for mirror in mirrors:
            mirror.launched(next_step, self._busy_until)
        self.rests_until = -math.inf

    def returned(self) -> None:
        """Learn from the oldest step in flight, which has just come back."""
        if not self._in_flight:
            return
        now = self.clock()
        launched_at, shape = self._in_flight.popleft()
        self.latency.observe(now - max(launched_at, self._returned_at), *shape)
        self._returned_at = now
        self.rests_until = -math.inf

    def received(self, request_id: str, next_step: int) -> None:
        """Note what the step that has come back has brought a request which goes on."""
        mirror = self.mirrors.get(request_id)
        if mirror is not None:
            mirror.returned(next_step, self._returned_at)

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            call()
        except FAULTS:
            self._fail()

    def _fail(self) -> None:
        """Log a fault of the policy, called where it is handled; replace it, if that may help."""
        self.failures += 1
        if self.failures > TRIES:
            return
        if self.failures == TRIES:
            log.exception('policy %s failed again: from now on requests are served in the order '
                          'of vLLM itself', self.policy.name)
            return
        log.exception('policy %s failed; this step is in the order of vLLM itself, and a new '
                      'policy plans the next one', self.policy.name)
        try:
            self.policy = self.policy.fresh()
        except FAULTS:
            self._fail()
