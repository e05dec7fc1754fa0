# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node `slice`: composed of its parts, each a plain class in a file of its own."""

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from slice_ros.engine import Engine
from slice_ros.ros.callers.caller_watch import CallerWatch
from slice_ros.ros.callers.embeddings import Embeddings
from slice_ros.ros.gate_timer import GateTimer
from slice_ros.ros.host import Host
from slice_ros.ros.isolation.boundary import guard_services, logging_faults
from slice_ros.ros.isolation.workers import Workers
from slice_ros.ros.lifecycle import Lifecycle
from slice_ros.ros.parameters import Parameters, Settings
from slice_ros.ros.requests import Requests
from slice_ros.ros.status import Status
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server


class SliceNode(LifecycleNodeMixin, Node):
    """A lifecycle node that answers from its first moment on, and serves while it is active.

    It creates the parts and connects them; the parts do not know each other. They share `host`
    (the server and the state of the node) and `live_parameters`.
    """

    def __init__(self, name: str = 'slice', **options) -> None:
        """Make the node. Raises `ParameterError` when its parameters cannot be used."""
        Node.__init__(self, name, **options)
        self.live_parameters = Parameters(
            self, lambda: self.lifecycle.engine_fixed,
            lambda settings: self.lifecycle.check(settings), self._reconfigure)
        settings = self.settings
        # Reentrant: in an exclusive group one pending coroutine would block every other callback.
        group = self.group = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=group)
        self.host = Host('loading' if settings.autostart else 'unconfigured')
        self.gate_timer = GateTimer(self, settings.rate_control, lambda: self.requests.busy, group)
        self.workers = Workers(wake=self.wake)
        self.status = Status(self, self.host, self.live_parameters, group, self.workers)
        self.requests = Requests(
            self, self.host, self.live_parameters, group, self.workers,
            wake_gate=self.gate_timer.wake, submitted=self._submitted, wake_executor=self.wake)
        self.embeddings = Embeddings(
            self, self.host, self.live_parameters, group, self.workers, self.gate_timer.wake,
            self._submitted, self.wake)
        self.lifecycle = Lifecycle(self, self.host, self.live_parameters, self.gate_timer.gate,
                                   on_gate=self.status.gate_changed, wake=self.wake,
                                   workers=self.workers)
        self.caller_watch = CallerWatch(self, lambda: self.settings.unattended_s, group,
                                        lambda: list(self.requests.live.values()),
                                        self.requests.cancel)
        self._status_timer = self.create_timer(
            settings.status_period_s, self._report, callback_group=group,
            clock=Clock(clock_type=ClockType.STEADY_TIME))  # also while the node's clock stops
        guard_services(self)

    def _reconfigure(self, before: Settings, after: Settings) -> None:
        """Pass changed parameters to every part that acts on a change."""
        self.lifecycle.reconfigure(before, after)
        self.gate_timer.reconfigure(before, after)
        self.requests.reconfigure(before, after)
        if after.status_period_s != before.status_period_s:
            self._status_timer.timer_period_ns = int(after.status_period_s * 1e9)
            self._status_timer.reset()   # else the next state would come after the old period

    def _report(self) -> None:
        with logging_faults('publishing the status'):
            self.status.publish()
        with logging_faults('destroying the topics of a class'):
            self.requests.drop_unused_topics()

    def _submitted(self) -> None:
        """Tick as often as a request needs that has just become live; called by a worker."""
        executor = self.executor
        if executor is not None and self.settings.rate_control.mode == 'paced':
            executor.create_task(self.gate_timer.wake)

    def on_activate(self, state) -> TransitionCallbackReturn:
        """Run the transition of `lifecycle`; then publish, so that subscribers know at once."""
        result = super().on_activate(state)
        with logging_faults('publishing the status'):
            self.status.publish()
        return result

    def wake(self) -> None:
        """Make the executor check what another thread has completed."""
        executor = self.executor
        if executor is not None:
            executor.wake()

    def describe_parameter(self, name: str) -> ParameterDescriptor:
        """
        Return what a parameter is, with the type of the value that it has.

        rclpy leaves there the type of a value that was refused.
        """
        found = super().describe_parameter(name)
        if self.has_parameter(name):
            found.type = self.get_parameter(name).type_.value
        return found

    # -- for the process around the node, and for tests ----------------------------------------

    @property
    def settings(self) -> Settings:
        """The parameters in force: one snapshot, replaced as a whole."""
        return self.live_parameters.settings

    @property
    def state(self) -> str:
        """The state that ~/get_status reports."""
        return self.host.state

    @property
    def server(self) -> Server | None:
        """The server, from configure to cleanup."""
        return self.host.server

    @property
    def engine(self) -> Engine | None:
        """The engine, once it is loaded."""
        return self.lifecycle.engine

    @property
    def waiting(self) -> int:
        """How many callers have no answer yet."""
        return self.requests.waiting

    async def start(self) -> bool:
        """Configure and activate; return whether both succeeded."""
        return await self.lifecycle.start()

    def serve(self, engine: Engine, latency: LatencyModel) -> None:
        """Configure with an engine that is loaded already, and activate.

        Raises ``RuntimeError`` when the node is not unconfigured.
        """
        self.lifecycle.serve(engine, latency)

    def close(self) -> bool:
        """End live requests, within `shutdown.drain_s`; return whether the server ended."""
        self.workers.close()
        return self.lifecycle.close()

    def wait(self, timeout: float) -> bool:
        """Wait for the threads beside the executor; return whether all have ended."""
        loaded = self.lifecycle.wait(timeout)
        return self.workers.wait(timeout) and loaded
