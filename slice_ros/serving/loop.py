# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The loop thread: admit -> plan -> run -> deliver, again and again.

It owns the engine, the policy and every live `Request`; other threads reach it through
`SharedState` alone. Each stage relies on the one before:

- admit: applies what other threads asked for. Afterwards all jobs are live and encoded, have the
  objectives in force, and have adopted the part of their prompt that the KV cache already has.
- plan: the policy's step keeps its contract. Afterwards dropped requests have ended, evicted
  ones have given up their cache, and those that begin have adopted what there was no room for.
- run: one forward pass. The engine advances every request that took part, and no other.
- deliver: queues the tokens, teaches the latency model, counts. A GPU has its next step launched
  before, so that it never waits for this. A request's tokens are queued before its end.
"""

from collections.abc import Callable
from functools import partial
import logging
import math
from typing import TYPE_CHECKING

from slice_ros.errors import ErrorCode
from slice_ros.request import State
from slice_ros.scheduling.contract import PolicyError
from slice_ros.scheduling.drafts import Drafts
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step
from slice_ros.serving.delivery import Delivery, DeliveryThread
from slice_ros.serving.job import (
    begin_cached, ComputedStep, Job, with_drafts, with_whole_images, work_of)
from slice_ros.serving.planning import Planner
from slice_ros.serving.rate_control import Gate, GateWatch, REMIND
from slice_ros.serving.shared_state import Changes, Ending, SharedState

if TYPE_CHECKING:
    from slice_ros.engine import Engine, Output

log = logging.getLogger('slice_ros.serving')

Jobs = dict[str, Job]   # by request id, in order of arrival
SHORTEST_WAIT = 1e-3    # seconds; a wake-up time in the past must not make the loop spin


class Loop:
    """Serves the jobs of `shared` until it is stopped.

    `make_policy` is called for the first policy and again when one has failed. With a `gate`,
    nothing runs while it is shut; `on_gate` is called, by the delivery thread, with True when it
    shuts while requests are live, again while it stays shut, and with False when it opens.
    """

    def __init__(self, engine: 'Engine', latency: LatencyModel,
                 make_policy: Callable[[], Policy], clock: Callable[[], float],
                 shared: SharedState, gate: Gate | None = None,
                 on_gate: Callable[[bool], None] | None = None) -> None:
        self.engine, self.latency, self.clock, self.shared = engine, latency, clock, shared
        self.planner, self.drafts = Planner(make_policy), Drafts()
        self.delivery = DeliveryThread(self._consumer_failed)
        self.on_gate = on_gate or (lambda shut: None)
        self.gate = GateWatch(gate, lambda shut: self.delivery.put((self.on_gate, shut)))
        if gate is not None:
            gate.wake = shared.notify
        # Computes tokens of a prefix that the KV cache shall keep; returns whether one is missing.
        self.pin: Callable[[int], bool] = lambda tokens: False
        self.prefixes = 0    # counts changes of what the KV cache can share
        self._computed: ComputedStep | None = None   # the last step, until it is delivered

    def run(self) -> None:
        """Serve until stopped: the body of the loop thread."""
        while True:
            try:
                if not self._turn():
                    return
            except PolicyError as error:
                log.exception('the live requests are ended')
                self._end_all(ErrorCode.ENGINE_FAILURE, f'{error}; the log has the details')
                self.planner.replace()
            except BaseException:  # native code may raise more than `Exception`; the loop goes on
                log.exception('the serving loop failed; its live requests are ended')
                self._end_all(ErrorCode.ENGINE_FAILURE, 'the scheduler failed: see the log')
                self.planner.replace()

    def _turn(self) -> bool:
        """Run one step, or wait for a reason to run one; return False once stopped."""
        yielded = self.delivery.yield_cores() if self.engine.info.fills_cores else 0.0
        changes = self.shared.take_changes()
        jobs, stop_at = self._admit(changes), changes.stop_at
        now = self.clock()
        if stop_at <= now or (stop_at < math.inf and not changes.jobs):
            self._end_all(ErrorCode.SHUTTING_DOWN, 'the server was stopped')
            return False
        if not self._gate_open(jobs, now):
            self._wait(changes, min(stop_at, now + REMIND))
        elif not jobs:
            self.planner.on_idle()
            if not self.pin(self.shared.config.prefill_chunk):
                self._wait(changes, stop_at)
        else:
            self._adopt(jobs)
            step = self._plan(jobs, now)
            if not step.idle:
                self._run(step, jobs, now, yielded)
            elif not step.drop:
                self._wait(changes, min(stop_at, self._wake_at(step, jobs, now)))
        return True

    # -- admit -------------------------------------------------------------------------------

    def _admit(self, changes: Changes) -> Jobs:
        jobs = changes.jobs
        if changes.objectives:
            for job in jobs.values():
                job.request.slo = changes.objectives(job.request.slo)
            self.planner.reconfigure()
        for request_id in changes.decided:
            self._end(jobs.pop(request_id), None)   # as was decided
        return {i: job for i, job in jobs.items() if not job.encoding}

    def _gate_open(self, jobs: Jobs, now: float) -> bool:
        """Return whether a step may run; gate the requests whose next token is not due."""
        was_shut = self.gate.shut
        if self.gate.passes(now, [job.request for job in jobs.values()]):
            return True
        if not was_shut:
            with self.shared.changed:
                self.shared.loop_stats.gate_shut += 1
            for job in jobs.values():
                job.request.pause()
            self.planner.on_idle()
        return False

    def _adopt(self, jobs: Jobs) -> None:
        """Let requests without a KV cache share what others have computed of their prompts."""
        for job in jobs.values():
            if not job.request.cached and job.prefixes_seen != self.prefixes:
                job.prefixes_seen = self.prefixes
                self.engine.adopt(job.sequence)

    # -- plan --------------------------------------------------------------------------------

    def _plan(self, jobs: Jobs, now: float) -> Step:
        requests = tuple(job.request for job in jobs.values())
        step = self.planner.plan(now, requests, self.latency)
        for request in step.drop:
            self._end(jobs.pop(request.id), Ending(State.FAILED, ErrorCode.DEADLINE_MISSED,
                                                   'its objectives were out of reach'))
        for request in step.evict:
            self.engine.evict(jobs[request.id].sequence)
            self.prefixes += 1
        step = begin_cached(step, lambda request: self.engine.adopt(jobs[request.id].sequence))
        return with_whole_images(step, jobs)

    def _wake_at(self, step: Step, jobs: Jobs, now: float) -> float:
        """Pause all requests; return until when to wait where nothing can run."""
        for job in jobs.values():
            job.request.pause()
        wake_at = math.inf if step.wake_at is None else max(step.wake_at, now + SHORTEST_WAIT)
        return min(wake_at, max(self.gate.shuts_at(), now) + SHORTEST_WAIT)

    def _wait(self, changes: Changes, until: float) -> None:
        self._deliver()
        self.shared.wait(changes.version, until, self.clock)

    # -- run ---------------------------------------------------------------------------------

    def _run(self, step: Step, jobs: Jobs, begin: float, yielded: float) -> None:
        work = work_of(step, jobs)
        drafts, shape, drafting = with_drafts(
            step, jobs, self.drafts, self.engine, self.latency, begin)
        planned = self.clock()
        try:
            launched = self.engine.launch([(job.sequence, n) for job, n in work.items()], drafts)
            self._deliver()  # the previous step's: a device that computes by itself is busy again
            at, sampled = self.engine.collect(launched, self.clock)
        except BaseException as error:  # a fault of this step ends its own requests only
            self._fail(work, error)
            return
        outputs = [(jobs[output.sequence.request.id], output) for output in sampled]
        self.prefixes += sum([output.number == 1 for _, output in outputs])
        # The time yielded counts: every step of requests with subscribers costs as much.
        self._computed = ComputedStep(at, planned - begin - drafting.took,
                                      at - planned + yielded, shape, outputs, drafting)
        if not self.engine.info.asynchronous:
            self._deliver()
        if len(work) < len(jobs):
            for job in jobs.values():
                if job not in work:
                    job.request.pause()
        for job, output in outputs:
            if output.error is not None:
                ending = Ending(State.FAILED, output.error.code, output.error.message)
                self._end(job, ending, output)
            elif output.finish_reason is not None:
                self._end(job, Ending(State.FINISHED), output)

    def _fail(self, work: dict[Job, int], error: BaseException) -> None:
        log.exception('a step of %d requests failed', len(work))
        with self.shared.changed:
            self.shared.loop_stats.engine_failures += 1
        memory = isinstance(error, MemoryError) or 'OutOfMemory' in type(error).__name__
        code = ErrorCode.OUT_OF_MEMORY if memory else ErrorCode.ENGINE_FAILURE
        for job in work:
            self._end(job, Ending(State.FAILED, code, f'the engine failed: {error!s:.200}'))

    # -- deliver -----------------------------------------------------------------------------

    def _deliver(self) -> None:
        """Queue the tokens of the last step, learn from it and count it, if that is still due."""
        if (step := self._computed) is None:
            return
        self._computed = None
        running = [job.delivery(output, output.number)
                   for job, output in step.outputs if output.finish_reason is None]
        if running:
            self.delivery.put(*running)
        try:
            predicted = self.latency.observe(step.took, *step.shape)
        except BaseException:  # no request depends on it
            log.exception('the latency model could not learn from a step')
            predicted = math.nan
        # What is done while the device computes delays no step.
        deliver = 0.0 if self.engine.info.asynchronous else self.clock() - step.at
        with self.shared.changed:
            self.shared.loop_stats.step(step.record(deliver, predicted))

    def _end(self, job: Job, ending: Ending | None, output: 'Output | None' = None) -> None:
        """End a request, release all it uses, and deliver its end.

        `SharedState.end` says how it ends where another thread has decided that, which `ending`
        None relies on. `output` is that of its last token, if that is what ends it.
        """
        self._deliver()  # its tokens come before its end
        request = job.request
        state, error, message = self.shared.end(job, ending, self.clock())
        for release in (partial(self.engine.close, job.sequence), partial(self._end_turn, job)):
            try:
                release()
            except BaseException:  # no fault of these may withhold a caller's answer
                log.exception('not all of request %s could be released', request.id)
        self.prefixes += 1
        self.gate.forget(request)
        self.planner.finished(request)
        self.drafts.finished(request)
        reason = 'error' if output is None else output.finish_reason
        if error:
            reason = 'cancelled' if state is State.CANCELLED else 'error'
        self.delivery.put(job.delivery(output, request.generated, reason, error, message))

    def _end_turn(self, job: Job) -> None:
        """Extend or free the session before the caller knows, who may continue it at once."""
        if job.turn is not None:
            job.turn.end(job.sequence if job.request.state is State.FINISHED else None)

    def _end_all(self, error: ErrorCode, message: str) -> None:
        for job in self.shared.live():
            self._end(job, Ending(State.FAILED, error, message))

    def _consumer_failed(self, delivery: Delivery) -> None:
        self.shared.cancel(delivery.request.id, 'its consumer failed')
