# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One answer: its pieces as they come, and the whole of it, handed from the executor to a reader.

The text of the pieces, in order, is the text of the answer, also where feedback was lost or came
late: a piece out of order is left to the result, and what the result has more is the last piece.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
import json
import threading
from typing import Any

from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.client.exceptions import error_for, SliceError
from slice_ros.errors import ErrorCode

UNREAD = 256  # pieces that wait for a slow reader; what comes then is joined to the last


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer."""

    text: str                     # newly printable text, never empty
    tokens: int                   # tokens generated so far
    predicted_completion_ms: float  # received to last token, as now foreseen; NaN = unknown


@dataclass(frozen=True)
class Answer:
    """A whole answer, or as far as it went."""

    request_id: str
    text: str
    finish_reason: str       # stop, length, cancelled or error
    report: msg.SloReport    # objectives and measured times

    @cached_property
    def json(self) -> Any:
        """The text as a JSON document. Raises ``ValueError`` when it is none."""
        return json.loads(self.text)


class Waiter:
    """Wakes one coroutine, be it run by an rclpy executor or by asyncio, from any thread.

    An executor looks at its coroutines by itself after each callback; asyncio has to be told.
    """

    def __init__(self) -> None:
        self._woken = False
        self._loop = self._future = None
        try:
            self._loop = asyncio.get_running_loop()
            self._future = self._loop.create_future()
        except RuntimeError:  # not in asyncio
            pass

    def wake(self) -> None:
        self._woken = True
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._finish)
            except RuntimeError:  # the loop is closed, and with it the coroutine
                pass

    def _finish(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        while not self._woken:
            if self._future is not None:
                self._future._asyncio_future_blocking = True  # how asyncio knows a future
            yield self._future


class Progress:
    """One request between the thread that receives and the one that reads."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.text = ''                          # received so far
        self.answer: Answer | None = None       # what the node said at the end
        self.error: SliceError | None = None    # set before `done` where it was not served
        self.done = False
        self._expected = 0                      # number of the next piece of feedback
        self._unread: deque[Chunk] = deque()
        self._waiters: list[Waiter] = []
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def feed(self, feedback: Generate.Feedback) -> None:
        """Take a piece of feedback in."""
        if self.done or feedback.sequence != self._expected:
            return
        self._expected += 1
        self._add(Chunk(feedback.text, feedback.tokens, feedback.predicted_completion_ms))

    def finish(self, result: Generate.Result) -> None:
        """Take the node's result in."""
        if self.done:
            return
        tokens, took = result.report.output_tokens, result.report.completion_ms
        if result.text.startswith(self.text):
            self._add(Chunk(result.text[len(self.text):], tokens, took))
        answer = Answer(result.request_id, result.text, result.finish_reason, result.report)
        error = None
        if result.error_code != ErrorCode.NONE:
            error = error_for(result.error_code, result.error_msg, answer)
        self.end(error, answer)

    def end(self, error: SliceError | None, answer: Answer | None = None) -> None:
        """End it, once; with an error when it was not served."""
        with self._lock:
            if self.done:
                return
            self.answer, self.error, self.done = answer, error, True
            callbacks, self._callbacks = self._callbacks, []
        self._wake()
        for callback in callbacks:
            callback()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it ends; at once if it has."""
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback()

    async def next(self) -> Chunk | None:
        """Return the next piece; None at the end. Raises the `SliceError` it ended with."""
        while True:
            with self._lock:
                if self._unread:
                    return self._unread.popleft()
                if self.done:
                    break
                waiter = Waiter()
                self._waiters.append(waiter)
            await waiter
        if self.error is not None:
            raise self.error
        return None

    async def whole(self) -> Answer:
        """Return the answer when it has ended. Raises the `SliceError` it ended with."""
        waiter = Waiter()
        self.on_end(waiter.wake)
        await waiter
        if self.error is not None:
            raise self.error
        return self.answer

    def _add(self, chunk: Chunk) -> None:
        if not chunk.text:
            return
        with self._lock:
            self.text += chunk.text
            if len(self._unread) >= UNREAD:
                chunk = Chunk(self._unread.pop().text + chunk.text, chunk.tokens,
                              chunk.predicted_completion_ms)
            self._unread.append(chunk)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()
