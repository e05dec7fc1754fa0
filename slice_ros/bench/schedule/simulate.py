# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Discrete-event simulation: the real policies, a latency model as engine, a number as clock.

The true output lengths and the true latency model are not given to a policy: it sees requests and
its own latency model, which may be wrong. A policy that breaks its contract ends the simulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
import math
from time import perf_counter_ns
from typing import NoReturn

from slice_ros.bench.schedule.noise import Disturbance, Noise
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.errors import ErrorCode
from slice_ros.request import MAX_FORCED, Request, State
from slice_ros.scheduling.contract import check_capacity, check_step, plan_step, PolicyError
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step
from slice_ros.slo import SloReport


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step that was run, for traces and Gantt strips."""

    start: float
    seconds: float
    decode: tuple[str, ...]    # request ids
    prefill: tuple[str, ...]


@dataclass(slots=True)
class Result:
    """The outcome of a workload; `requests` are in order of arrival, times in seconds."""

    requests: list[Request]
    steps: int = 0
    end: float = 0.0
    busy: float = 0.0                                    # seconds in which a step ran
    plan_us: list[float] = field(default_factory=list)   # wall time of each plan
    log: list[StepRecord] = field(default_factory=list)  # only if it was asked for

    @property
    def reports(self) -> list[SloReport]:
        return [request.report() for request in self.requests]


def scaled_latency(latency: LatencyModel, factor: float) -> LatencyModel:
    """Return a copy of a latency model with every time multiplied by `factor`."""
    return replace(
        latency, decode_ms=tuple((batch, ms * factor) for batch, ms in latency.decode_ms),
        decode_context_ms=latency.decode_context_ms * factor,
        prefill_base_ms=latency.prefill_base_ms * factor,
        prefill_token_ms=latency.prefill_token_ms * factor,
        prefill_context_ms=latency.prefill_context_ms * factor,
        shared_ms=latency.shared_ms * factor, further_ms=latency.further_ms * factor)


def simulate(policy: Policy, latency: LatencyModel, workload: Sequence[Arrival], *,
             believed: LatencyModel | None = None, noise: Noise = Noise(), seed: int = 0,
             log: bool = False, reveal: bool = False) -> Result:
    """Serve `workload`, which is in order of time, to its end under `policy`.

    `latency` gives the true time of steps, disturbed by `noise` and its `seed`; `believed` is the
    model that the policy gets (default: a copy of the true one). `log` records every step, and
    `reveal` makes the length of each answer known to the policy (`Policy.reveal`). A request that
    does not fit an empty KV cache is rejected with PROMPT_TOO_LONG, as by the
    server. Raises `PolicyError` when the policy raises or breaks its contract.
    """
    return _Simulator(policy, latency, workload, believed, noise, seed, log, reveal).run()


class _Simulator:

    def __init__(self, policy, latency, workload, believed, noise, seed, log, reveal) -> None:
        self.policy, self.truth, self.log, self.reveal = policy, latency, log, reveal
        self.believed = scaled_latency(latency, 1.0) if believed is None else believed
        self.disturb = Disturbance(noise, seed)
        self.arrivals = workload
        self.next = 0
        self.now = workload[0].time if workload else 0.0
        self.live: list[Request] = []
        self.view: tuple[Request, ...] | None = ()  # `live` for policies; None = it has changed
        self.lengths: dict[Request, int] = {}       # true length of each live request,
        self.forced: dict[Request, float] = {}      # and the share of it that is forced
        self.running: tuple[Request, ...] = ()      # decoded in the last step
        self.result = Result([])

    def run(self) -> Result:
        while self.live or self.next < len(self.arrivals):
            if not self.live:
                self.now = max(self.now, self.arrivals[self.next].time)
            self._arrive()
            if not self.live:
                continue
            if self.view is None:
                self.view = tuple(self.live)
            step = self._plan(self.view)
            for request in step.drop:
                self._end(request, State.FAILED, ErrorCode.DEADLINE_MISSED)
            for request in step.evict:
                request.evict()
            if step.idle:
                self._idle(step)
            else:
                self._run(step)
        self.result.end = self.now
        return self.result

    def _plan(self, view: tuple[Request, ...]) -> Step:
        before = perf_counter_ns()
        try:
            step = plan_step(self.policy, self.now, view, self.believed)
            self.result.plan_us.append((perf_counter_ns() - before) / 1e3)
            check_step(self.policy, step, view)
            check_capacity(self.policy, step, view)
        except PolicyError as error:
            raise PolicyError(f'{error} (at {self.now:.3f} s)') from error
        return step

    def _arrive(self) -> None:
        capacity = self.policy.capacity
        while self.next < len(self.arrivals) and self.arrivals[self.next].time <= self.now:
            a = self.arrivals[self.next]
            request = Request(f'{a.slo.name}-{self.next}', a.slo, a.time, a.prompt_tokens,
                              a.max_tokens)
            self.next += 1
            self.result.requests.append(request)
            if a.prompt_tokens + a.max_tokens > capacity.kv_tokens:
                request.end(State.REJECTED, self.now, ErrorCode.PROMPT_TOO_LONG)
                continue
            self.live.append(request)
            self.lengths[request] = min(a.output_tokens, a.max_tokens)
            self.forced[request] = a.forced
            if self.reveal:
                self.policy.reveal(request, self.lengths[request])
            self.view = None

    def _idle(self, step: Step) -> None:
        if step.drop:
            return  # that was progress: plan again
        upcoming = self.arrivals[self.next].time if self.next < len(self.arrivals) else math.inf
        wake = min(upcoming, math.inf if step.wake_at is None else step.wake_at)
        if not self.now < wake < math.inf:
            self._breach(f'made no progress: an idle step with wake_at={step.wake_at} while '
                         f'{len(self.live)} requests wait')
        for request in self.running:
            request.pause()
        self.running = ()
        self.now = wake

    def _run(self, step: Step) -> None:
        shape = step.shape
        measured = self.disturb(self.now, self.truth.step(*shape))
        seconds = measured + self.policy.overhead()
        end = self.now + seconds
        if self.log:
            self.result.log.append(StepRecord(
                self.now, seconds, tuple(r.id for r in step.decode),
                tuple(c.request.id for c in step.prefill)))
        self.believed.observe(measured, *shape)
        self.now = end
        self.result.steps += 1
        self.result.busy += seconds
        for request in self.running:
            request.pause()
        for request in step.decode:
            self._advance(request, request.pending, end)
        for chunk in step.prefill:
            self._advance(chunk.request, chunk.tokens, end)
        self.running = step.decode + tuple(c.request for c in step.prefill)

    def _advance(self, request: Request, tokens: int, end: float) -> None:
        if not request.advance(tokens, end):
            return
        length, forced = self.lengths[request], self.forced[request]
        # Forced tokens come as early as their share allows, and at most so many at once.
        while (request.generated < length and request.forced < MAX_FORCED
               and request.jumped + 1 <= forced * (request.generated + 1)):
            request.jump()
        if request.generated >= length:
            self._end(request, State.FINISHED)

    def _breach(self, what: str) -> NoReturn:
        raise PolicyError(f'policy {self.policy.name} {what} (at {self.now:.3f} s)')

    def _end(self, request: Request, state: State, error: ErrorCode = ErrorCode.NONE) -> None:
        request.end(state, self.now, error)
        del self.lengths[request], self.forced[request]
        self.live.remove(request)
        self.view = None
        self.policy.finished(request)
