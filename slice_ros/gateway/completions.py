# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""/v1/chat/completions and /v1/completions: a body to a goal, its text back as it comes.

A caller that disconnects cancels its goal: `receive` reports it at any time, and the stream of
the client library then ends with `Cancelled`, whatever waits for it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, ExitStack
import json

import anyio
from slice_ros.client import (
    Answer, Cancelled, Chunk, FormatIncomplete, SliceError, Stream, Streams)
from slice_ros.errors import ErrorCode
from slice_ros.gateway import bodies, http_errors
from slice_ros.gateway.answers import CHAT, Reply, Shape, TEXT
from slice_ros.gateway.http_errors import HttpError, REPLIES
from slice_ros.gateway.models import find_class
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

DONE = '[DONE]'   # the last event of a stream
EVENTS = {'cache-control': 'no-cache', 'x-accel-buffering': 'no'}
BUSY = http_errors.Reply(429, 'rate_limit_error', 'gateway_full', http_errors.RETRY_AFTER)
TOO_LARGE = http_errors.Reply(413, http_errors.CALLER, 'body_too_large', again=False)
SLOW = http_errors.Reply(408, http_errors.CALLER, 'body_too_slow', again=False)
MEDIA = http_errors.Reply(415, http_errors.CALLER, 'not_json', again=False)


async def chat(request: Request) -> Response:
    """Answer /v1/chat/completions."""
    return await _complete(request, CHAT, bodies.ChatBody)


async def text(request: Request) -> Response:
    """Answer /v1/completions."""
    return await _complete(request, TEXT, bodies.TextBody)


async def _complete(request: Request, shape: Shape, kind: type[bodies.Body]) -> Response:
    door = request.app.state.door
    body = bodies.read(kind, await read_body(request))
    slo_class = await find_class(door, body, request.headers.get('x-slo-class', ''),
                                 door.options.slo_class)
    check_room(door, body.n)
    try:
        streams = door.ros.client.generate_several(body.prompt(), body.n, slo_class,
                                                   **body.fields())
    except SliceError as error:
        raise http_errors.as_http(error) from error
    reply = Reply(shape, streams.streams[0].request_id, body.model or f'slice/{slo_class}',
                  body.n, body.most_logprobs() is not None)
    work = _live(door, request, streams)
    if body.stream:
        return await EventStream(door, work, streams, reply, body.stream_options).begin()
    with work:
        ends = await _whole(door, streams)
        # Thousands of log-probabilities would hold up all others here.
        content = await asyncio.to_thread(lambda: _json(reply.whole(ends)))
    return Response(content, media_type='application/json', headers=_headers(streams))


async def read_body(request: Request) -> bytes:
    """Return the body of a request. Raises `HttpError` for one that is no JSON, long or slow."""
    # A page of another site cannot send this type without asking first, and is not allowed to.
    if request.headers.get('content-type', '').partition(';')[0].strip() != 'application/json':
        raise HttpError('the body must be JSON: send content-type: application/json', MEDIA)
    bounds, data, size = request.app.state.door.options.bounds, [], 0
    try:
        with anyio.fail_after(bounds.body_s):
            async for piece in request.stream():
                size += len(piece)
                if size <= bounds.body_bytes:
                    data.append(piece)
                elif size > bounds.discarded_bytes:
                    break
    except ClientDisconnect:
        raise HttpError('the caller left before its body was there') from None
    except TimeoutError:
        raise HttpError(f'the body was not there after {bounds.body_s:g} s', SLOW) from None
    if size > bounds.body_bytes:
        raise HttpError(f'the body is longer than {bounds.body_bytes} bytes: send less', TOO_LARGE)
    return b''.join(data)


def check_room(door, n: int = 1) -> None:
    """Raise `HttpError` when `n` more requests would be more than a gateway has at once."""
    if door.live + n > door.options.bounds.live:
        raise HttpError(f'{door.live} requests are live, as many as this gateway has at once: '
                        'ask again later', BUSY)


@contextmanager
def one_live(door) -> Iterator[None]:
    """Count a request as live. Raises as `check_room` does."""
    check_room(door)
    door.live += 1
    try:
        yield
    finally:
        door.live -= 1


