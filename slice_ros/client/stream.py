# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One request, or several with the same prompt: to read, to await or to cancel."""

from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any

from slice_ros.client.answer import Answer, AnswerBuffer, Chunk, Waiter
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
    def begun(self) -> bool:
        """Whether it has had a token."""
        return self._buffer.begun

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


class Streams:
    """Several requests with the same prompt; `streams` has each.

    ``async for index, chunk in streams`` reads the pieces of all as they come; the chunk None is
    the end of one. ``await streams`` gives a tuple of the whole answers; in place of one that was
    not served it has the `SliceError`, and where none was served, the first's is raised. All are
    cancelled by leaving the loop early, by `cancel`, by `aclose`, and by dropping the last
    reference.
    """

    def __init__(self, buffers: Sequence[AnswerBuffer],
                 abandon: Callable[[AnswerBuffer], None]) -> None:
        self.streams = tuple(Stream(buffer, abandon) for buffer in buffers)
        self._buffers = tuple(buffers)

    async def __aiter__(self) -> AsyncIterator[tuple[int, Chunk | None]]:
        unread = dict(enumerate(self._buffers))
        try:
            while unread:
                found = False
                for index, buffer in list(unread.items()):
                    chunk, over = buffer.take()
                    if over:
                        del unread[index]
                    if over or chunk is not None:
                        found = True
                        yield index, chunk
                waiter = Waiter()
                if not found and all([b.notify(waiter) for b in unread.values()]):
                    await waiter
        finally:
            self.cancel()

    def __await__(self) -> Generator[Any, None, tuple[Answer | SliceError, ...]]:
        return (yield from self._whole().__await__())

    async def _whole(self) -> tuple[Answer | SliceError, ...]:
        ends = []
        for buffer in self._buffers:
            try:
                ends.append(await buffer.wait())
            except SliceError as error:
                ends.append(error)
        if all([isinstance(end, SliceError) for end in ends]):
            raise ends[0]
        return tuple(ends)

    def cancel(self) -> None:
        """Cancel those that have not ended. Any thread may call this."""
        for stream in self.streams:
            stream.cancel()

    async def aclose(self) -> None:
        """Cancel them, for ``contextlib.aclosing``."""
        self.cancel()


def begin_in_turn(buffers: Sequence[AnswerBuffer], begin: Callable[[int], None]) -> None:
    """Begin the first of some requests, and the others once it has a token.

    Then the keys and values of their prompt are in the cache, for all. A request that ends without
    a token, as one that is refused does, ends the others too. `begin` begins one by its number.
    """
    first = buffers[0]

    def begin_others() -> None:
        for number, buffer in enumerate(buffers[1:], 1):
            if first.error is not None and not first.begun:
                buffer.end(first.error)
            else:
                begin(number)
    begin(0)
    first.on_begin(begin_others)
