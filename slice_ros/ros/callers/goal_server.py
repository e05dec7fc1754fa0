# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The server side of the action ~/generate: goals in, feedback and results out."""

from collections.abc import Callable
from functools import partial
from typing import Protocol
import uuid

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.ros.isolation.boundary import answering, logging_faults
from slice_ros.ros.qos import SERVICES, TOKENS

# Text of the answer, of the thought, log-probabilities, number, tokens, predicted ms.
Feedback = Callable[[str, str, msg.TokenLogprobs, int, int, float], None]


class EndedCall(Protocol):
    """What is read of a call; all but `id` and `done` once `done` is complete."""

    id: str
    done: Future
    text: str
    reasoning: str
    logprobs: msg.TokenLogprobs
    tool_calls: list[msg.ToolCall]
    finish_reason: str
    report: msg.SloReport
    error: ErrorCode
    message: str


class GoalServer:
    """Accepts every goal, and answers it when its call has ended.

    `begin(goal, slo_class, request_id, feedback)` takes in a request and returns its call, which
    carries any refusal. `cancel(request_id, why)` ends one, and returns whether it was live.
    """

    def __init__(self, node: Node, group: CallbackGroup,
                 begin: Callable[[Generate.Goal, str, str, Feedback], EndedCall],
                 cancel: Callable[[str, str], bool], result_timeout: int) -> None:
        self.waiting = 0   # callers without an answer yet
        self._begin, self._cancel = begin, cancel
        self.action = ActionServer(
            node, Generate, '~/generate', self._never_called, callback_group=group,
            handle_accepted_callback=self._accepted, cancel_callback=self._cancel_goal,
            goal_service_qos_profile=SERVICES, result_service_qos_profile=SERVICES,
            cancel_service_qos_profile=SERVICES, feedback_pub_qos_profile=TOKENS,
            result_timeout=result_timeout)

    async def end_of(self, call: EndedCall) -> None:
        """Wait for the end of a call, and count its caller meanwhile."""
        self.waiting += 1
        try:
            await call.done
        finally:
            self.waiting -= 1

    def _accepted(self, handle: ServerGoalHandle) -> None:
        call, failed = None, []
        with answering(failed.append, 'accepting a goal'):
            call = self._begin(handle.request, handle.request.slo_class, _request_id(handle),
                               partial(_publish_feedback, handle, Generate.Feedback()))
            handle.execute(partial(self._execute, call))
            return
        if call is not None:
            self._cancel(call.id, 'its goal cannot be executed')
        handle.execute(partial(_abort, *failed))

    async def _execute(self, call: EndedCall, handle: ServerGoalHandle) -> Generate.Result:
        failed = []
        with answering(failed.append, 'answering a goal'):
            await self.end_of(call)
            result = answered(Generate.Result(), call)
            if call.error is ErrorCode.NONE:
                handle.succeed()
            elif call.error is ErrorCode.CANCELLED and handle.is_cancel_requested:
                handle.canceled()
            else:
                handle.abort()
            return result
        return await _abort(*failed, handle)

    async def _never_called(self, handle: ServerGoalHandle) -> Generate.Result:
        raise AssertionError('every goal is executed by a callback of its own')

    def _cancel_goal(self, handle: ServerGoalHandle) -> CancelResponse:
        with logging_faults('cancelling a goal'):
            if self._cancel(_request_id(handle), 'cancelled by its caller'):
                return CancelResponse.ACCEPT
        return CancelResponse.REJECT  # it has ended already


def answered(result, call: EndedCall):
    """Return a result or a response with what came of a call that has ended."""
    result.request_id, result.text, result.finish_reason = call.id, call.text, call.finish_reason
    result.tool_calls, result.reasoning = call.tool_calls, call.reasoning
    result.logprobs = call.logprobs
    result.report, result.error_code, result.error_msg = call.report, int(call.error), call.message
    return result


def _request_id(handle: ServerGoalHandle) -> str:
    return str(uuid.UUID(bytes=bytes(handle.goal_id.uuid)))


def _publish_feedback(handle: ServerGoalHandle, feedback: Generate.Feedback, text: str,
                      reasoning: str, logprobs: msg.TokenLogprobs, number: int, tokens: int,
                      predicted_ms: float) -> None:
    feedback.text, feedback.sequence, feedback.tokens = text, number, tokens
    feedback.reasoning, feedback.predicted_completion_ms = reasoning, predicted_ms
    feedback.logprobs = logprobs
    handle.publish_feedback(feedback)


async def _abort(error: RequestError, handle: ServerGoalHandle) -> Generate.Result:
    """Return the result of a goal that failed outside the server; rclpy aborts it."""
    return Generate.Result(request_id=_request_id(handle), finish_reason='error',
                           error_code=int(error.code), error_msg=error.message)
