# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One request in the router, and its report: times count from when the router received it."""

from collections.abc import Callable
import math
import time

from builtin_interfaces.msg import Time
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.client.answer import rest_of
from slice_ros.client.exceptions import SliceError
from slice_ros.client.token_logprobs import logprobs_behind
from slice_ros.errors import ErrorCode
from slice_ros.ros.isolation.executor import Awaited
from slice_ros.router.link import Link
from slice_ros.slo import SloClass


class RoutedCall:
    """A live request: what was asked, who has been tried, and the answer once `done` is complete.

    `feedback` is called for each piece, as `ros.callers.goal_server.Feedback` says; a caller
    without it receives nothing before the end.
    """

    def __init__(self, request_id: str, goal, slo: SloClass, door: str, stamp: Time,
                 feedback: Callable[[str, str, msg.TokenLogprobs, int, int, float], None] | None
                 = None) -> None:
        self.id, self.goal, self.slo, self.door = request_id, goal, slo, door
        self.slo_class = goal.slo_class
        self.received, self.stamp = time.monotonic(), stamp
        self.tried: set[str] = set()      # nodes that were sent the request
        self.attempt = None               # the `Attempt` that is under way
        self.opens_session = False        # no node has its conversation yet
        self.refusal: Generate.Result | None = None   # of the last node that was tried
        self.offset_ms = 0.0              # from its receipt to that by the node, and the link
        self.text = self.reasoning = ''   # received from the node that is under way
        self.ranked = 0                   # entries of log-probabilities received from it
        self.logprobs = msg.TokenLogprobs()
        self.tool_calls: list[msg.ToolCall] = []
        self.streamed = 0                 # pieces that the caller has received
        self.tokens, self.first_ms, self.last_ms = 0, math.nan, math.nan
        self.done = Awaited()             # completed with None; the answer is in these fields:
        self.finish_reason, self.error, self.message = '', ErrorCode.NONE, ''
        self.report = msg.SloReport(request_id=request_id)
        self._feedback = feedback

    @property
    def age_ms(self) -> float:
        """Time since the router received it."""
        return (time.monotonic() - self.received) * 1e3

    def begin(self, attempt, link_ms: float) -> None:
        """Start over with another node."""
        self.attempt, self.text, self.reasoning, self.tokens = attempt, '', '', 0
        self.ranked = 0
        self.first_ms = self.last_ms = math.nan
        self.offset_ms = self.age_ms + link_ms

    def add(self, piece: Generate.Feedback) -> None:
        """Pass a piece of the answer on."""
        self.text += piece.text
        self.reasoning += piece.reasoning
        self.ranked += len(piece.logprobs.tokens)
        self.tokens, self.last_ms = piece.tokens, self.age_ms
        if math.isnan(self.first_ms):
            self.first_ms = self.last_ms
        if self._feedback is not None:
            self._feedback(piece.text, piece.reasoning, piece.logprobs, self.streamed,
                           piece.tokens, piece.predicted_completion_ms + self.offset_ms)
            self.streamed += 1

    def finish(self, result: Generate.Result) -> None:
        """End it with the result of a node."""
        rest, thought = rest_of(result.text, self.text), rest_of(result.reasoning, self.reasoning)
        if (rest or thought) and self._feedback is not None:   # the result has overtaken them
            self._feedback(rest, thought, logprobs_behind(result.logprobs, self.ranked),
                           self.streamed, result.report.output_tokens,
                           result.report.completion_ms + self.offset_ms)
        self.text, self.tool_calls = result.text, result.tool_calls
        self.reasoning, self.logprobs = result.reasoning, result.logprobs
        if result.report.slo.name:   # else no node has begun to serve it
            self.report = self._corrected(result.report)
        else:
            self.report = self._own_report()
        self._end(result.finish_reason, result.error_code, result.error_msg)

    def fail(self, code: ErrorCode, message: str) -> None:
        """End it without a result of a node."""
        self.report = self._own_report()
        self._end('cancelled' if code is ErrorCode.CANCELLED else 'error', code, message)

    def _end(self, reason: str, code: int, message: str) -> None:
        report = self.report
        report.stamp, report.request_id = self.stamp, self.id
        report.requested_class, report.elapsed_ms = self.slo_class, self.age_ms
        report.finish_reason, report.error_code, report.error_msg = reason, int(code), message
        known = code in set(ErrorCode)
        self.finish_reason, self.message = reason, message
        self.error = ErrorCode(code) if known else ErrorCode.ENGINE_FAILURE
        self.done.set_result(None)

    def _own_report(self) -> msg.SloReport:
        """Return a report with what the router has measured itself."""
        report = msg.SloReport(
            slo=self._slo_message(msg.SloClass(name=self.slo.name)), output_tokens=self.tokens,
            ttft_ms=self.first_ms, tpot_ms=math.nan, completion_ms=self.last_ms,
            max_gap_ms=math.nan)
        self._set_met(report)
        return report

    def _corrected(self, report: msg.SloReport) -> msg.SloReport:
        """Return the report of a node with the objectives and the times of the router."""
        report.ttft_ms += self.offset_ms
        report.answer_ms += self.offset_ms
        report.completion_ms += self.offset_ms
        if report.slo.name == self.slo.name:   # else a node has degraded it, and says to what
            report.slo = self._slo_message(report.slo)
        self._set_met(report)
        return report

    def _slo_message(self, slo: msg.SloClass) -> msg.SloClass:
        return msg.SloClass(
            name=slo.name, ttft_ms=float(self.slo.ttft_ms), tpot_ms=float(self.slo.tpot_ms),
            deadline_ms=float(self.slo.deadline_ms), utility=float(self.slo.utility))

    def _set_met(self, report: msg.SloReport) -> None:
        slo = report.slo
        report.ttft_met = not slo.ttft_ms or report.ttft_ms <= slo.ttft_ms
        report.tpot_met = not slo.tpot_ms or report.tpot_ms <= slo.tpot_ms
        report.deadline_met = not slo.deadline_ms or report.completion_ms <= slo.deadline_ms
        report.attained = (report.served and report.ttft_met and report.tpot_met
                           and report.deadline_met)


class Attempt:
    """A call at one node: what a `GenerateClient` fills like an `AnswerBuffer`."""

    def __init__(self, link: Link, call: RoutedCall,
                 answered: Callable[['Attempt', Generate.Result], None], due: float) -> None:
        self.request_id, self.link, self.call = link.goals.new_request_id(), link, call
        self.done, self.due = False, due   # when a first token is overdue, on the patient clock
        self._answered, self._expected = answered, 0

    def feed(self, piece: Generate.Feedback) -> None:
        """Pass a piece on; one out of order is dropped."""
        self.link.sign()
        if self.call.attempt is self and piece.sequence == self._expected:
            self._expected += 1
            self.call.add(piece)

    def finish(self, result: Generate.Result) -> None:
        """Take the result of the node."""
        self.link.sign()
        if not self.done:
            self.done = True
            self._answered(self, result)

    def end(self, error: SliceError | None) -> None:
        """End without a result: the node is gone, or the call does not want it any more."""
        if not self.done:
            self.done = True
            self._answered(self, Generate.Result(
                error_code=int(ErrorCode.NOT_READY), error_msg=str(error or ''),
                finish_reason='error'))
