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
from slice_ros.client import Answer, Cancelled, Chunk, FormatIncomplete, SliceError, Stream
from slice_ros.errors import ErrorCode
from slice_ros.gateway import bodies, http_errors
from slice_ros.gateway.answers import CHAT, Reply, Shape, TEXT
from slice_ros.gateway.http_errors import HttpError, REPLIES
from slice_ros.gateway.models import find_class
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

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
    check_room(door)
    try:
        stream = door.ros.client.generate(body.prompt(), slo_class, **body.fields())
    except SliceError as error:
        raise http_errors.as_http(error) from error
    reply = Reply(shape, stream.request_id, body.model or f'slice/{slo_class}')
    work = _live(door, request, stream)
    if body.stream:
        return await EventStream(door, work, stream, reply, body.stream_options).begin()
    with work:
        answer = await _whole(door, stream)
    return JSONResponse(reply.whole(answer), headers=_headers(stream))


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


def check_room(door) -> None:
    """Raise `HttpError` when as many requests are live as a gateway has at once."""
    if door.live >= door.options.bounds.live:
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
def _live(door, request: Request, stream: Stream) -> Iterator[None]:
    """Count a request as live, and cancel it when its caller leaves."""
    async def cancel() -> None:
        while (await request.receive())['type'] != 'http.disconnect':
            pass
        stream.cancel()
    door.live += 1
    task = asyncio.create_task(cancel())
    try:
        yield
    finally:
        door.live -= 1
        task.cancel()
        stream.cancel()


def _headers(stream: Stream) -> dict[str, str]:
    return {'x-request-id': stream.request_id}


async def _whole(door, stream: Stream) -> Answer:
    """Return the answer; one that max_tokens has cut counts, as by OpenAI's API."""
    try:
        return await stream
    except SliceError as error:
        if isinstance(error, FormatIncomplete) and error.answer is not None:
            return error.answer
        raise _refusal(door, error) from error


def _refusal(door, error: SliceError) -> HttpError:
    if isinstance(error, Cancelled) and door.stopping:
        return HttpError('the gateway ends', REPLIES[ErrorCode.SHUTTING_DOWN])
    return http_errors.as_http(error)


class EventStream(Response):
    """A response of server-sent events: each piece of an answer as it comes.

    It begins with the first piece, so that a request that is refused has a status of its own.
    """

    media_type = 'text/event-stream'

    def __init__(self, door, work, stream: Stream, reply: Reply,
                 options: bodies.StreamOptions) -> None:
        super().__init__(headers={**EVENTS, **_headers(stream)})
        del self.headers['content-length']
        self._door, self._stream, self._reply, self._options = door, stream, reply, options
        self._pieces = aiter(stream)
        self._first: Chunk | None = None
        self._work = ExitStack()
        self._work.enter_context(work)

    async def begin(self) -> 'EventStream':
        """Return this once there is a piece. Raises `HttpError` where none comes."""
        with ExitStack() as undone:
            undone.enter_context(self._work)
            try:
                self._first = await anext(self._pieces, None)
            except SliceError as error:
                if not isinstance(error, FormatIncomplete) or error.answer is None:
                    raise _refusal(self._door, error) from error
            self._work = undone.pop_all()
        return self

    async def __call__(self, scope, receive, send) -> None:
        with self._work:
            await send({'type': 'http.response.start', 'status': self.status_code,
                        'headers': self.raw_headers})
            async for event in self._events():
                await send({'type': 'http.response.body', 'more_body': True,
                            'body': b'data: ' + event + b'\n\n'})
            await send({'type': 'http.response.body', 'body': b''})

    async def _events(self) -> AsyncIterator[bytes]:
        first = self._first
        yield _json(self._reply.piece('' if first is None else first.text, first=True,
                                      reasoning='' if first is None else first.reasoning))
        try:
            async for chunk in self._pieces:
                yield _json(self._reply.piece(chunk.text, reasoning=chunk.reasoning))
            answer = self._stream.result
        except FormatIncomplete as error:
            answer = error.answer
        except SliceError as error:
            failed = _refusal(self._door, error)
            yield _json(http_errors.error_object(failed.message, failed.reply))
            return
        if answer.tool_calls:
            yield _json(self._reply.calls(answer))
        yield _json(self._reply.piece('', answer=answer))
        if self._options.include_usage:
            yield _json(self._reply.usage(answer))
        yield b'[DONE]'


def _json(value: dict) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(',', ':')).encode()
