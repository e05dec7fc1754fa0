"""The node class: every topic, service and action of `slice`, each a few lines to the server."""

from functools import partial
import time
import uuid

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from slice_ros import msg, srv
from slice_ros.action import Generate
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.installed import version
from slice_ros.ros import conversions
from slice_ros.ros.calls import Call
from slice_ros.ros.diagnostics import Diagnostics
from slice_ros.ros.lifecycle import ManagedNode
from slice_ros.ros.parameters import Settings
from slice_ros.serving import Server, Snapshot

# A token is not worth less because a listener was slow: keep plenty, and never block on it.
TOKENS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                    durability=DurabilityPolicy.VOLATILE)
REPORTS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
PROMPTS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
# The default of 10 loses requests without a word when many callers ask at once.
SERVICES = QoSProfile(depth=256, reliability=ReliabilityPolicy.RELIABLE)
LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                    durability=DurabilityPolicy.TRANSIENT_LOCAL)


class SliceNode(ManagedNode):
    """Answers from the first moment on; serves while it is active.

    No callback waits: a request is handed to the server, and what answers it is a coroutine that
    goes on when the serving loop is done. One executor thread is enough for any number of goals.
    """

    def __init__(self, name: str = 'slice', **options) -> None:
        """Make the node. Raises `ParameterError` when its parameters cannot be used."""
        super().__init__(name, **options)
        self._version = version()
        group = self.group
        self._tokens: dict[str, Publisher] = {}
        self._reports = self.create_publisher(msg.SloReport, '~/slo_reports', REPORTS)
        self._states = self.create_publisher(msg.SchedulerState, '~/scheduler_state', LATEST)
        self._diagnostics = Diagnostics(self.get_fully_qualified_name().lstrip('/'))
        self._health = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._add_topics()
        for kind, name, callback in (
                (srv.GenerateText, 'generate_text', self._generate_text),
                (srv.CheckAdmission, 'check_admission', self._check_admission),
                (srv.CancelRequest, 'cancel', self._cancel),
                (srv.GetStatus, 'get_status', self._get_status)):
            self.create_service(kind, f'~/{name}', callback, qos_profile=SERVICES,
                                callback_group=group)
        self._action = ActionServer(
            self, Generate, '~/generate', self._never_started, callback_group=group,
            handle_accepted_callback=self._accepted, cancel_callback=self._cancel_goal,
            goal_service_qos_profile=SERVICES, result_service_qos_profile=SERVICES,
            cancel_service_qos_profile=SERVICES, feedback_pub_qos_profile=TOKENS,
            result_timeout=self.settings.result_timeout_s)
        self._status_timer = self.create_timer(
            self.settings.status_period_s, self._publish_state, callback_group=group)

    def _add_topics(self) -> None:
        """Make the topics of every class that has none; a class that goes keeps its own."""
        for name in self.settings.classes:
            if name not in self._tokens:
                self._tokens[name] = self.create_publisher(msg.TokenChunk, f'~/{name}/tokens',
                                                           TOKENS)
                self.create_subscription(msg.Prompt, f'~/{name}/prompt',
                                         partial(self._prompt, name), PROMPTS,
                                         callback_group=self.group)

    def _reconfigured(self, before: Settings) -> None:
        super()._reconfigured(before)
        self._add_topics()
        self._status_timer.timer_period_ns = int(self.settings.status_period_s * 1e9)

    # -- requests ----------------------------------------------------------------------------

    def _begin(self, goal, name: str, request_id: str = '', feedback=None) -> Call:
        """Hand a request to the server; whatever is wrong with it is in the call returned."""
        slo = refusal = None
        arrival = self.server.clock() if self.server else 0.0
        try:
            request_id = conversions.request_id(request_id)
        except RequestError as error:
            request_id, refusal = '', error
        call = Call(request_id or str(uuid.uuid4()), name, self.get_clock(),
                    self._tokens.get(name), self._reports, self.wake, feedback)
        try:
            if refusal:
                raise refusal
            server = self._ready()
            slo = conversions.slo_class(name, goal, self.settings)
            conversions.check_unserved(goal)
            sampling, stop = conversions.sampling(goal.sampling), conversions.stops(goal.stop)
            server.check(1, goal.max_tokens)
            tokens = server.engine.encode_chat(conversions.messages(goal, self.settings))
            server.submit(slo, tokens, goal.max_tokens, sampling, call, stop=stop,
                          request_id=call.id, arrival=arrival)
        except RequestError as error:
            self.get_logger().warning(
                f'request {call.id} is refused: {error.code.name}: {error.message}',
                throttle_duration_sec=1.0)
            call.refuse(error, slo, arrival)
        return call

    def _ready(self) -> Server:
        if self.server is None:
            how = {'unconfigured': 'the node is not configured: configure and activate it',
                   'failed': 'the model could not be loaded: the log says why'}
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
        handle.execute(partial(self._execute, call))

    async def _execute(self, call: Call, handle: ServerGoalHandle) -> Generate.Result:
        await call.done
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
        await call.done
        return _answer(response, call)

    def _prompt(self, name: str, prompt: msg.Prompt) -> None:
        self._begin(prompt, name, prompt.request_id)

    # -- questions ---------------------------------------------------------------------------

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

    def _publish_state(self) -> None:
        health = DiagnosticArray()
        health.header.stamp = self.get_clock().now().to_msg()
        if self.server is None:
            health.status = self._diagnostics.lone(self.state)
        else:
            snapshot = self.server.snapshot()
            state = self._state_message(snapshot)
            self._states.publish(state)
            health.status = self._diagnostics.statuses(
                time.monotonic(), self.state, self._engine_message(), state, snapshot.delivery)
        self._health.publish(health)


def _request_id(handle: ServerGoalHandle) -> str:
    return str(uuid.UUID(bytes=bytes(handle.goal_id.uuid)))


def _answer(result, call: Call):
    result.request_id, result.text, result.finish_reason = call.id, call.text, call.finish_reason
    result.report, result.error_code, result.error_msg = call.report, int(call.error), call.message
    return result
