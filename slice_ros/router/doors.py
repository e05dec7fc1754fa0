# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The ways in, as of a slice node: requests, predictions, embeddings and cancels."""

from collections.abc import Callable
import time
import uuid

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from slice_ros import srv
from slice_ros.action import Generate
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.ros.callers.goal_server import answered, Feedback, GoalServer
from slice_ros.ros.isolation import contents
from slice_ros.ros.isolation.executor import Awaited
from slice_ros.ros.qos import SERVICES
from slice_ros.router.forwarding import ELSEWHERE, Forwarding
from slice_ros.router.link import Link, MOST_EMBEDDING
from slice_ros.router.node_choice import Forecast, objectives, soonest
from slice_ros.router.routed_call import RoutedCall
from slice_ros.slo import SloClass

MAX_ID = 128   # characters of a request id
ENDS = 'the router ends: start it again'
FIELDS = tuple(Generate.Goal.get_fields_and_field_types())


class Doors:
    """Takes requests in for `forwarding`, and answers their callers; no callback waits."""

    def __init__(self, node: Node, group: CallbackGroup, forwarding: Forwarding,
                 result_timeout: int) -> None:
        self._node, self._forwarding = node, forwarding
        self._embedding, self._closed = 0, False   # calls of ~/embed
        for kind, name, callback in ((srv.GenerateText, 'generate_text', self._generate_text),
                                     (srv.CheckAdmission, 'check_admission', self._admission),
                                     (srv.Embed, 'embed', self._embed),
                                     (srv.CancelRequest, 'cancel', self._cancel)):
            node.create_service(kind, f'~/{name}', callback, qos_profile=SERVICES,
                                callback_group=group)
        self._goals = GoalServer(node, group, self._begin_goal, forwarding.cancel, result_timeout)

    @property
    def waiting(self) -> int:
        """How many callers have no answer yet."""
        return self._goals.waiting + self._embedding

    def close(self) -> None:
        """End the calls of ~/embed, and take none any more."""
        self._closed = True
        answer = srv.Embed.Response(error_code=ErrorCode.SHUTTING_DOWN, error_msg=ENDS)
        for link in self._forwarding.links.values():
            link.end_embedding(answer)

    def _begin_goal(self, goal: Generate.Goal, slo_class: str, request_id: str,
                    feedback: Feedback) -> RoutedCall:
        return self._begin(contents.taken(goal), request_id, 'action', feedback)

    def _begin(self, goal: Generate.Goal, request_id: str, door: str,
               feedback: Feedback | None = None) -> RoutedCall:
        """Take in a request; the call that is returned carries any refusal."""
        forwarding, stamp = self._forwarding, self._node.get_clock().now().to_msg()
        slo, refusal = SloClass('none'), None
        try:
            slo = self._checked(goal, request_id)
        except RequestError as error:
            refusal = error
        if len(request_id) > MAX_ID or not request_id.isprintable():
            request_id = ''
        call = RoutedCall(request_id or str(uuid.uuid4()), goal, slo, door, stamp, feedback)
        if refusal is None:
            forwarding.begin(call)
        else:
            call.fail(refusal.code, refusal.message)
        return call

    def _checked(self, goal: Generate.Goal, request_id: str) -> SloClass:
        """Return the objectives of a goal. Raises `RequestError` when it is not taken in."""
        if len(request_id) > MAX_ID or not request_id.isprintable():
            raise RequestError(ErrorCode.INVALID_REQUEST, 'request_id must be printable and have '
                               f'{MAX_ID} characters at most')
        if request_id in self._forwarding.live:
            raise RequestError(ErrorCode.INVALID_REQUEST, f'a request with the id {request_id!r} '
                               'is live: choose another id')
        self._forwarding.check_room()
        return self._objectives(goal)

    def _objectives(self, asked) -> SloClass:
        return objectives(asked, self._forwarding.classes().get(asked.slo_class))

    async def _generate_text(self, request, response):
        goal = Generate.Goal(**{name: getattr(request, name) for name in FIELDS})
        call = self._begin(goal, request.request_id, 'service')
        await self._goals.end_of(call)
        return answered(response, call)

    # -- ~/check_admission ---------------------------------------------------------------------

    async def _admission(self, request, response):
        """Ask every node, and answer as the one that a request would be sent to."""
        links = [link for link in self._forwarding.links.values() if link.usable]
        if not links:
            raise RequestError(ErrorCode.NOT_READY, 'no node serves now')
        slo, begin = self._objectives(request), time.monotonic()
        answers = {}
        for link, asked in [(link, _ask(link, request)) for link in links]:
            answers[link.name] = link, await asked
        answers = {name: each for name, each in answers.items() if each[1] is not None}
        if not answers:
            raise RequestError(ErrorCode.NOT_READY, 'no node has answered within '
                               f'{time.monotonic() - begin:.1f} s')
        forecasts = {name: (Forecast(each.feasible, each.ttft_ms, each.completion_ms),
                            link.delay_ms) for name, (link, each) in answers.items()
                     if each.error_code == ErrorCode.NONE}
        link, answer = answers[soonest(forecasts, slo) if forecasts else next(iter(answers))]
        answer.ttft_ms += link.delay_ms
        answer.completion_ms += link.delay_ms
        return answer

    # -- ~/embed -------------------------------------------------------------------------------

    async def _embed(self, request, response):
        """Answer as the first node that computes embeddings: others may have another model."""
        self._embedding += 1
        try:
            return await self._embedded(request)
        finally:
            self._embedding -= 1

    async def _embedded(self, request: srv.Embed.Request) -> srv.Embed.Response:
        refusal = None
        for link in self._forwarding.links.values():
            if self._closed:
                raise RequestError(ErrorCode.SHUTTING_DOWN, ENDS)
            if not link.embeds:
                continue
            if link.embedding >= MOST_EMBEDDING:
                raise RequestError(ErrorCode.QUEUE_FULL, f'{link.name} computes {MOST_EMBEDDING} '
                                   'lists of texts for the router: send fewer, or later')
            future = Awaited()
            link.embed(request, future.set_result)
            answer = await future
            if answer is not None and answer.error_code not in ELSEWHERE:
                return answer
            refusal = answer or refusal
        if refusal is None:
            raise RequestError(ErrorCode.NOT_READY, 'no node computes embeddings now')
        return refusal

    # -- ~/cancel ------------------------------------------------------------------------------

    def _cancel(self, request, response):
        if bool(request.request_id) == bool(request.slo_class):
            raise RequestError(ErrorCode.INVALID_REQUEST,
                               'give exactly one of request_id and slo_class')
        why = ('cancelled through ~/cancel' if request.request_id
               else 'its class was cancelled through ~/cancel')
        ids = [call.id for call in self._forwarding.live.values()
               if request.request_id == call.id or request.slo_class == call.slo_class]
        response.cancelled = [each for each in ids if self._forwarding.cancel(each, why)]
        return response


def _ask(link: Link, request: srv.CheckAdmission.Request) -> Awaited:
    """Return a future of the answer of a node; None when it does not come in time."""
    future = Awaited()
    wanted: Callable[[srv.CheckAdmission.Response | None], object] = future.set_result
    link.ask(request, wanted)
    return future
