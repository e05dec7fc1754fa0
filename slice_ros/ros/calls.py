# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One request in the node, from its first token or its refusal to its report."""

from collections.abc import Callable
import math
import threading
import time

from rclpy.clock import Clock
from rclpy.publisher import Publisher
from slice_ros import msg
from slice_ros.engine import Entries
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request, State
from slice_ros.ros.class_topics import Speaker
from slice_ros.ros.conversions import report_message, session_hash, tool_call_messages
from slice_ros.ros.isolation.boundary import logging_faults, refusal
from slice_ros.ros.isolation.executor import Awaited
from slice_ros.serving import Delivery
from slice_ros.slo import SloClass

NO_LOGPROBS = msg.TokenLogprobs()
_MAX_TOKEN_BYTES = 65535   # of the text of a token in them


class Call:
    """Publishes the tokens of one request, and keeps the answer for a coroutine on `done`.

    An instance is the `on_output` of its request: the server's delivery thread calls it, and it
    publishes in that thread. It ends once: with the last delivery or by `refuse`, whichever comes
    first, and what comes later is ignored. Nothing is published before `publish_on`. `feedback`
    is called for each token, as `callers.goal_server.Feedback` says.
    `ended` is called once everything is published, `wake` after `done` is complete, since that
    does not wake an executor in another thread. No fault of any of these withholds the answer.
    """

    def __init__(self, request_id: str, slo_class: str, clock: Clock,
                 wake: Callable[[], None], ended: Callable[['Call'], None],
                 feedback: Callable[[str, str, msg.TokenLogprobs, int, int, float], None] | None
                 = None) -> None:
        self.id, self.slo_class = request_id, slo_class   # the class that was asked for
        self.slo: SloClass | None = None   # the class with the objectives; None while unknown
        self.arrival = 0.0                 # when it was received, on the server's clock
        self.count: Callable[[Request], None] | None = None   # in its class; known with `slo`
        self.submitted = False             # the server has it, and counts it
        self.session_id = ''
        self.door = 'action' if feedback else 'topic'   # or 'service': how it came in
        self.done = Awaited()   # completed with None; the answer is in the fields below
        self.text = self.reasoning = ''
        self.logprobs = msg.TokenLogprobs()
        self.tool_calls: list[msg.ToolCall] = []
        self.finish_reason = ''
        self.error = ErrorCode.NONE
        self.message = ''
        self.report = msg.SloReport(request_id=request_id)
        self._clock, self._wake, self._ended, self._feedback = clock, wake, ended, feedback
        self._tokens: Publisher | None = None
        self._reports: Publisher | None = None
        self._speaker: Speaker | None = None
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._chunk = msg.TokenChunk(request_id=request_id)  # reused for each token
        self._received = clock.now().to_msg()
        self._lock = threading.Lock()   # of what is published, and of the end
        self._over = False

    def publish_on(self, tokens: Publisher | None, reports: Publisher,
                   speaker: Speaker | None) -> None:
        """Publish from now on; `tokens` and `speaker` are None for an unknown class."""
        self._tokens, self._reports, self._speaker = tokens, reports, speaker

    def __call__(self, delivery: Delivery) -> bool:
        """Publish a delivery; return whether there was a receiver.

        Raises what ends the request when publishing fails, for the server to cancel it.
        """
        with self._lock:
            if self._over:
                return False
            received, failure = False, None
            try:
                received = self._publish(delivery)
            except BaseException as error:  # native code may raise more than `Exception`
                failure = refusal(error, f'publishing the answer {self.id}')
            if delivery.finish_reason is not None:
                self._finish(delivery.request, delivery.finish_reason, delivery.error,
                             delivery.message)
            elif failure is not None:
                self._refuse(failure, 'error')
                raise failure
            return received

    def refuse(self, error: RequestError, reason: str = 'error') -> None:
        """End a request that the server has not, or not yet, ended."""
        with self._lock:
            if not self._over:
                self._refuse(error, reason)

    def _refuse(self, error: RequestError, reason: str) -> None:
        request = None
        with logging_faults(f'the refusal of {self.id}'):
            chunk = self._chunk
            chunk.stamp, chunk.finished, chunk.finish_reason = self._received, True, reason
            chunk.sequence, chunk.text, chunk.reasoning = len(self._pieces), '', ''
            chunk.logprobs = NO_LOGPROBS
            chunk.error_code, chunk.error_msg = int(error.code), error.message
            if self.slo is not None:
                cancelled = error.code is ErrorCode.CANCELLED
                request = Request(
                    self.id, self.slo, self.arrival, 0, 0, error=error.code,
                    state=State.CANCELLED if cancelled else State.REJECTED,
                    ended_at=self.arrival, session_id=self.session_id)
                if not self.submitted:
                    self.count(request)
            if self._tokens is not None:
                self._tokens.publish(chunk)
        self._finish(request, reason, error.code, error.message)

    def _publish(self, delivery: Delivery) -> bool:
        chunk, received = self._chunk, self._feedback is not None
        last = delivery.finish_reason is not None
        self._pieces.append(delivery.text)
        if delivery.reasoning:
            self._thoughts.append(delivery.reasoning)
        ranks = NO_LOGPROBS
        if delivery.logprobs:
            ranks = _logprobs_message(delivery.logprobs)
            _extend(self.logprobs, ranks)
        if last:
            chunk.finished = True
            chunk.finish_reason = delivery.finish_reason
            chunk.tool_calls = self.tool_calls = tool_call_messages(delivery.tool_calls)
            chunk.error_code, chunk.error_msg = int(delivery.error), delivery.message
        if self._tokens is not None and self._tokens.get_subscription_count():
            # The time at which the engine had sampled it, not the time of publishing.
            age = int((time.monotonic() - delivery.at) * 1e9)
            nanoseconds = max(self._clock.now().nanoseconds - age, 0)
            chunk.stamp.sec, chunk.stamp.nanosec = divmod(nanoseconds, 10**9)
            chunk.sequence, chunk.text = delivery.number, delivery.text
            chunk.reasoning, chunk.logprobs = delivery.reasoning, ranks
            chunk.tokens = delivery.tokens
            self._tokens.publish(chunk)
            received = True
        if self._speaker is not None and not delivery.error:
            self._speaker.publish(self._pieces, last)
        if self._feedback is not None and (delivery.text or not delivery.error):
            self._feedback(delivery.text, delivery.reasoning, ranks, delivery.number,
                           delivery.tokens, _predicted_completion_ms(delivery))
        return received

    def _finish(self, request: Request | None, reason: str, error: ErrorCode,
                message: str) -> None:
        """Publish the report and complete `done`; without a request there is no report."""
        self._over = True
        self.text, self.reasoning = ''.join(self._pieces), ''.join(self._thoughts)
        self.finish_reason, self.error, self.message = reason, error, message
        with logging_faults(f'the report of {self.id}'):
            report = self.report
            report.stamp, report.finish_reason = self._received, reason
            report.error_code, report.error_msg = int(error), message
            report.session_id = session_hash(self.session_id)
            if request is not None:
                self.report = report_message(request.report(), self.slo_class, self._received,
                                             reason, error, message)
                if self._reports is not None:
                    self._reports.publish(self.report)
        with logging_faults(f'the end of {self.id}'):
            self._ended(self)
        self.done.set_result(None)
        self._wake()


def _predicted_completion_ms(delivery: Delivery) -> float:
    request, tokens = delivery.request, delivery.tokens
    if tokens < 2:
        return math.nan  # the time of one token does not predict the next
    tpot = (delivery.at - request.first_token_at) / (tokens - 1)
    return (delivery.at - request.arrival + (request.max_tokens - tokens) * tpot) * 1e3


def _logprobs_message(ranks: tuple[Entries, ...]) -> msg.TokenLogprobs:
    """Return the log-probabilities of consecutive tokens, as many entries for each."""
    entries = [entry for of_token in ranks for entry in of_token]
    texts = [entry.text[:_MAX_TOKEN_BYTES] for entry in entries]
    return msg.TokenLogprobs(
        top=len(ranks[0]) - 1, tokens=[entry.token for entry in entries],
        logprobs=[entry.logprob for entry in entries],
        special=[entry.special for entry in entries], sizes=list(map(len, texts)),
        texts=b''.join(texts))


def _extend(whole: msg.TokenLogprobs, piece: msg.TokenLogprobs) -> None:
    """Add those of the tokens that follow."""
    whole.top = piece.top
    for name in ('tokens', 'logprobs', 'special', 'sizes', 'texts'):
        getattr(whole, name).extend(getattr(piece, name))
