# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The ways in: the action, the service and the prompt topics, and ~/cancel, each a few lines."""

from collections.abc import Callable
from functools import partial
import time
import uuid

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from slice_ros import msg, srv
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.ros import conversions
from slice_ros.ros.callers import goal_server
from slice_ros.ros.calls import Call
from slice_ros.ros.class_topics import ClassTopics
from slice_ros.ros.host import Host
from slice_ros.ros.isolation import bounds, camera_images, contents
from slice_ros.ros.isolation.boundary import answering, logging_faults
from slice_ros.ros.isolation.workers import Workers
from slice_ros.ros.parameters import Parameters, Settings
from slice_ros.ros.preparation import Preparation
from slice_ros.ros.qos import NO_EVENTS, REPORTS, SERVICES

LOG_EVERY = 1.0   # seconds between two log sentences about refusals


class Requests:
    """Submits requests to the server of `host`, and answers their callers.

    No callback waits: a request is read by one of `workers`, and its answer is a coroutine that
    continues when it has ended. One executor thread serves any number of goals. `wake_gate` is
    called before a request is read, `submitted` when it has become live (by a worker),
    `wake_executor` after one has ended.
    """

    def __init__(self, node: Node, host: Host, parameters: Parameters, group: CallbackGroup,
                 workers: Workers, wake_gate: Callable[[], None],
                 submitted: Callable[[], None], wake_executor: Callable[[], None]) -> None:
        self.live: dict[str, Call] = {}    # calls that have not ended, by request id
        self.preparation = Preparation(workers, submitted)
        self._node, self._host, self._parameters = node, host, parameters
        self._wake_gate, self._wake_executor = wake_gate, wake_executor
        self._silent_until = 0.0           # when the next refusal is logged
        self._reports = node.create_publisher(msg.SloReport, '~/slo_reports', REPORTS,
                                              event_callbacks=NO_EVENTS)
        self._topics = ClassTopics(node, group, self._on_prompt)
        for name in parameters.settings.classes:
            self._topics.create(name)
        for kind, name, callback in ((srv.GenerateText, 'generate_text', self._generate_text),
                                     (srv.CancelRequest, 'cancel', self._cancel)):
            node.create_service(kind, f'~/{name}', callback, qos_profile=SERVICES,
                                callback_group=group)
        self._goals = goal_server.GoalServer(node, group, self._begin, self.cancel,
                                             parameters.settings.result_timeout_s)

    @property
    def waiting(self) -> int:
        """How many callers have no answer yet."""
        return self._goals.waiting

    @property
    def busy(self) -> bool:
        """Whether a request is being read or served."""
        return bool(self.preparation) or self._host.busy()

    def reconfigure(self, before: Settings, after: Settings) -> None:
        """Create the topics of new classes."""
        self._topics.add(after.classes)

    def drop_unused_topics(self) -> None:
        """Destroy the topics of classes that are gone and have no live request.

        Call it periodically; see `ClassTopics.drop_unused`.
        """
        live = {call.slo_class for call in list(self.live.values())}
        self._topics.drop_unused(live | self._parameters.settings.classes.keys())

    # -- taking in -----------------------------------------------------------------------------

    def _begin(self, goal, name: str, request_id: str = '', feedback=None) -> Call:
        """Take in a request of class `name`; the call that is returned carries any refusal."""
        try:
            call = Call(request_id if request_id and bounds.is_id(request_id)
                        else str(uuid.uuid4()), name[:bounds.MAX_NAME], self._node.get_clock(),
                        self._wake_executor, self._ended, feedback)
            with answering(partial(self._refuse, call), 'taking in a request'):
                self._take_in(call, goal, name, request_id)
        finally:
            contents.empty(goal)   # whoever received it may keep it for minutes
        return call

    def _take_in(self, call: Call, goal, name: str, request_id: str) -> None:
        """Check what lengths alone tell, and leave the rest to a worker. Raises `RequestError`."""
        settings, live = self._parameters.settings, call.id in self.live
        if not live:   # else nothing is published, under the id of another
            self.live[call.id] = call
            if name in settings.classes:
                self._topics.create(name)
            tokens, speaker = self._topics.publishers(call.slo_class, settings.language)
            call.publish_on(tokens, self._reports, speaker)
        server = self._host.serving()
        call.arrival, call.count = server.clock(), server.count
        call.slo = settings.classes.get(name)   # from now on a refusal counts
        if live:
            raise bounds.invalid(f'a request with the id {call.id!r} is live: choose another id')
        bounds.check_id('request_id', request_id)
        call.slo = conversions.slo_class(name, goal, settings)
        bounds.check_request(goal, settings.max_messages, settings.max_text_bytes)
        camera_images.check_images(goal)
        call.session_id = conversions.session_id(goal)
        server.check(1, goal.max_tokens)
        self._wake_gate()
        self.preparation.begin(call, contents.taken(goal), server, settings)

    def _refuse(self, call: Call, error: RequestError) -> None:
        now = time.monotonic()   # rclpy looks for the calling line first: 2 ms a suppressed log
        if now >= self._silent_until:
            self._silent_until = now + LOG_EVERY
            with logging_faults('logging a refusal'):
                self._node.get_logger().warning(
                    f'request {call.id} is refused: {error.code.name}: {error.message}')
        self.preparation.forget(call)
        call.refuse(error)

    def _ended(self, call: Call) -> None:
        """Free the id of a call; called in the thread that ended it."""
        if self.live.get(call.id) is call:
            del self.live[call.id]

    # -- the prompt topics and the service -----------------------------------------------------

    def _on_prompt(self, name: str, prompt: msg.Prompt) -> None:
        with logging_faults('taking in a prompt'):
            self._begin(prompt, name, prompt.request_id)

    async def _generate_text(self, request, response):
        call = self._begin(request, request.slo_class, request.request_id)
        call.door = 'service'
        await self._goals.end_of(call)
        return goal_server.answered(response, call)

    # -- ~/cancel ------------------------------------------------------------------------------

    async def _cancel(self, request, response):
        """End requests, and list those that really ended by it once they have."""
        server, name = self._host.serving(), request.slo_class
        if bool(request.request_id) == bool(name):
            raise bounds.invalid('give exactly one of request_id and slo_class')
        if name and name not in self._parameters.settings.classes:
            raise RequestError(ErrorCode.UNKNOWN_SLO_CLASS,
                               f'there is no class {name[:bounds.MAX_NAME]!r}')
        if name:
            why = 'its class was cancelled through ~/cancel'
            calls = dict(self.live)   # before: one that ends at once is not in it any more
            ids = [i for i in self.preparation.of_class(name) if self.preparation.cancel(i, why)]
            ids += server.cancel_class(name, why)
        else:
            bounds.check_id('request_id', request.request_id)
            calls = dict(self.live)
            ids = [request.request_id] * self.cancel(request.request_id,
                                                     'cancelled through ~/cancel')
        for call in [calls[i] for i in ids if i in calls]:
            await call.done
        response.cancelled = [i for i in dict.fromkeys(ids)
                              if i not in calls or calls[i].error is ErrorCode.CANCELLED]
        return response

    def cancel(self, request_id: str, why: str) -> bool:
        """End a request; return whether it was live until now."""
        server = self._host.server
        return (self.preparation.cancel(request_id, why)
                or server is not None and server.cancel(request_id, why))
