# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One request, as `SliceClient.generate` returns it: to read, to await or to cancel."""

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from slice_ros.client.answer import Answer, AnswerBuffer, Chunk
from slice_ros.client.exceptions import SliceError


class Stream:
    """One request that was sent.

    ``async for chunk in stream`` reads its pieces, ``await stream`` the whole answer; both raise
    the `SliceError` it ended with. The request is cancelled by leaving the loop early, by
    `cancel`, by `aclose`, and by dropping the last reference to the stream.
    """

    def __init__(self, buffer: AnswerBuffer, abandon: Callable[[AnswerBuffer], None]) -> None:
        self._buffer, self._abandon = buffer, abandon

    def __del__(self) -> None:
        self.cancel()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        try:
            while (chunk := await self._buffer.next()) is not None:
                yield chunk
        finally:
            self.cancel()

    def __await__(self) -> Generator[Any, None, Answer]:
        return (yield from self._buffer.wait().__await__())

    def cancel(self) -> None:
        """Cancel the request, unless it has ended. Any thread may call this."""
        if not self._buffer.done:
            self._abandon(self._buffer)

    async def aclose(self) -> None:
        """Cancel the request, for ``contextlib.aclosing``."""
        self.cancel()

    @property
    def request_id(self) -> str:
        """The request's id on the topics and for ~/cancel."""
        return self._buffer.request_id

    @property
    def done(self) -> bool:
        """Whether it has ended, served or not."""
        return self._buffer.done

    @property
    def text(self) -> str:
        """The text received so far, read or not."""
        return self._buffer.text

    @property
    def result(self) -> Answer | None:
        """The answer of the node, complete or not; None before the end, or without a result."""
        return self._buffer.answer

    @property
    def error(self) -> SliceError | None:
        """Why it was not served; None before the end, or if it was served."""
        return self._buffer.error
