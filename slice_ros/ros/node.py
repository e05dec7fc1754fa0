# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node class: what can be asked of `slice`, and what it says of itself."""

import time

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import TransitionCallbackReturn

from slice_ros import msg, srv
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.installed import version
from slice_ros.ros import conversions
from slice_ros.ros.diagnostics import Diagnostics
from slice_ros.ros.parameters import Settings
from slice_ros.ros.qos import NO_EVENTS, STATE
from slice_ros.ros.requests import RequestNode, SERVICES
from slice_ros.serving import Snapshot


class SliceNode(RequestNode):
    """Answers from the first moment on; serves while it is active."""

    def __init__(self, name: str = 'slice', **options) -> None:
        """Make the node. Raises `ParameterError` when its parameters cannot be used."""
        super().__init__(name, **options)
        self._version = version()
        self._states = self.create_publisher(msg.SchedulerState, '~/scheduler_state', STATE,
                                             event_callbacks=NO_EVENTS)
        self._diagnostics = Diagnostics(self.get_fully_qualified_name().lstrip('/'))
        self._health = self.create_publisher(DiagnosticArray, '/diagnostics', 10,
                                             event_callbacks=NO_EVENTS)
        for kind, what, callback in (
                (srv.CheckAdmission, 'check_admission', self._check_admission),
                (srv.CancelRequest, 'cancel', self._cancel),
                (srv.GetStatus, 'get_status', self._get_status)):
            self.create_service(kind, f'~/{what}', callback, qos_profile=SERVICES,
                                callback_group=self.group)
        self._status_timer = self.create_timer(
            self.settings.status_period_s, self._look_around, callback_group=self.group,
            clock=Clock(clock_type=ClockType.STEADY_TIME))  # told also when the node's clock stops

    def _reconfigured(self, before: Settings) -> None:
        super()._reconfigured(before)
        self._status_timer.timer_period_ns = int(self.settings.status_period_s * 1e9)

    def on_activate(self, state) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._publish_state()  # who listens is to know at once that the node lives
        return result

    def _check_admission(self, request, response):
        try:
            server = self._ready()
            slo = conversions.slo_class(request.slo_class, request, self.settings)
            tokens = request.prompt_tokens
            if request.prompt or request.messages:
                tokens = len(server.engine.encode_chat(
                    conversions.messages(request, self.settings)))
            prediction = server.predict(slo, tokens, request.max_tokens)
        except RequestError as error:
            response.reason = response.error_msg = error.message
            response.error_code = int(error.code)
            return response
        response.feasible, response.reason = prediction.feasible, prediction.reason
        response.ttft_ms, response.tpot_ms = prediction.ttft * 1e3, prediction.tpot * 1e3
        response.completion_ms, response.prompt_tokens = prediction.completion * 1e3, tokens
        return response

    def _cancel(self, request, response):
        try:
            server = self._ready()
            if bool(request.request_id) == bool(request.slo_class):
                raise RequestError(ErrorCode.INVALID_REQUEST,
                                   'give exactly one of request_id and slo_class')
            if request.request_id:
                done = server.cancel(request.request_id, 'cancelled through ~/cancel')
                response.cancelled = [request.request_id] if done else []
            elif request.slo_class not in self.settings.classes:
                raise RequestError(ErrorCode.UNKNOWN_SLO_CLASS,
                                   f'there is no class {request.slo_class!r:.80}')
            else:
                response.cancelled = server.cancel_class(
                    request.slo_class, 'its class was cancelled through ~/cancel')
        except RequestError as error:
            response.error_code, response.error_msg = int(error.code), error.message
        return response

    def _get_status(self, request, response):
        response.state, response.version = self.state, self._version
        if self.server is not None:
            response.engine = self._engine_message()
            response.scheduler = self._state_message(self.server.snapshot())
        return response

    def _engine_message(self) -> msg.EngineStatus:
        return conversions.engine_message(self.engine.info, self.settings.server.max_batch)

    def _state_message(self, snapshot: Snapshot) -> msg.SchedulerState:
        return conversions.state_message(snapshot, self.settings.server.max_queued,
                                         self.get_clock().now().to_msg())

    def _gate_changed(self, shut: bool) -> None:
        if shut:
            self.get_logger().error(
                'the pacing gate is shut: nothing is generated while the executor or the clock '
                'of the node stands still', throttle_duration_sec=10.0)
        else:
            self.get_logger().warning('the pacing gate is open again',
                                      throttle_duration_sec=10.0)
        self._publish_state()

    def _look_around(self) -> None:
        self._publish_state()
        self._drop_topics()

    def _publish_state(self) -> None:
        health = DiagnosticArray()
        health.header.stamp = self.get_clock().now().to_msg()
        if self.server is None:
            health.status = self._diagnostics.lone(self.state, self.failure)
        else:
            snapshot = self.server.snapshot()
            state = self._state_message(snapshot)
            self._states.publish(state)
            health.status = self._diagnostics.statuses(
                time.monotonic(), self.state, self._engine_message(), state, snapshot.delivery)
        self._health.publish(health)
