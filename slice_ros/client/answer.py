# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One answer, its pieces and its whole, passed from the executor to a reader.

The pieces in their order are the text of the answer, also when feedback is lost or late: a piece
out of order is dropped, and the text that only the result has becomes the last piece.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import cached_property
import json
import threading
from typing import Any

from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.client.exceptions import error_for, SliceError
from slice_ros.client.token_logprobs import logprobs_behind, token_logprobs, TokenLogprob
from slice_ros.errors import ErrorCode

MAX_UNREAD = 256  # pieces kept for a slow reader; further text is appended to the last of them


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer."""

    text: str                     # newly printable text; empty in a piece of the thought alone
    tokens: int                   # tokens generated so far
    predicted_completion_ms: float  # received to last token, predicted; NaN = unknown
    reasoning: str = ''           # newly printable text of the thought before the answer
    logprobs: tuple[TokenLogprob, ...] = ()   # of the tokens that begin in it, where wanted


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool, as the model wishes it."""

    id: str          # noqa: A003
    name: str
    json: str        # of its arguments

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name."""
        return json.loads(self.json)


@dataclass(frozen=True)
class Answer:
    """A whole answer, or its beginning when the request ended early."""

    request_id: str
    text: str
    finish_reason: str       # stop, length, cancelled or error
    report: msg.SloReport    # objectives and measured times
    tool_calls: tuple[ToolCall, ...] = ()   # with which it ends
    reasoning: str = ''      # the thought before it, which is no part of its text
    ranks: msg.TokenLogprobs = field(default_factory=msg.TokenLogprobs)   # of its tokens

    @cached_property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of its tokens, where `sampling` wants them."""
        return token_logprobs(self.ranks)

    @property
    def message(self) -> msg.ChatMessage:
        """The answer as a message of the conversation that goes on with it."""
        return msg.ChatMessage(role='assistant', content=self.text, tool_calls=[
            msg.ToolCall(id=c.id, name=c.name, arguments=c.json) for c in self.tool_calls])

    @cached_property
    def json(self) -> Any:
        """The text parsed as JSON. Raises ``ValueError`` when it is not JSON."""
        return json.loads(self.text)


def rest_of(whole: str, received: str) -> str:
    """Return what of a text has not been received; '' where that was no part of it."""
    return whole[len(received):] if whole.startswith(received) else ''


class Waiter:
    """Wakes one coroutine of an rclpy executor or of asyncio, from any thread.

    An executor resumes its coroutines by itself after each callback; asyncio needs a future.
    """

    def __init__(self) -> None:
        self.woken = False
        self._loop = self._future = None
        try:
            self._loop = asyncio.get_running_loop()
            self._future = self._loop.create_future()
        except RuntimeError:  # not in asyncio
            pass

    def wake(self) -> None:
        self.woken = True
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._finish)
            except RuntimeError:  # the loop is closed, and with it the coroutine
                pass

    def _finish(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        while not self.woken:
            if self._future is not None:
                yield from self._future.__await__()
            else:
                yield


class AnswerBuffer:
    """The answer of one request, between the thread that receives it and the one that reads it."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.text = self.reasoning = ''         # received so far
        self._ranked = 0                        # tokens whose log-probabilities are received
        self.answer: Answer | None = None       # the result of the node
        self.error: SliceError | None = None    # set before `done` if it was not served
        self.done = False
        self.begun = False                      # it has had a token
        self._expected = 0                      # number of the next piece of feedback
        self._unread: deque[Chunk] = deque()
        self._waiters: list[Waiter] = []
        self._callbacks: list[Callable[[], None]] = []
        self._on_begin: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def feed(self, feedback: Generate.Feedback) -> None:
        """Add a piece of feedback."""
        if self.done or feedback.sequence != self._expected:
            return
        self._expected += 1
        self._add(Chunk(feedback.text, feedback.tokens, feedback.predicted_completion_ms,
                        feedback.reasoning, token_logprobs(feedback.logprobs)))
        self._begin()

    def finish(self, result: Generate.Result) -> None:
        """Add the result of the node, and end."""
        if self.done:
            return
        tokens, took = result.report.output_tokens, result.report.completion_ms
        missing = logprobs_behind(result.logprobs, self._ranked * (1 + result.logprobs.top))
        self.begun = self.begun or tokens > 0
        self._add(Chunk(rest_of(result.text, self.text), tokens, took,
                        rest_of(result.reasoning, self.reasoning), token_logprobs(missing)))
        answer = Answer(
            result.request_id, result.text, result.finish_reason, result.report,
            tuple(ToolCall(c.id, c.name, c.arguments) for c in result.tool_calls),
            result.reasoning, result.logprobs)
        error = None
        if result.error_code != ErrorCode.NONE:
            error = error_for(result.error_code, result.error_msg, answer)
        self.end(error, answer)

    def end(self, error: SliceError | None, answer: Answer | None = None) -> None:
        """End it, with an error when it was not served; only the first call has an effect."""
        with self._lock:
            if self.done:
                return
            self.answer, self.error, self.done = answer, error, True
            callbacks, self._callbacks = self._callbacks, []
        self._wake()
        for callback in (*callbacks, *self._begin_callbacks()):
            callback()

    def on_begin(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it has a token or has ended; at once if so."""
        with self._lock:
            if not self.done and not self.begun:
                self._on_begin.append(callback)
                return
        callback()

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            for callback in self._begin_callbacks():
                callback()

    def _begin_callbacks(self) -> list[Callable[[], None]]:
        with self._lock:
            callbacks, self._on_begin = self._on_begin, []
        return callbacks

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it ends; at once if it has ended."""
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback()

    async def next(self) -> Chunk | None:
        """Return the next piece; None at the end. Raises the `SliceError` it ended with."""
        while True:
            chunk, over = self.take()
            if chunk is not None:
                return chunk
            if over:
                break
            waiter = Waiter()
            if self.notify(waiter):
                await waiter
        if self.error is not None:
            raise self.error
        return None

    def take(self) -> tuple[Chunk | None, bool]:
        """Return the next piece, None where there is none yet, and whether all are read."""
        with self._lock:
            return (self._unread.popleft(), False) if self._unread else (None, self.done)

    def notify(self, waiter: Waiter) -> bool:
        """Have a waiter woken by what comes next; False if there is something to read already."""
        with self._lock:
            if self._unread or self.done:
                return False
            self._waiters = [*(w for w in self._waiters if not w.woken), waiter]
            return True

    async def wait(self) -> Answer:
        """Wait for the end and return the answer. Raises the `SliceError` it ended with."""
        waiter = Waiter()
        self.on_end(waiter.wake)
        await waiter
        if self.error is not None:
            raise self.error
        return self.answer

    def _add(self, chunk: Chunk) -> None:
        if not chunk.text and not chunk.reasoning and not chunk.logprobs:
            return
        with self._lock:
            self.text += chunk.text
            self.reasoning += chunk.reasoning
            self._ranked += len(chunk.logprobs)
            if len(self._unread) >= MAX_UNREAD:
                last = self._unread.pop()
                chunk = Chunk(last.text + chunk.text, chunk.tokens,
                              chunk.predicted_completion_ms, last.reasoning + chunk.reasoning,
                              last.logprobs + chunk.logprobs)
            self._unread.append(chunk)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()