@contextmanager
def _live(door, request: Request, streams: Streams) -> Iterator[None]:
    """Count requests as live, and cancel them when their caller leaves."""
    async def cancel() -> None:
        while (await request.receive())['type'] != 'http.disconnect':
            pass
        streams.cancel()
    door.live += len(streams.streams)
    task = asyncio.create_task(cancel())
    try:
        yield
    finally:
        door.live -= len(streams.streams)
        task.cancel()
        streams.cancel()


def _headers(streams: Streams) -> dict[str, str]:
    return {'x-request-id': streams.streams[0].request_id}


def _end_of(stream: Stream) -> Answer | SliceError:
    """Return what a stream ended with; one that max_tokens has cut counts, as with OpenAI."""
    error = stream.error
    if isinstance(error, FormatIncomplete) and error.answer is not None:
        return error.answer
    return stream.result if error is None else error


async def _whole(door, streams: Streams) -> list[Answer | SliceError]:
    """Return the ends of all. Raises `HttpError` where none was served."""
    try:
        await streams
    except SliceError:
        pass
    ends = list(map(_end_of, streams.streams))
    if all([isinstance(end, SliceError) for end in ends]):
        raise _refusal(door, ends[0]) from ends[0]
    return ends


def _refusal(door, error: SliceError) -> HttpError:
    if isinstance(error, Cancelled) and door.stopping:
        return HttpError('the gateway ends', REPLIES[ErrorCode.SHUTTING_DOWN])
    return http_errors.as_http(error)


class EventStream(Response):
    """A response of server-sent events: each piece of the answers as it comes.

    It begins with the first piece, so that a request that is refused has a status of its own.
    """

    media_type = 'text/event-stream'

    def __init__(self, door, work, streams: Streams, reply: Reply,
                 options: bodies.StreamOptions) -> None:
        super().__init__(headers={**EVENTS, **_headers(streams)})
        del self.headers['content-length']
        self._door, self._streams, self._reply, self._options = (
            door, streams.streams, reply, options)
        self._pieces = aiter(streams)
        self._first: tuple[int, Chunk | None] = 0, None
        self._work = ExitStack()
        self._work.enter_context(work)

    async def begin(self) -> 'EventStream':
        """Return this once there is a piece. Raises `HttpError` where none comes."""
        with ExitStack() as undone:
            undone.enter_context(self._work)
            self._first = index, chunk = await anext(self._pieces)
            if chunk is None:
                end = _end_of(self._streams[index])
                if isinstance(end, SliceError) and (
                        len(self._streams) == 1 or not self._streams[index].begun):
                    raise _refusal(self._door, end) from end
            self._work = undone.pop_all()
        return self

    async def __call__(self, scope, receive, send) -> None:
        with self._work:
            await send({'type': 'http.response.start', 'status': self.status_code,
                        'headers': self.raw_headers})
            async for event in self._events():
                await send({'type': 'http.response.body', 'more_body': True,
                            'body': b'data: ' + _json(event) + b'\n\n'})
            await send({'type': 'http.response.body', 'body': b''})

    async def _events(self) -> AsyncIterator[dict | str]:
        ends, begun = {}, set()
        async for index, chunk in self._all_pieces():
            first = index not in begun
            begun.add(index)
            if chunk is not None:
                yield self._reply.piece(index, chunk.text, first, reasoning=chunk.reasoning,
                                        ranks=chunk.logprobs)
                continue
            if first:   # it has no text at all
                yield self._reply.piece(index, first=True)
            end = ends[index] = _end_of(self._streams[index])
            if len(self._streams) > 1 or isinstance(end, Answer):
                if isinstance(end, Answer) and end.tool_calls:
                    yield self._reply.calls(index, end)
                yield self._reply.piece(index, end=end)
        ends = [ends[index] for index in sorted(ends)]
        if all([isinstance(end, SliceError) for end in ends]):
            failed = _refusal(self._door, ends[0])
            yield http_errors.error_object(failed.message, failed.reply)
            return
        if self._options.include_usage:
            yield self._reply.usage(ends)
        yield DONE

    async def _all_pieces(self) -> AsyncIterator[tuple[int, Chunk | None]]:
        yield self._first
        async for piece in self._pieces:
            yield piece


def _json(value: dict | str) -> bytes:
    if value is DONE:
        return DONE.encode()
    return json.dumps(value, ensure_ascii=False, separators=(',', ':')).encode()
