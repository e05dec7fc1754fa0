# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One request in the node, from its first token or its refusal to its report."""

from collections.abc import Callable
import math
import time

from rclpy.clock import Clock
from rclpy.publisher import Publisher
from rclpy.task import Future
from slice_ros import msg
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request, State
from slice_ros.ros.conversions import report_message
from slice_ros.ros.speech import Speaker
from slice_ros.serving import Delivery
from slice_ros.slo import SloClass


class Call:
    """Publishes the tokens of one request, and keeps the answer for a coroutine on `done`.

    An instance is the `on_output` of its request: the server's delivery thread calls it, and it
    publishes in that thread. `slo_class` is the requested class. `tokens` and `reports` are
    publishers; `tokens` is None for an unknown class. `speaker` gets the text. `feedback` is
    called with (text, number, tokens, predicted completion in ms) for each token. `wake` is
    called after `done`, since completing a future does not wake an executor in another thread.
    """

    def __init__(self, request_id: str, slo_class: str, clock: Clock,
                 tokens: Publisher | None, reports: Publisher, wake: Callable[[], None],
                 feedback: Callable[[str, int, int, float], None] | None = None,
                 speaker: Speaker | None = None) -> None:
        self.id, self.slo_class = request_id, slo_class
        self.session_id = ''
        self.door = 'action' if feedback else 'topic'   # or 'service': how it came in
        self.done: Future = Future()   # completed with None; the answer is in the fields below
        self.text = ''
        self.finish_reason = ''
        self.error = ErrorCode.NONE
        self.message = ''
        self.report = msg.SloReport(request_id=request_id)
        self._clock, self._tokens, self._reports = clock, tokens, reports
        self._wake, self._feedback, self._speaker = wake, feedback, speaker
        self._pieces: list[str] = []
        self._chunk = msg.TokenChunk(request_id=request_id)  # reused for each token
        self._received = clock.now().to_msg()

    def __call__(self, delivery: Delivery) -> bool:
        """Publish a delivery; return whether there was a receiver."""
        request, chunk, received = delivery.request, self._chunk, self._feedback is not None
        last = delivery.finish_reason is not None
        self._pieces.append(delivery.text)
        if last:
            chunk.finished = True
            chunk.finish_reason = delivery.finish_reason
            chunk.error_code, chunk.error_msg = int(delivery.error), delivery.message
        if self._tokens is not None and self._tokens.get_subscription_count():
            # The time at which the engine had sampled it, not the time of publishing.
            age = int((time.monotonic() - delivery.at) * 1e9)
            nanoseconds = max(self._clock.now().nanoseconds - age, 0)
            chunk.stamp.sec, chunk.stamp.nanosec = divmod(nanoseconds, 10**9)
            chunk.sequence, chunk.text = delivery.number, delivery.text
            chunk.tokens = delivery.tokens
            self._tokens.publish(chunk)
            received = True
        if self._speaker is not None and not delivery.error:
            self._speaker.publish(self._pieces, last)
        if self._feedback is not None and (delivery.text or not delivery.error):
            self._feedback(delivery.text, delivery.number, delivery.tokens,
                           _predicted_completion_ms(delivery))
        if last:
            self._finish(request, delivery.finish_reason, delivery.error, delivery.message)
        return received

    def refuse(self, error: RequestError, slo: SloClass | None, arrival: float) -> None:
        """End a request that was refused; `slo` is None when its class is unknown."""
        chunk = self._chunk
        chunk.stamp, chunk.finished, chunk.finish_reason = self._received, True, 'error'
        chunk.error_code, chunk.error_msg = int(error.code), error.message
        if self._tokens is not None:
            self._tokens.publish(chunk)
        request = None
        if slo is not None:
            request = Request(self.id, slo, arrival, 0, 0, error=error.code,
                              state=State.REJECTED, ended_at=arrival,
                              session_id=self.session_id)
        self._finish(request, 'error', error.code, error.message)

    def _finish(self, request: Request | None, reason: str, error: ErrorCode,
                message: str) -> None:
        self.text = ''.join(self._pieces)
        self.finish_reason, self.error, self.message = reason, error, message
        if request is not None:
            self.report = report_message(request.report(), self.slo_class, self._received,
                                         reason, error, message)
            self._reports.publish(self.report)
        else:
            self.report.stamp, self.report.finish_reason = self._received, reason
            self.report.session_id = self.session_id
            self.report.error_code, self.report.error_msg = int(error), message
        self.done.set_result(None)
        self._wake()


def _predicted_completion_ms(delivery: Delivery) -> float:
    request, tokens = delivery.request, delivery.tokens
    if tokens < 2:
        return math.nan  # the time of one token does not predict the next
    tpot = (delivery.at - request.first_token_at) / (tokens - 1)
    return (delivery.at - request.arrival + (request.max_tokens - tokens) * tpot) * 1e3
