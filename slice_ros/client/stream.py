# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What `SliceClient.generate` returns: one request, to read, to await or to cancel."""

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from slice_ros.client.answer import Answer, Chunk, Progress
from slice_ros.client.exceptions import SliceError


class Stream:
    """One request that was sent.

    ``async for chunk in stream`` reads its pieces, ``await stream`` the whole answer; both raise
    the `SliceError` it ended with. Leaving the loop before its end, however, cancels the request,
    and so do `cancel`, `aclose`, and dropping the last reference to the stream.
    """

    def __init__(self, progress: Progress, abandon: Callable[[Progress], None]) -> None:
        self._progress, self._abandon = progress, abandon

    def __del__(self) -> None:
        self.cancel()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        try:
            while (chunk := await self._progress.next()) is not None:
                yield chunk
        finally:
            self.cancel()

    def __await__(self) -> Generator[Any, None, Answer]:
        return (yield from self._progress.whole().__await__())

    def cancel(self) -> None:
        """Cancel the request; nothing happens where it has ended. Any thread may call this."""
        if not self._progress.done:
            self._abandon(self._progress)

    async def aclose(self) -> None:
        """Cancel the request, for ``contextlib.aclosing``."""
        self.cancel()

    @property
    def request_id(self) -> str:
        """The request's id on the topics and for ~/cancel."""
        return self._progress.request_id

    @property
    def done(self) -> bool:
        """Whether it has ended, one way or another."""
        return self._progress.done

    @property
    def text(self) -> str:
        """What was received so far, read or not."""
        return self._progress.text

    @property
    def result(self) -> Answer | None:
        """The answer the node gave, whole or not; None before the end, or without one."""
        return self._progress.answer

    @property
    def error(self) -> SliceError | None:
        """Why it was not served; None before the end, or where it was."""
        return self._progress.error
