# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The loop thread: plan, run, deliver; again.

It owns the engine, the policy and every live `Request`; other threads reach in through what
`changed` guards and nothing else.
"""

from collections.abc import Callable
import logging
import math
import threading
from typing import TYPE_CHECKING

from slice_ros.errors import ErrorCode
from slice_ros.request import State
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step
from slice_ros.serving.delivery import Courier, Delivery
from slice_ros.serving.job import Done, Job
from slice_ros.serving.planner import Planner
from slice_ros.serving.rate_control import Gate, Gatekeeper, REMIND
from slice_ros.serving.stats import ClassStats, LoopStats, StepRecord
from slice_ros.slo import SloClass

if TYPE_CHECKING:
    from slice_ros.engine import Engine

log = logging.getLogger('slice_ros.serving')


class Loop:
    """Serves what is put into `jobs` until it is stopped.

    `make_policy` is called for the first policy and again when one has failed. With a `gate`,
    nothing runs while that is shut; `on_gate` is called, by the delivery thread, with True when it
    falls shut before live requests, again while it stays so, and with False when it is open again.
    """

    def __init__(self, engine: 'Engine', latency: LatencyModel,
                 make_policy: Callable[[], Policy], clock: Callable[[], float],
                 gate: Gate | None = None, on_gate: Callable[[bool], None] | None = None) -> None:
        self.engine, self.latency, self.clock = engine, latency, clock
        self.planner = Planner(make_policy)
        self.changed = threading.Condition()     # guards what follows; notified when it changes
        self.version = 0                         # counts the changes the loop has to look at
        self.jobs: dict[str, Job] = {}           # live, in order of arrival
        self.cancelled: dict[str, str] = {}      # request id -> why; ended before the next step
        self.reconfigured: Callable[[SloClass], SloClass] | None = None  # set to be obeyed once
        self.stop_at = math.inf                  # when draining: what still lives is ended then
        self.classes: dict[str, ClassStats] = {}
        self.stats = LoopStats()
        self.prefixes = 0                        # counts what gave the cache something to reuse
        self.done: Done | None = None            # the last step, until `_follow_up`
        self.courier = Courier(self._consumer_failed)
        self.gate = gate
        self.on_gate = on_gate or (lambda shut: None)
        self.keeper = Gatekeeper(gate, lambda shut: self.courier.put((self.on_gate, shut)))
        if gate is not None:
            gate.wake = self._gate_moved

    def notify(self) -> None:
        """Make the loop look again; `changed` must be held."""
        self.version += 1
        self.changed.notify_all()

    def class_stats(self, name: str) -> ClassStats:
        """Return the record of a class; `changed` must be held."""
        return self.classes.setdefault(name, ClassStats())

    def run(self) -> None:
        """Serve until stopped: the body of the loop thread."""
        while True:
            try:
                if not self._turn():
                    return
            except Exception:  # the loop outlives any fault: what is live fails, what comes runs
                log.exception('the serving loop failed; its live requests are ended')
                self._end_all(ErrorCode.ENGINE_FAILURE, 'the scheduler failed: see the log')
                self.planner.renew()

    def _turn(self) -> bool:
        """Run one step, or wait for something to do; return whether to go on."""
        rested = self.courier.rest() if self.engine.info.fills_cores else 0.0
        with self.changed:
            version = self.version
            cancelled, self.cancelled = self.cancelled, {}
            jobs = dict(self.jobs)
            stop_at = self.stop_at
            reconfigured, self.reconfigured = self.reconfigured, None
        if reconfigured:
            for job in jobs.values():
                job.request.slo = reconfigured(job.request.slo)
            self.planner.renew(inherit=True)
        for request_id, why in cancelled.items():
            if request_id in jobs:
                self._end(jobs.pop(request_id), State.CANCELLED, ErrorCode.CANCELLED, why)
        begin = self.clock()
        if stop_at <= begin or (stop_at < math.inf and not jobs):
            self._end_all(ErrorCode.SHUTTING_DOWN, 'the server was stopped')
            return False
        was_shut = self.keeper.shut
        if not self.keeper.passes(begin, [job.request for job in jobs.values()]):
            if not was_shut:
                self._fall_shut(jobs)
            self._wait(version, min(stop_at, begin + REMIND))
            return True
        if not jobs:
            self.planner.on_idle()
            self._wait(version, stop_at)
            return True
        self._adopt(jobs)
        requests = tuple(job.request for job in jobs.values())
        step = self.planner.plan(begin, requests, self.latency)
        for request in step.drop:
            self._end(jobs.pop(request.id), State.FAILED, ErrorCode.DEADLINE_MISSED,
                      'its objectives were out of reach')
        for request in step.evict:
            self.engine.evict(jobs[request.id].sequence)
            request.evict()
            self.prefixes += 1
        if not step.idle:
            self._step(step, jobs, begin, rested)
        elif not step.drop:
            for job in jobs.values():
                job.request.pause()
            # A wake-up time in the past would make this loop spin.
            wake_at = math.inf if step.wake_at is None else max(step.wake_at, begin + 1e-3)
            if self.gate is not None:
                wake_at = min(wake_at, max(self.gate.falls_shut(), begin) + 1e-3)
            self._wait(version, min(stop_at, wake_at))
        return True

    def _fall_shut(self, jobs: dict[str, Job]) -> None:
        with self.changed:
            self.stats.gate_shut += 1
        for job in jobs.values():
            job.request.pause()
        self.planner.on_idle()

    def _gate_moved(self) -> None:
        with self.changed:
            self.notify()

    def _adopt(self, jobs: dict[str, Job]) -> None:
        """Let requests that hold no cache take over what others computed of their prompts."""
        for job in jobs.values():
            if job.request.cached or job.looked_at == self.prefixes:
                continue
            job.looked_at = self.prefixes
            tokens = self.engine.adopt(job.sequence)
            if tokens:
                job.request.adopt(tokens)

    def _wait(self, version: int, until: float) -> None:
        self._follow_up()
        with self.changed:
            while self.version == version:
                left = until - self.clock()
                if left <= 0:
                    return
                self.changed.wait(None if left == math.inf else left)

    def _step(self, step: Step, jobs: dict[str, Job], begin: float, rested: float) -> None:
        fed = {jobs[r.id]: 1 for r in step.decode}
        fed.update((jobs[chunk.request.id], chunk.tokens) for chunk in step.prefill)
        shape = (len(step.decode), sum([r.cached for r in step.decode]),
                 [(chunk.tokens, chunk.request.cached) for chunk in step.prefill])
        planned = self.clock()
        try:
            launched = self.engine.launch([(job.sequence, n) for job, n in fed.items()])
            self._follow_up()  # on the last step: a device that computes by itself has work again
            outputs = iter(self.engine.collect(launched))
            now = self.clock()
            told = []
            for job, n in fed.items():
                if job.request.advance(n, now):
                    told.append((job, next(outputs)))
                    self.prefixes += job.request.generated == 1
        except Exception as error:  # a fault of this step is the end of its requests alone
            log.exception('a step of %d requests failed', len(fed))
            with self.changed:
                self.stats.engine_failures += 1
            code = ErrorCode.OUT_OF_MEMORY if _out_of_memory(error) else ErrorCode.ENGINE_FAILURE
            for job in fed:
                self._end(job, State.FAILED, code, f'the engine failed: {error!s:.200}')
            return
        # The rest counts: steps of requests that are listened to cost as much.
        self.done = Done(now, planned - begin, now - planned + rested, shape, told)
        if not self.engine.info.asynchronous:
            self._follow_up()
        if len(fed) < len(jobs):
            for job in jobs.values():
                if job not in fed:
                    job.request.pause()
        for job, output in told:
            if output.error is not None:
                self._end(job, State.FAILED, output.error.code, output.error.message, output.text)
            elif output.finish_reason is not None:
                self._end(job, State.FINISHED, text=output.text, reason=output.finish_reason)

    def _follow_up(self) -> None:
        """Do what the next plan does not need of the last step: tell, learn and count."""
        done, self.done = self.done, None
        if done is None:
            return
        going = [job.news(output.text) for job, output in done.told
                 if output.finish_reason is None]
        if going:
            self.courier.put(*going)
        try:
            predicted = self.latency.observe(*done.shape, done.took)
        except Exception:  # nobody's tokens or end hang on it
            log.exception('nothing was learnt from a step')
            predicted = math.nan
        # What is done while the device computes holds no step up.
        deliver = 0.0 if self.engine.info.asynchronous else self.clock() - done.at
        with self.changed:
            self.stats.step(StepRecord(done.at, done.plan, done.took, deliver, predicted,
                                       len(done.told)))

    def _end(self, job: Job, state: State, error: ErrorCode = ErrorCode.NONE, message: str = '',
             text: str = '', reason: str = 'error') -> None:
        self._follow_up()  # its tokens come before its end
        request = job.request
        if not request.ended:
            request.end(state, self.clock(), error)
        try:
            self.engine.close(job.sequence)
        except Exception:  # nothing of the engine may keep a caller from its answer
            log.exception('the engine could not release request %s', request.id)
        self.prefixes += 1
        if self.gate is not None:
            self.gate.forget(request)
        if job.turn is not None:  # before its caller is told, who may send the next at once
            job.turn.end(job.sequence if state is State.FINISHED else None)
        with self.changed:
            self.jobs.pop(request.id, None)
            self.cancelled.pop(request.id, None)
            self.class_stats(request.slo.name).end(request)
        self.planner.finished(request)
        if state is State.CANCELLED:
            reason = 'cancelled'
        self.courier.put(job.news(text, reason, error, message))

    def _end_all(self, error: ErrorCode, message: str) -> None:
        with self.changed:
            jobs = list(self.jobs.values())
            self.cancelled.clear()
        for job in jobs:
            self._end(job, State.FAILED, error, message)

    def _consumer_failed(self, delivery: Delivery) -> None:
        with self.changed:
            if delivery.request.id in self.jobs:
                self.cancelled[delivery.request.id] = 'its consumer failed'
                self.notify()


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or 'OutOfMemory' in type(error).__name__
