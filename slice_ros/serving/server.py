# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The server, as the rest of the node uses it: submit, cancel, predict, reconfigure, snapshot."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
import logging
import threading
import time
from typing import TYPE_CHECKING

from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request
from slice_ros.scheduling import admission
from slice_ros.scheduling.contract import PolicyError
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving.delivery import Delivery
from slice_ros.serving.intake import check_size, Intake
from slice_ros.serving.live_config import configured_policy, reconfigure, settled
from slice_ros.serving.loop import Loop
from slice_ros.serving.rate_control import Gate
from slice_ros.serving.server_config import ServerConfig
from slice_ros.serving.sessions import Sessions, Turn
from slice_ros.serving.shared_state import SharedState
from slice_ros.serving.snapshot import Snapshot, take_snapshot
from slice_ros.serving.stats import StepRecord
from slice_ros.slo import SloClass

if TYPE_CHECKING:
    from slice_ros.engine import ChatOptions, Engine, ResponseFormat, Sampling, TokenSequence
    from slice_ros.engine.pinned_prefixes import PinnedPrefixes
    from slice_ros.engine.pooling import Pooling
    from slice_ros.engine.vision.image_tokens import SeenImage

log = logging.getLogger('slice_ros.serving')


class Server:
    """Serves requests on one engine under one policy, from `start` to `stop`.

    Any thread may call any method. The caller of a request receives its tokens through its
    `on_output`, called in order by one thread for all requests: it must not wait. It returns True
    when it sent something that another process receives; the loop then yields the cores for a
    moment.
    """

    def __init__(self, engine: 'Engine', latency: LatencyModel,
                 config: ServerConfig = ServerConfig(), *,
                 clock: Callable[[], float] = time.monotonic, gate: Gate | None = None,
                 on_gate: Callable[[bool], None] | None = None,
                 prepare_thread: Callable[[], None] = lambda: None) -> None:
        """Make a server. Raises ``ValueError`` when the policy, or an option of it, is unknown.

        With a `gate`, somebody has to open it while requests are live. `on_gate` is called by the
        thread of `on_output`, with True when the gate shuts while requests are live and about once
        a second while it stays shut, with False when it opens. `prepare_thread` is what the thread
        of the loop does first.
        """
        self.engine, self.latency, self.clock = engine, latency, clock
        config = settled(config, engine.info, latency)
        self._shared = SharedState(config)
        self.sessions = Sessions(engine, config.sessions, clock, self._shared.abandon)
        self._loop = Loop(engine, latency,
                          lambda: configured_policy(self.config, engine.info), clock,
                          self._shared, gate, on_gate)
        self._intake = Intake(engine, self._shared, self._predict, clock, lambda: self.alive)
        self._prepare_thread = prepare_thread
        self._thread: threading.Thread | None = None
        self._started = clock()

    @property
    def config(self) -> ServerConfig:
        """The configuration in force."""
        return self._shared.config

    def start(self) -> None:
        """Begin to serve. Raises ``RuntimeError`` when it has begun already."""
        if self._thread is not None:
            raise RuntimeError('the server has been started already')
        self._shared.restart()
        self._loop.delivery.start()
        self._thread = threading.Thread(target=self._run, name='slice loop', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._prepare_thread()
        except Exception:
            log.exception('the thread of the loop could not be prepared; it serves all the same')
        self._loop.run()

    def stop(self, drain: float = 0.0, timeout: float = 10.0) -> bool:
        """Accept no more requests, give live ones `drain` seconds, then end the rest.

        Returns whether the loop ended within `timeout` seconds after that.
        """
        self._shared.stop(self.clock() + drain)
        thread = self._thread  # two callers may wait for it at once
        if thread is not None:
            thread.join(drain + timeout)
            if thread.is_alive():
                return False
            self._thread = None
        return self._loop.delivery.stop(timeout)

    @property
    def alive(self) -> bool:
        """Whether the loop thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether any request is live."""
        return bool(self._shared.jobs)

    def submit(self, slo: SloClass, tokens: list[int], max_tokens: int, sampling: 'Sampling',
               on_output: Callable[[Delivery], bool | None], *, stop: Iterable[str] = (),
               response_format: 'ResponseFormat | None' = None,
               request_id: str = '', caller: str = '', arrival: float | None = None,
               turn: Turn | None = None, adapter: str = '',
               images: 'Sequence[SeenImage]' = (), options: 'ChatOptions | None' = None
               ) -> Request:
        """Accept a request and return it; its tokens come through `on_output`.

        `adapter` is the name of one of the engine's, '' for none; `caller` names the client that
        sent it, if that is known; `arrival` is when it was received, on the server's clock (now by
        default); `images` are those of the prompt, which are encoded while it waits; `turn` is
        ended with the request. With the `options` of its prompt the model may think before its
        answer, which alone has `max_tokens`. Raises `RequestError` when it cannot be served, and
        counts that in its class; `on_output` is never called then, and the caller has to end the
        turn.
        """
        def open_sequence(request: Request) -> 'TokenSequence':
            asked = () if options is None else (options,)
            return self.engine.open(tokens, max_tokens, sampling, stop, response_format, request,
                                    adapter, images, *asked)
        return self._intake.submit(
            slo, len(tokens), max_tokens, open_sequence, on_output, request_id=request_id,
            caller=caller, arrival=arrival, turn=turn, images=images)

    def embed(self, slo: SloClass, tokens: list[int], pooling: 'Pooling',
              on_output: Callable[[Delivery], bool | None], request_id: str = '') -> Request:
        """Accept a text, of which `pooling` has the embedding at its end, and return the request.

        Its end alone comes through `on_output`. Raises as `submit` does.
        """
        return self._intake.submit(
            slo, len(tokens), 1, partial(self.engine.open_embedding, tokens, pooling), on_output,
            request_id=request_id)

    def cancel(self, request_id: str, why: str = 'cancelled by its caller') -> bool:
        """End a request before the next step; return whether it was live until now."""
        return self._shared.cancel(request_id, why)

    def cancel_class(self, name: str, why: str = 'its class was cancelled') -> list[str]:
        """End every live request of a class before the next step; return their ids."""
        ids = [job.request.id for job in self._shared.live() if job.request.slo.name == name]
        return [i for i in ids if self.cancel(i, why)]

    def reconfigure(self, config: ServerConfig) -> None:
        """Serve by another configuration from the next plan on, live requests included.

        A live request takes the new objectives of its class where it has the class's own. The
        policy is replaced by one that keeps what it has learnt. Raises ``ValueError`` as the
        constructor does; nothing changes then.
        """
        config = settled(config, self.engine.info, self.latency)
        configured_policy(config, self.engine.info)
        reconfigure(self._shared, self.sessions, config)

    def keep(self, pinned: 'PinnedPrefixes') -> None:
        """Compute what is missing of these prefixes, and no others, while no request is live."""
        pinned.wake = self._shared.notify
        self._loop.pin = pinned.compute
        self._shared.notify()

    def check(self, prompt_tokens: int, max_tokens: int) -> None:
        """Raise `RequestError` when no request of this size is ever served."""
        check_size(self.config, self.engine.info, prompt_tokens, max_tokens)

    def predict(self, slo: SloClass, prompt_tokens: int, max_tokens: int,
                images: 'Sequence[SeenImage]' = (), thought_tokens: int = 0
                ) -> admission.Prediction:
        """Predict how a request would be served if it came now. Raises as `check` does.

        Its `images` are encoded first. It may think for `thought_tokens` before its answer.
        """
        self.check(prompt_tokens, max_tokens)
        now = self.clock()
        return self._predict(Request('', slo, now, prompt_tokens, max_tokens + thought_tokens),
                             self._intake.until_encoded(slo, now, images))

    def _predict(self, request: Request, before: float) -> admission.Prediction:
        """Predict a request that can be served in `before` seconds, by the load of now."""
        live = [job.request for job in self._shared.live()]
        if before:
            request = replace(request, slo=admission.remaining(request.slo, before))
        try:
            return admission.delayed(admission.predict(
                self._loop.planner.policy, self.clock(), request, live, self.latency), before)
        except PolicyError as error:
            raise RequestError(ErrorCode.ENGINE_FAILURE, f'{error}: see the log') from error

    def recent_steps(self) -> list[StepRecord]:
        """Return the latest steps, oldest first; as many as are kept."""
        with self._shared.changed:
            return list(self._shared.loop_stats.recent)

    def count(self, request: Request) -> None:
        """Count a request that has ended before it was submitted."""
        self._shared.count(request)

    def mark(self) -> tuple:
        """Return what differs from an earlier mark when anything but time has changed."""
        return len(self.sessions), *self._shared.mark()

    def snapshot(self) -> Snapshot:
        """Return what the server does now, and how the classes have fared lately."""
        return take_snapshot(self._shared, self._loop.planner, self._loop.gate,
                             len(self.sessions), self.clock(), self._started)
