# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The three ways in: the action, the service and the prompt topics, each a few lines."""

from collections.abc import Callable
from functools import partial
import uuid
from weakref import WeakSet

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from slice_ros import msg, srv
from slice_ros.action import Generate
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.ros import conversions
from slice_ros.ros.calls import Call
from slice_ros.ros.class_topics import ClassTopics
from slice_ros.ros.host import Host
from slice_ros.ros.parameters import Parameters, Settings
from slice_ros.ros.qos import NO_EVENTS, REPORTS, SERVICES, TOKENS
from slice_ros.serving import Server
from slice_ros.slo import SloClass


class Requests:
    """Submits requests to the server of `host`, and answers their callers.

    No callback waits: a request is submitted, and its answer is a coroutine that continues when
    the serving loop has ended the request. One executor thread serves any number of goals.
    `wake_gate` is called before a request is submitted, `wake_executor` after one has ended.
    """

    def __init__(self, node: Node, host: Host, parameters: Parameters, group: CallbackGroup,
                 wake_gate: Callable[[], None], wake_executor: Callable[[], None]) -> None:
        self.waiting = 0                      # callers without an answer yet
        self.calls: WeakSet[Call] = WeakSet()   # those that may still publish, and a few more
        self._node, self._host, self._parameters = node, host, parameters
        self._wake_gate, self._wake_executor = wake_gate, wake_executor
        self._reports = node.create_publisher(msg.SloReport, '~/slo_reports', REPORTS,
                                              event_callbacks=NO_EVENTS)
        self._topics = ClassTopics(node, group, self._on_prompt)
        self._topics.add(parameters.settings.classes)
        node.create_service(srv.GenerateText, '~/generate_text', self._generate_text,
                            qos_profile=SERVICES, callback_group=group)
        self._action = ActionServer(
            node, Generate, '~/generate', self._never_called, callback_group=group,
            handle_accepted_callback=self._accepted, cancel_callback=self._cancel_goal,
            goal_service_qos_profile=SERVICES, result_service_qos_profile=SERVICES,
            cancel_service_qos_profile=SERVICES, feedback_pub_qos_profile=TOKENS,
            result_timeout=parameters.settings.result_timeout_s)

    def reconfigure(self, before: Settings, after: Settings) -> None:
        """Create the topics of new classes."""
        self._topics.add(after.classes)

    def drop_unused_topics(self) -> None:
        """Destroy the topics of classes that are gone and have no live request.

        Call it periodically; see `ClassTopics.drop_unused`.
        """
        live = {call.slo_class for call in self.calls if not call.done.done()}
        self._topics.drop_unused(live | self._parameters.settings.classes.keys())

    # -- submitting ----------------------------------------------------------------------------

    def _begin(self, goal, name: str, request_id: str = '', feedback=None) -> Call:
        """Submit a request of class `name`; the call returned carries any refusal."""
        slo = refusal = None
        settings = self._parameters.settings
        arrival = self._host.server.clock() if self._host.server else 0.0
        try:
            request_id = conversions.request_id(request_id)
        except RequestError as error:
            request_id, refusal = '', error
        call = Call(request_id or str(uuid.uuid4()), name, self._node.get_clock(),
                    self._topics.tokens.get(name), self._reports, self._wake_executor, feedback,
                    self._topics.speaker(name, settings.language))
        self.calls.add(call)
        try:
            if refusal:
                raise refusal
            server = self._host.serving()
            slo = conversions.slo_class(name, goal, settings)
            self._submit(server, goal, slo, call, arrival)
        except RequestError as error:
            self._node.get_logger().warning(
                f'request {call.id} is refused: {error.code.name}: {error.message}',
                throttle_duration_sec=1.0)
            call.refuse(error, slo, arrival)
        return call

    def _submit(self, server: Server, goal, slo: SloClass, call: Call, arrival: float) -> None:
        """Convert a goal and submit it. Raises `RequestError`."""
        response_format = conversions.response_format(goal.response_format)
        sampling, stop = conversions.sampling(goal.sampling), conversions.stops(goal.stop)
        server.check(1, goal.max_tokens)
        messages = conversions.messages(goal, self._parameters.settings)
        call.session_id = conversions.session_id(goal)
        turn = server.sessions.begin(call.session_id, messages, goal.max_tokens,
                                     goal.reset_session) if call.session_id else None
        tokens = turn.tokens if turn else server.engine.encode_chat(messages)
        self._wake_gate()
        try:
            server.submit(slo, tokens, goal.max_tokens, sampling, call, stop=stop,
                          response_format=response_format, request_id=call.id, arrival=arrival,
                          turn=turn)
        except BaseException:
            if turn:
                turn.end()
            raise

    async def _ended(self, call: Call) -> None:
        self.waiting += 1
        try:
            await call.done
        finally:
            self.waiting -= 1

    # -- the prompt topics and the service -----------------------------------------------------

    def _on_prompt(self, name: str, prompt: msg.Prompt) -> None:
        self._begin(prompt, name, prompt.request_id)

    async def _generate_text(self, request, response):
        call = self._begin(request, request.slo_class, request.request_id)
        call.door = 'service'
        await self._ended(call)
        return _answer(response, call)

    # -- the action ----------------------------------------------------------------------------

    def _accepted(self, handle: ServerGoalHandle) -> None:
        feedback = Generate.Feedback()

        def publish(text: str, number: int, tokens: int, predicted_ms: float) -> None:
            feedback.text, feedback.sequence, feedback.tokens = text, number, tokens
            feedback.predicted_completion_ms = predicted_ms
            handle.publish_feedback(feedback)
        goal = handle.request
        call = self._begin(goal, goal.slo_class, _request_id(handle), publish)
        # rclpy keeps the goal with its result for minutes; its text need not stay in memory.
        goal.prompt, goal.messages, goal.stop = '', [], []
        goal.response_format = msg.ResponseFormat()
        handle.execute(partial(self._execute, call))

    async def _execute(self, call: Call, handle: ServerGoalHandle) -> Generate.Result:
        await self._ended(call)
        if call.error is ErrorCode.NONE:
            handle.succeed()
        elif call.error is ErrorCode.CANCELLED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return _answer(Generate.Result(), call)

    async def _never_called(self, handle: ServerGoalHandle) -> Generate.Result:
        raise AssertionError('every goal is executed by a callback of its own')

    def _cancel_goal(self, handle: ServerGoalHandle) -> CancelResponse:
        server = self._host.server
        if server is not None and server.cancel(_request_id(handle)):
            return CancelResponse.ACCEPT
        return CancelResponse.REJECT  # it has ended already


def _request_id(handle: ServerGoalHandle) -> str:
    return str(uuid.UUID(bytes=bytes(handle.goal_id.uuid)))


def _answer(result, call: Call):
    result.request_id, result.text, result.finish_reason = call.id, call.text, call.finish_reason
    result.report, result.error_code, result.error_msg = call.report, int(call.error), call.message
    return result
