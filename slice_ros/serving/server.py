# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The server as the rest of the node sees it: submit, cancel, predict, look."""

from collections.abc import Callable, Iterable
import math
import threading
import time
from typing import TYPE_CHECKING
import uuid

from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request, State
from slice_ros.scheduling.admission import admit, predict, Prediction
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy
from slice_ros.scheduling.registry import make_policy
from slice_ros.serving.delivery import Delivery
from slice_ros.serving.job import Job
from slice_ros.serving.loop import Loop
from slice_ros.serving.rate_control import Gate, RateControl
from slice_ros.serving.server_config import new_objectives, ServerConfig
from slice_ros.serving.sessions import Sessions, Turn
from slice_ros.serving.stats import class_snapshot, loop_figures, Snapshot
from slice_ros.slo import SloClass

if TYPE_CHECKING:
    from slice_ros.engine import Engine, ResponseFormat, Sampling


class Server:
    """Serves requests on one engine under one policy, from `start` to `stop`.

    Any thread may call any method. What the caller of a request is told goes through its
    `on_output`, called in order by one thread for all requests: it should not wait for anything.
    It returns True when somebody outside this process will hear of it, for whom the loop then
    leaves the cores a moment.
    """

    def __init__(self, engine: 'Engine', latency: LatencyModel,
                 config: ServerConfig = ServerConfig(), *,
                 clock: Callable[[], float] = time.monotonic, gate: Gate | None = None,
                 on_gate: Callable[[bool], None] | None = None) -> None:
        """Make a server. Raises ``ValueError`` when the policy, or an option of it, is unknown.

        With a `gate`, somebody has to open it while requests live. `on_gate` is called by the
        thread of `on_output`, with True when the gate falls shut before live requests and about
        once a second while it stays so, with False when it is open again.
        """
        self.engine, self.latency, self.config, self.clock = engine, latency, config, clock
        self._gate = gate
        self.sessions = Sessions(engine, config.sessions, clock)
        self._loop = Loop(engine, latency, self._make_policy, clock, gate, on_gate)
        self._thread: threading.Thread | None = None
        self._started = clock()

    def start(self) -> None:
        """Begin to serve. Raises ``RuntimeError`` when it has begun already."""
        if self._thread is not None:
            raise RuntimeError('the server has been started already')
        self._loop.stop_at = math.inf
        self._loop.courier.start()
        self._thread = threading.Thread(target=self._loop.run, name='slice loop', daemon=True)
        self._thread.start()

    def stop(self, drain: float = 0.0, timeout: float = 10.0) -> bool:
        """Take nothing in any more, give live requests `drain` seconds, end the rest.

        Returns whether the loop ended within `timeout` seconds after that.
        """
        with self._loop.changed:
            self._loop.stop_at = min(self._loop.stop_at, self.clock() + drain)
            self._loop.notify()
        thread = self._thread  # two callers may wait for it at once
        if thread is not None:
            thread.join(drain + timeout)
            if thread.is_alive():
                return False
            self._thread = None
        return self._loop.courier.stop(timeout)

    @property
    def alive(self) -> bool:
        """Whether the loop thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether any request lives."""
        return bool(self._loop.jobs)

    def submit(self, slo: SloClass, tokens: list[int], max_tokens: int, sampling: 'Sampling',
               on_output: Callable[[Delivery], bool | None], *, stop: Iterable[str] = (),
               response_format: 'ResponseFormat | None' = None,
               request_id: str = '', arrival: float | None = None,
               turn: Turn | None = None) -> Request:
        """Take a request in and return it; its tokens come through `on_output`.

        `arrival` is when it was received, on the server's clock (now by default); `turn` is ended
        with the request. Raises `RequestError` when it cannot be served; `on_output` is never
        called then, and the turn is the caller's to end.
        """
        arrival = self.clock() if arrival is None else arrival
        request = Request(request_id or str(uuid.uuid4()), slo, arrival, len(tokens), max_tokens,
                          session_id=turn.session_id if turn else '')
        self.check(request.prompt_tokens, max_tokens)
        sequence = self.engine.open(tokens, max_tokens, sampling, stop, response_format)
        loop, config = self._loop, self.config
        refusal = None
        if config.admission != 'accept':
            try:
                request.slo = admit(self._predict(request), slo, config.admission,
                                    {c.name: c for c in config.classes})
            except RequestError as error:
                refusal = error
        with loop.changed:
            error = self._refusal(request) or refusal
            if error is None:
                loop.jobs[request.id] = Job(request, sequence, on_output, turn)
                loop.class_stats(request.slo.name).received += 1
                loop.notify()
                return request
            if error.code is not ErrorCode.INVALID_REQUEST:
                request.end(State.REJECTED, self.clock(), error.code)
                loop.class_stats(slo.name).received += 1
                loop.class_stats(slo.name).end(request)
        self.engine.close(sequence)
        raise error

    def cancel(self, request_id: str, why: str = 'cancelled by its caller') -> bool:
        """End a request before the next step; return whether it was live until now."""
        with self._loop.changed:
            if request_id not in self._loop.jobs or request_id in self._loop.cancelled:
                return False
            self._loop.cancelled[request_id] = why
            self._loop.notify()
        return True

    def cancel_class(self, name: str, why: str = 'its class was cancelled') -> list[str]:
        """End every live request of a class before the next step; return their ids."""
        with self._loop.changed:
            ids = [i for i, job in self._loop.jobs.items() if job.request.slo.name == name]
        return [i for i in ids if self.cancel(i, why)]

    def reconfigure(self, config: ServerConfig) -> None:
        """Serve by another configuration from the next plan on, live requests included.

        A live request takes the new objectives of its class where it has the class's own. The
        policy is made anew and keeps what it has learnt. Raises ``ValueError`` as the constructor
        does; nothing changes then.
        """
        self._make_policy(config)
        with self._loop.changed:
            before, self.config = self.config, config
            self.sessions.limits = config.sessions
            for name in self._loop.classes.keys() - self._shown(before):
                del self._loop.classes[name]   # had been taken out: begins anew if it comes back
            earlier = self._loop.reconfigured or (lambda slo: slo)
            change = new_objectives(before.classes, config.classes)
            self._loop.reconfigured = lambda slo: change(earlier(slo))
            self._loop.notify()

    def check(self, prompt_tokens: int, max_tokens: int) -> None:
        """Raise `RequestError` when no request of this size is ever served."""
        config, info = self.config, self.engine.info
        if not 1 <= max_tokens <= config.max_tokens:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f'max_tokens is {max_tokens}: choose between 1 and {config.max_tokens}')
        if prompt_tokens < 1:
            raise RequestError(ErrorCode.INVALID_REQUEST, 'the prompt is empty: say something')
        context = min(info.max_context, info.kv_tokens)
        limit = min(config.max_prompt_tokens or context, context - 1)
        if prompt_tokens > limit:
            raise RequestError(
                ErrorCode.PROMPT_TOO_LONG,
                f'the prompt has {prompt_tokens} tokens: shorten it to {limit}')
        if prompt_tokens + max_tokens > context:
            raise RequestError(
                ErrorCode.PROMPT_TOO_LONG,
                f'prompt ({prompt_tokens} tokens) and max_tokens ({max_tokens}) exceed the '
                f'context of {context} tokens: shorten either')

    def predict(self, slo: SloClass, prompt_tokens: int, max_tokens: int) -> Prediction:
        """Foretell how a request would fare if it came now. Raises as `check` does."""
        self.check(prompt_tokens, max_tokens)
        return self._predict(Request('', slo, self.clock(), prompt_tokens, max_tokens))

    def _predict(self, request: Request) -> Prediction:
        loop = self._loop
        with loop.changed:
            live = [job.request for job in loop.jobs.values()]
        return predict(loop.planner.policy, self.clock(), request, live, self.latency)

    def snapshot(self) -> Snapshot:
        """Return what the server is doing, and how the classes have fared of late."""
        now, loop = self.clock(), self._loop
        with loop.changed:  # copied here, summed up outside: the loop waits for this lock
            config = self.config
            live = tuple(job.request for job in loop.jobs.values())
            stats = {name: loop.class_stats(name).copy() for name in self._shown(config)}
            loop_stats = loop.stats.copy()
        slos = {slo.name: slo for slo in config.classes}
        classes = {
            name: class_snapshot(slos.get(name) or SloClass(name), stats[name],
                                 [r for r in live if r.slo.name == name], now, config.window)
            for name in stats}
        figures = loop_figures(loop_stats, now, config.window, self._started)
        gate = self._gate
        age = gate.age(now) if gate is not None and live else math.inf
        return Snapshot(
            at=now, policy=config.policy, window=config.window, requests=live, classes=classes,
            capacity_ratio=getattr(loop.planner.policy, 'capacity_ratio', math.nan),
            rate_control=(gate.config if gate is not None else RateControl()).mode,
            gate_open=not (live and loop.keeper.shut),
            gate_age=age if age < math.inf else math.nan,
            gated=sum(r.gated for r in live),
            queued=sum(r.cached == 0 for r in live), slots_used=sum(r.cached > 0 for r in live),
            kv_tokens_used=sum(r.cached for r in live), sessions=len(self.sessions),
            policy_failures=loop.planner.failures, draining=loop.stop_at < math.inf, **figures)

    def _shown(self, config: ServerConfig) -> dict[str, None]:
        """Return the names of the classes there are, and of those gone with live requests."""
        live = [job.request.slo.name for job in self._loop.jobs.values()]
        return dict.fromkeys([*(slo.name for slo in config.classes), *live])

    def _refusal(self, request: Request) -> RequestError | None:
        loop = self._loop
        if request.id in loop.jobs:
            return RequestError(
                ErrorCode.INVALID_REQUEST,
                f'a request with the id {request.id!r:.80} is live: choose another id')
        if loop.stop_at < math.inf or not self.alive:
            return RequestError(ErrorCode.SHUTTING_DOWN, 'the server takes no requests any more')
        queued = sum(job.request.cached == 0 for job in loop.jobs.values())
        if queued >= self.config.max_queued:
            return RequestError(
                ErrorCode.QUEUE_FULL,
                f'{queued} requests wait already: try again later, or raise limits.max_queued')
        return None

    def _make_policy(self, config: ServerConfig | None = None) -> Policy:
        info, config = self.engine.info, config or self.config
        capacity = Capacity(max_batch=config.max_batch, slots=info.slots,
                            kv_tokens=info.kv_tokens, prefill_chunk=config.prefill_chunk)
        return make_policy(config.policy, capacity, **config.policy_options)
