# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The transitions of the node: configure loads the model, activate opens for requests.

rclpy runs a transition inside the service call that asks for it. Loading takes seconds, and
draining may, and a callback that waits would block the whole node. So the slow work runs in a
thread first, while the service call waits as a coroutine, and rclpy's own transition follows.
Until then `get_state` still names the state before, and ~/get_status reports loading or draining.
`change_state` is answered when the transition is complete, as a lifecycle manager expects. A
manager's time-out (Nav2's `service_timeout`) must be longer than the model takes to load.
"""

from collections.abc import Callable
from functools import partial, wraps
import math
import threading

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNodeMixin, ManagedEntity, TransitionCallbackReturn
from slice_ros.engine import Engine
from slice_ros.errors import ModelError
from slice_ros.ros.compat import change_state_service
from slice_ros.ros.host import Host
from slice_ros.ros.isolation.background import Background
from slice_ros.ros.isolation.boundary import logging_faults, refusal
from slice_ros.ros.isolation.placement import place, placing_threads
from slice_ros.ros.isolation.workers import Work, Workers
from slice_ros.ros.parameters import Parameters, Settings
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Gate, Server
from slice_ros.serving.live_config import configured_policy
from slice_ros.serving.warm.warm_up import pinned_preambles, warm_up

SUCCESS, FAILURE, ERROR = (TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE,
                           TransitionCallbackReturn.ERROR)
NAMES = {
    Transition.TRANSITION_CONFIGURE: 'configure', Transition.TRANSITION_ACTIVATE: 'activate',
    Transition.TRANSITION_DEACTIVATE: 'deactivate',
    Transition.TRANSITION_ACTIVE_SHUTDOWN: 'shutdown'}

MAX_LABEL = 80   # characters of a transition's label that are looked at


class _Stopped(Exception):
    """Raised inside the loader when the node is asked to stop."""


def _logged(transition: Callable) -> Callable:
    """Have a transition that raises end in an error; rclpy alone would not log why."""
    @wraps(transition)
    def logged(self, state) -> TransitionCallbackReturn:
        with logging_faults(f'the transition {transition.__name__}'):
            return transition(self, state)
        return ERROR
    return logged


class Lifecycle(ManagedEntity):
    """Loads the engine, owns the server from configure to cleanup, and runs the transitions.

    Writes `host`. The server gets `gate` and `on_gate`; `wake` wakes the node's executor;
    `workers` read the preambles that are set while there is a server.
    """

    def __init__(self, node: LifecycleNodeMixin, host: Host, parameters: Parameters,
                 gate: Gate, on_gate: Callable[[bool], None],
                 wake: Callable[[], None], workers: Workers) -> None:
        self.engine: Engine | None = None
        self._node, self._host, self._parameters = node, host, parameters
        self._gate, self._on_gate = gate, on_gate
        self._background, self._workers = Background(wake), workers
        self._latency: LatencyModel | None = None
        self._keeping = threading.Lock()   # so that the latest preambles are kept last
        self._changing, self._stopping = False, threading.Event()
        service = change_state_service(node)
        self._complete, service.callback = service.callback, self._change_state
        node.add_managed_entity(self)

    @property
    def engine_fixed(self) -> bool:
        """Whether the parameters of the engine cannot change: it is loaded, or being loaded."""
        return self._changing or self.engine is not None

    async def start(self) -> bool:
        """Configure and activate; return whether both succeeded."""
        with logging_faults('starting'):
            for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                response = await self._change_state(ChangeState.Request(
                    transition=Transition(id=transition)), ChangeState.Response())
                if not response.success:
                    return False
            return True
        return False

    def serve(self, engine: Engine, latency: LatencyModel) -> None:
        """Configure with an engine that is loaded already, and activate.

        Raises ``RuntimeError`` when the node is not unconfigured.
        """
        self.engine, self._latency = engine, latency
        configured = self._node.trigger_configure() == SUCCESS
        if configured:
            self._warm_up()
        if not configured or self._node.trigger_activate() != SUCCESS:
            raise RuntimeError('the node cannot be activated: see the log')

    def check(self, settings: Settings) -> None:
        """Raise ``ValueError`` when the loaded engine, if any, cannot serve by `settings`."""
        if self.engine is not None:
            configured_policy(settings.server, self.engine.info)

    def reconfigure(self, before: Settings, after: Settings) -> None:
        """Pass a change of the scheduling parameters and of the preambles to the server."""
        server = self._host.server
        if server is not None and after.server != before.server:
            server.reconfigure(after.server)
        if server is not None and _beginnings(after) != _beginnings(before):
            self._workers.submit(Work(self._keep_preambles, lambda error: None, math.inf,
                                      heavy=True), most=math.inf)

    def close(self) -> bool:
        """End live requests, within `shutdown.drain_s`; return whether the server ended."""
        self._stopping.set()
        self._host.state = 'draining'
        return self._host.server is None or self._drain()

    def wait(self, timeout: float) -> bool:
        """Wait for the thread that loads or drains; return whether it has ended."""
        return self._background.wait(timeout)

    async def _change_state(self, request: ChangeState.Request,
                            response: ChangeState.Response) -> ChangeState.Response:
        name = request.transition.label[:MAX_LABEL] or NAMES.get(request.transition.id, '')
        if self._changing:
            self._node.get_logger().warning(f'{name or request.transition.id} is refused: another '
                                            'transition is under way')
            return response
        self._changing = True
        try:
            if (name == 'configure' and self._host.server is None
                    and self._host.state != 'finalized'):
                await self._background.run(self._load)
            elif name == 'activate' and self._host.state == 'inactive':
                await self._background.run(self._warm_up)
            elif name in ('deactivate', 'shutdown') and self._host.state == 'ready':
                self._host.state = 'draining'
                await self._background.run(self._drain)
            return self._complete(request, response)
        finally:
            self._changing = False

    def _drain(self) -> bool:
        return self._host.server.stop(self._parameters.settings.drain_s)

    def _load(self) -> None:
        """Load and profile the model; on failure log the reason and leave `engine` None."""
        if self._stopping.is_set():
            return
        from slice_ros.engine import load_engine
        self._host.state, logged = 'loading', ''

        def progress(what: str, share: float) -> None:
            nonlocal logged
            if self._stopping.is_set():
                raise _Stopped
            if what != logged:
                logged = what
                self._node.get_logger().info(f'{what} ...')

        def load() -> None:
            engine = load_engine(self._parameters.settings.engine, progress)
            self._latency = engine.profile(progress)
            self.engine = engine
        try:
            placing_threads(self._parameters.settings.loop, load)
        except _Stopped:
            pass
        except ModelError as error:
            self._host.failure = str(error)
            self._node.get_logger().fatal(f'the model cannot be loaded: {error}')
        except BaseException as error:   # native code may raise more than `Exception`
            self._host.failure = refusal(error, 'loading the model').message

    def _warm_up(self) -> None:
        """Do what the first requests would have to wait for; without it they are served too."""
        settings = self._parameters.settings
        self._node.get_logger().info('computing what requests begin with ...')
        with logging_faults('the warm-up, without which the first requests are slower,'):
            self._host.server.keep(warm_up(self.engine, self._latency, settings.server,
                                           settings.preambles, self._stopping.is_set,
                                           settings.chat))
            if _beginnings(self._parameters.settings) != _beginnings(settings):
                self._keep_preambles()   # they have changed meanwhile

    def _keep_preambles(self) -> None:
        """Have the server compute the preambles that are in force while no request is live."""
        with self._keeping:
            if (server := self._host.server) is not None:
                server.keep(pinned_preambles(
                    server.engine, *_beginnings(self._parameters.settings)))

    # -- the transitions as rclpy runs them ----------------------------------------------------

    @_logged
    def on_configure(self, state) -> TransitionCallbackReturn:
        if self.engine is None:
            self._host.state = 'failed'
            return FAILURE
        settings = self._parameters.settings
        self._host.server = Server(self.engine, self._latency, settings.server,
                                   gate=self._gate, on_gate=self._on_gate,
                                   prepare_thread=partial(place, settings.loop))
        self._host.state = 'inactive'
        info, decode = self.engine.info, self._latency.decode
        self._node.get_logger().info(
            f'loaded: {info.model} on {info.device}, {info.weights} weights, '
            f'{info.kv_bits} bit keys and values, {info.path} '
            f'({info.kernels}), policy {settings.server.policy}; a step takes '
            f'{decode(1) * 1e3:.0f} ms for 1 request, {decode(8) * 1e3:.0f} ms for 8')
        return SUCCESS

    @_logged
    def on_activate(self, state) -> TransitionCallbackReturn:
        if self._stopping.is_set():
            return FAILURE
        self._host.server.start()
        self._host.state = 'ready'
        self._node.get_logger().info('ready: requests are served')
        return SUCCESS

    @_logged
    def on_deactivate(self, state) -> TransitionCallbackReturn:
        # After a service call it is drained already.
        if not self._host.server.stop():
            self._node.get_logger().error('the serving loop did not end')
            return ERROR
        self._host.state = 'inactive'
        return SUCCESS

    @_logged
    def on_cleanup(self, state) -> TransitionCallbackReturn:
        self._host.server = self.engine = self._latency = None
        self._host.state = 'unconfigured'
        return SUCCESS

    on_error = on_cleanup

    @_logged
    def on_shutdown(self, state) -> TransitionCallbackReturn:
        if self._host.server is not None:
            self._host.server.stop()
        self.on_cleanup(state)
        self._host.state = 'finalized'
        return SUCCESS


def _beginnings(settings: Settings) -> tuple:
    return settings.preambles, settings.chat
