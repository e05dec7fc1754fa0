# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How requests come in: action, service and prompt topics, each a few lines to the server."""

from functools import partial
import uuid
from weakref import WeakSet

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from slice_ros import msg, srv
from slice_ros.action import Generate
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.ros import conversions
from slice_ros.ros.calls import Call
from slice_ros.ros.lifecycle import ManagedNode
from slice_ros.ros.parameters import Settings
from slice_ros.ros.qos import NO_EVENTS, SERVICES, TOKENS
from slice_ros.ros.speech import SENTENCES, Speaker
from slice_ros.serving import Server
from std_msgs.msg import String

REPORTS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
PROMPTS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


class RequestNode(ManagedNode):
    """Takes requests in, and hands out their tokens and reports.

    No callback waits: a request is handed to the server, and what answers it is a coroutine that
    goes on when the serving loop is done. One executor thread is enough for any number of goals.
    """

    def __init__(self, name: str, **options) -> None:
        """Make the node. Raises `ParameterError` when its parameters cannot be used."""
        super().__init__(name, **options)
        group = self.group
        self.waiting = 0   # callers that have not been answered yet
        self._tokens: dict[str, Publisher] = {}
        self._sentences: dict[str, Publisher] = {}
        self._prompts: dict[str, Subscription] = {}
        self._calls: WeakSet[Call] = WeakSet()   # those that may publish still, and a few more
        self._unused: set[str] = set()     # classes that are gone, as of the last look
        self._reports = self.create_publisher(msg.SloReport, '~/slo_reports', REPORTS,
                                              event_callbacks=NO_EVENTS)
        self._add_topics()
        self.create_service(srv.GenerateText, '~/generate_text', self._generate_text,
                            qos_profile=SERVICES, callback_group=group)
        self._action = ActionServer(
            self, Generate, '~/generate', self._never_started, callback_group=group,
            handle_accepted_callback=self._accepted, cancel_callback=self._cancel_goal,
            goal_service_qos_profile=SERVICES, result_service_qos_profile=SERVICES,
            cancel_service_qos_profile=SERVICES, feedback_pub_qos_profile=TOKENS,
            result_timeout=self.settings.result_timeout_s)

    def _add_topics(self) -> None:
        """Make the topics of every class that has none."""
        for name in self.settings.classes:
            if name not in self._tokens:
                self._tokens[name] = self.create_publisher(msg.TokenChunk, f'~/{name}/tokens',
                                                           TOKENS, event_callbacks=NO_EVENTS)
                self._sentences[name] = self.create_publisher(String, f'~/{name}/sentences',
                                                              SENTENCES,
                                                              event_callbacks=NO_EVENTS)
                self._prompts[name] = self.create_subscription(
                    msg.Prompt, f'~/{name}/prompt', partial(self._prompt, name), PROMPTS,
                    callback_group=self.group)

    def _drop_topics(self) -> None:
        """Destroy the topics of classes that are gone and have no live request.

        To be called now and then: they go at the second look, so that who listens has had the
        time to receive their last words.
        """
        live = {call.slo_class for call in self._calls if not call.done.done()}
        unused = self._tokens.keys() - self.settings.classes.keys() - live
        for name in unused & self._unused:
            self.destroy_subscription(self._prompts.pop(name))
            self.destroy_publisher(self._tokens.pop(name))
            self.destroy_publisher(self._sentences.pop(name))
        self._unused = unused

    def _reconfigured(self, before: Settings) -> None:
        super()._reconfigured(before)
        self._add_topics()

    def _begin(self, goal, name: str, request_id: str = '', feedback=None) -> Call:
        """Hand a request to the server; whatever is wrong with it is in the call returned."""
        slo = refusal = None
        arrival = self.server.clock() if self.server else 0.0
        try:
            request_id = conversions.request_id(request_id)
        except RequestError as error:
            request_id, refusal = '', error
        call = Call(request_id or str(uuid.uuid4()), name, self.get_clock(),
                    self._tokens.get(name), self._reports, self.wake, feedback,
                    self._speaker(name))
        self._calls.add(call)
        try:
            if refusal:
                raise refusal
            server = self._ready()
            slo = conversions.slo_class(name, goal, self.settings)
            wanted = conversions.response_format(goal.response_format)
            sampling, stop = conversions.sampling(goal.sampling), conversions.stops(goal.stop)
            server.check(1, goal.max_tokens)
            said = conversions.messages(goal, self.settings)
            call.session_id = conversions.session_id(goal)
            turn = server.sessions.begin(call.session_id, said, goal.max_tokens,
                                         goal.reset_session) if call.session_id else None
            tokens = turn.tokens if turn else server.engine.encode_chat(said)
            self.pacer.wake()
            try:
                server.submit(slo, tokens, goal.max_tokens, sampling, call, stop=stop,
                              response_format=wanted, request_id=call.id, arrival=arrival,
                              turn=turn)
            except BaseException:
                if turn:
                    turn.end()
                raise
        except RequestError as error:
            self.get_logger().warning(
                f'request {call.id} is refused: {error.code.name}: {error.message}',
                throttle_duration_sec=1.0)
            call.refuse(error, slo, arrival)
        return call

    def _speaker(self, name: str) -> Speaker | None:
        publisher = self._sentences.get(name)
        return Speaker(publisher, self.settings.language) if publisher else None

    def _ready(self) -> Server:
        if self.server is None:
            how = {'unconfigured': 'the node is not configured: configure and activate it',
                   'failed': f'the model could not be loaded: {self.failure}'}
            raise RequestError(ErrorCode.NOT_READY, how.get(
                self.state, 'the model is still being loaded: try again when get_status says '
                'ready'))
        if self.state == 'inactive':
            raise RequestError(ErrorCode.NOT_READY, 'the node is not active: activate it')
        return self.server

    def _accepted(self, handle: ServerGoalHandle) -> None:
        feedback = Generate.Feedback()

        def publish(text: str, number: int, tokens: int, predicted_ms: float) -> None:
            feedback.text, feedback.sequence, feedback.tokens = text, number, tokens
            feedback.predicted_completion_ms = predicted_ms
            handle.publish_feedback(feedback)
        goal = handle.request
        call = self._begin(goal, goal.slo_class, _request_id(handle), publish)
        # The goal is kept with its result for minutes; its text need not be.
        goal.prompt, goal.messages, goal.stop = '', [], []
        goal.response_format = msg.ResponseFormat()
        handle.execute(partial(self._execute, call))

    async def _ended(self, call: Call) -> None:
        self.waiting += 1
        try:
            await call.done
        finally:
            self.waiting -= 1

    async def _execute(self, call: Call, handle: ServerGoalHandle) -> Generate.Result:
        await self._ended(call)
        if call.error is ErrorCode.NONE:
            handle.succeed()
        elif call.error is ErrorCode.CANCELLED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return _answer(Generate.Result(), call)

    async def _never_started(self, handle: ServerGoalHandle) -> Generate.Result:
        raise AssertionError('every goal is executed by a callback of its own')

    def _cancel_goal(self, handle: ServerGoalHandle) -> CancelResponse:
        if self.server is not None and self.server.cancel(_request_id(handle)):
            return CancelResponse.ACCEPT
        return CancelResponse.REJECT  # it is over already

    async def _generate_text(self, request, response):
        call = self._begin(request, request.slo_class, request.request_id)
        await self._ended(call)
        return _answer(response, call)

    def _prompt(self, name: str, prompt: msg.Prompt) -> None:
        self._begin(prompt, name, prompt.request_id)


def _request_id(handle: ServerGoalHandle) -> str:
    return str(uuid.UUID(bytes=bytes(handle.goal_id.uuid)))


def _answer(result, call: Call):
    result.request_id, result.text, result.finish_reason = call.id, call.text, call.finish_reason
    result.report, result.error_code, result.error_msg = call.report, int(call.error), call.message
    return result
