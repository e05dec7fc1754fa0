# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The managed life of the node: configure loads the model, activate opens for requests.

rclpy runs a transition inside the service call that asks for it. Loading takes seconds, and so
may draining, and a callback that waits would silence the whole node. So what takes long is done
in a thread first, while the call waits as a coroutine, and the transition itself comes after:
until then `get_state` still names the state before it, and ~/get_status says loading or draining.
The answer to `change_state` comes when the transition is complete, as a lifecycle manager expects;
one that gives up sooner (Nav2's `service_timeout`) needs more time than the model takes to load.
"""

from collections.abc import Callable
import logging
import threading

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.task import Future
from slice_ros.engine import Engine
from slice_ros.errors import ModelError
from slice_ros.ros.gate_timer import Pacer
from slice_ros.ros.parameters import Parameters, Settings
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server

log = logging.getLogger('slice_ros.ros')

SUCCESS, FAILURE, ERROR = (TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE,
                           TransitionCallbackReturn.ERROR)
NAMES = {
    Transition.TRANSITION_CONFIGURE: 'configure', Transition.TRANSITION_ACTIVATE: 'activate',
    Transition.TRANSITION_DEACTIVATE: 'deactivate',
    Transition.TRANSITION_ACTIVE_SHUTDOWN: 'shutdown'}


class _Stopped(Exception):
    """Raised inside the loader when the node is asked to stop."""


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node that hosts a `Server` from configure to cleanup.

    `state` is what ~/get_status says: unconfigured, loading, failed, inactive, ready or draining;
    `failure` is why it failed.
    """

    def __init__(self, name: str, **options) -> None:
        """Declare the parameters. Raises `ParameterError` when they cannot be used."""
        Node.__init__(self, name, **options)
        self.server: Server | None = None
        self.engine: Engine | None = None
        self._live_parameters = Parameters(
            self, lambda: self._changing or self.engine is not None, self._reconfigured)
        # Else one pending coroutine would hold up the others.
        self.group = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=self.group)
        self.pacer = Pacer(self, self.settings.rate_control,
                           lambda: self.server is not None and self.server.busy, self.group)
        self._complete = self._service_change_state.callback
        self._service_change_state.callback = self._change_state
        self.state = 'loading' if self.settings.autostart else 'unconfigured'
        self.failure = ''
        self._latency: LatencyModel | None = None
        self._changing = False
        self._stopping = threading.Event()
        self._worker: threading.Thread | None = None
        self._starting = threading.Lock()  # held while it is made: none is waited for too early

    @property
    def settings(self) -> Settings:
        """The parameters in force: one snapshot, replaced as a whole."""
        return self._live_parameters.settings

    def _reconfigured(self, before: Settings) -> None:
        if self.server is not None and self.settings.server != before.server:
            self.server.reconfigure(self.settings.server)
        if self.settings.rate_control != before.rate_control:
            self.pacer.reconfigure(self.settings.rate_control)

    def _gate_changed(self, shut: bool) -> None:
        """Hear that the pacing gate fell shut, stays so or is open again; in another thread."""

    async def start(self) -> bool:
        """Configure and activate; return whether both succeeded."""
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            response = await self._change_state(
                ChangeState.Request(transition=Transition(id=transition)), ChangeState.Response())
            if not response.success:
                return False
        return True

    def serve(self, engine: Engine, latency: LatencyModel) -> None:
        """Configure with an engine that is loaded already, and activate.

        Raises ``RuntimeError`` when the node is not unconfigured.
        """
        self.engine, self._latency = engine, latency
        if self.trigger_configure() != SUCCESS or self.trigger_activate() != SUCCESS:
            raise RuntimeError('the node cannot be activated: see the log')

    def close(self) -> bool:
        """End what lives, within `shutdown.drain_s`; return whether the loop ended."""
        self._stopping.set()
        self.state = 'draining'
        return self.server is None or self.server.stop(self.settings.drain_s)

    def wait(self, timeout: float) -> bool:
        """Wait for the thread that loads or drains; return whether it has ended."""
        with self._starting:
            worker = self._worker
        if worker is not None:
            worker.join(timeout)
        return worker is None or not worker.is_alive()

    def wake(self) -> None:
        """Make the executor look at what another thread has completed."""
        executor = self.executor
        if executor is not None:
            executor.wake()

    # -- transitions -------------------------------------------------------------------------

    async def _change_state(self, request: ChangeState.Request, response: ChangeState.Response):
        name = request.transition.label or NAMES.get(request.transition.id, '')
        if self._changing:
            self.get_logger().warning(f'{name or request.transition.id} is refused: another '
                                      'transition is under way')
            return response
        self._changing = True
        try:
            if name == 'configure' and self.server is None:
                await self._in_background(self._load)
            elif name in ('deactivate', 'shutdown') and self.state == 'ready':
                self.state = 'draining'
                await self._in_background(lambda: self.server.stop(self.settings.drain_s))
            return self._complete(request, response)
        finally:
            self._changing = False

    def _in_background(self, work: Callable[[], object]) -> Future:
        done: Future = Future()

        def run() -> None:
            try:
                work()
            except Exception:  # the transition that waits for it finds out what is missing
                log.exception('a transition failed')
            done.set_result(None)
            self.wake()
        with self._starting:
            self._worker = threading.Thread(target=run, name='transition', daemon=True)
            self._worker.start()
        return done

    def _load(self) -> None:
        """Load and profile the model; on failure say why and leave `engine` None."""
        if self._stopping.is_set():
            return
        from slice_ros.engine import load_engine
        self.state, told = 'loading', ''

        def progress(what: str, share: float) -> None:
            nonlocal told
            if self._stopping.is_set():
                raise _Stopped
            if what != told:
                told = what
                self.get_logger().info(f'{what} ...')
        try:
            engine = load_engine(self.settings.engine, progress)
            self._latency = engine.profile(progress)
            self.engine = engine
        except _Stopped:
            pass
        except ModelError as error:
            self.failure = str(error)
            self.get_logger().fatal(f'the model cannot be loaded: {error}')
        except Exception as error:
            self.failure = f'{type(error).__name__}: {error!s:.200}; the log says more'
            log.exception('loading failed')

    def on_configure(self, state) -> TransitionCallbackReturn:
        if self.engine is None:
            self.state = 'failed'
            return FAILURE
        self.server = Server(self.engine, self._latency, self.settings.server,
                             gate=self.pacer.gate, on_gate=self._gate_changed)
        self.state = 'inactive'
        info, decode = self.engine.info, self._latency.decode
        self.get_logger().info(
            f'loaded: {info.model} on {info.device}, {info.weights} weights, {info.path} '
            f'({info.kernels}), policy {self.settings.server.policy}; a step takes '
            f'{decode(1) * 1e3:.0f} ms for 1 request, {decode(8) * 1e3:.0f} ms for 8')
        return SUCCESS

    def on_activate(self, state) -> TransitionCallbackReturn:
        if self._stopping.is_set():
            return FAILURE
        self.server.start()
        self.state = 'ready'
        self.get_logger().info('ready: requests are served')
        return SUCCESS

    def on_deactivate(self, state) -> TransitionCallbackReturn:
        # Drained before, when a service call asked for it.
        if not self.server.stop():
            self.get_logger().error('the serving loop did not end')
            return ERROR
        self.state = 'inactive'
        return SUCCESS

    def on_cleanup(self, state) -> TransitionCallbackReturn:
        self.server = self.engine = self._latency = None
        self.state = 'unconfigured'
        return SUCCESS

    def on_shutdown(self, state) -> TransitionCallbackReturn:
        if self.server is not None:
            self.server.stop()
        self.on_cleanup(state)
        self.state = 'finalized'
        return SUCCESS

    def on_error(self, state) -> TransitionCallbackReturn:
        return self.on_cleanup(state)
