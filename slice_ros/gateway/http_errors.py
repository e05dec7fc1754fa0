# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How a request is refused by HTTP: a status code, and the error object of OpenAI's API."""

from dataclasses import dataclass
import json

from slice_ros.client import SliceError, Timeout
from slice_ros.errors import ErrorCode
from starlette.responses import JSONResponse

RETRY_AFTER = 1    # seconds after which a full queue has probably moved
NODE_AFTER = 5     # seconds after which a node that is absent may be back
CALLER, SERVER = 'invalid_request_error', 'server_error'


@dataclass(frozen=True)
class Reply:
    """What an error code of the node is by HTTP."""

    status: int
    kind: str                 # `type` of the error object
    code: str                 # `code` of the error object
    retry_after: int = 0      # seconds; 0 = no such header
    again: bool = True        # whether asking the same again may help


REPLIES = {
    ErrorCode.INVALID_REQUEST: Reply(400, CALLER, 'invalid_request'),
    ErrorCode.UNKNOWN_SLO_CLASS: Reply(404, CALLER, 'model_not_found'),
    ErrorCode.PROMPT_TOO_LONG: Reply(400, CALLER, 'context_length_exceeded'),
    ErrorCode.INFEASIBLE_SLO: Reply(503, SERVER, 'infeasible_slo', again=False),
    ErrorCode.QUEUE_FULL: Reply(429, 'rate_limit_error', 'queue_full', RETRY_AFTER),
    ErrorCode.OUT_OF_MEMORY: Reply(503, SERVER, 'out_of_memory', RETRY_AFTER),
    ErrorCode.ENGINE_FAILURE: Reply(500, SERVER, 'engine_failure', again=False),
    ErrorCode.CANCELLED: Reply(499, CALLER, 'cancelled', again=False),
    ErrorCode.DEADLINE_MISSED: Reply(504, SERVER, 'deadline_missed', again=False),
    ErrorCode.SHUTTING_DOWN: Reply(503, SERVER, 'shutting_down', NODE_AFTER),
    ErrorCode.NOT_READY: Reply(503, SERVER, 'not_ready', NODE_AFTER),
    ErrorCode.SESSION_BUSY: Reply(409, CALLER, 'session_busy', again=False),
    # Only where the node sends no text with it: otherwise it is an answer that ended by length.
    ErrorCode.FORMAT_INCOMPLETE: Reply(400, CALLER, 'format_incomplete', again=False),
}
UNKNOWN = Reply(500, SERVER, 'error', again=False)   # a code of a newer node


class HttpError(Exception):
    """A request that is refused; `param` is the field that is to be changed, if it is one."""

    def __init__(self, message: str, reply: Reply = REPLIES[ErrorCode.INVALID_REQUEST],
                 param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.reply, self.param = message, reply, param


def as_http(error: SliceError) -> HttpError:
    """Return a failed request as what HTTP says of it."""
    reply = REPLIES.get(error.code, UNKNOWN)
    if isinstance(error, Timeout):
        reply = REPLIES[ErrorCode.DEADLINE_MISSED]
    return HttpError(error.message, reply)


def error_object(message: str, reply: Reply, param: str | None = None) -> dict:
    """Return the body of an error, in OpenAI's shape."""
    return {'error': {'message': message, 'type': reply.kind, 'param': param,
                      'code': reply.code}}


def response(error: HttpError) -> JSONResponse:
    """Return the response that says why a request is refused.

    Clients of OpenAI repeat 409, 429 and 5xx by themselves, unless `x-should-retry` is false.
    """
    reply = error.reply
    headers = {'retry-after': str(reply.retry_after)} if reply.retry_after else {}
    if not reply.again:
        headers['x-should-retry'] = 'false'
    if reply.status == 413:
        headers['connection'] = 'close'   # the rest of the body is not read
    if reply.status == 401:
        headers['www-authenticate'] = 'Basic realm="slice_gateway"'   # browsers ask for it then
    return JSONResponse(error_object(error.message, reply, error.param), reply.status, headers)


def raw_response(status: int, phrase: str, message: str, kind: str = CALLER) -> bytes:
    """Return a whole HTTP/1.1 response, for connections without a request that could be read."""
    body = json.dumps(error_object(message, Reply(status, kind, phrase.lower().replace(' ', '_')))
                      ).encode()
    return (f'HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\n'
            f'content-length: {len(body)}\r\nconnection: close\r\n\r\n').encode() + body
