# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The routes of the gateway, who may use them, and what is said when something fails."""

import base64
import binascii
from collections import Counter
from dataclasses import dataclass, field
import hmac
import logging

from slice_ros.gateway import (
    completions, embedding_answers, exporter, figures_page, http_errors, models)
from slice_ros.gateway.gateway_options import LOOPBACK, Options
from slice_ros.gateway.http_errors import CALLER, HttpError, SERVER
from slice_ros.gateway.ros_side import RosSide
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

OPEN = ('/health',)    # without a key: load balancers and launch files ask
NO_KEY = http_errors.Reply(401, CALLER, 'invalid_api_key', again=False)
WRONG_HOST = http_errors.Reply(403, CALLER, 'wrong_host', again=False)
FAULT = http_errors.Reply(500, SERVER, 'gateway_fault', again=False)


@dataclass
class Door:
    """What the requests of a gateway share."""

    options: Options
    ros: RosSide
    model: str = ''            # name of the served model, once it is known
    live: int = 0              # requests for the model that have not ended
    pages: int = 0             # browsers that watch
    stopping: bool = False     # the program ends: what waits shall end too
    responses: Counter = field(default_factory=Counter)   # by status code
    picture: tuple[float, bytes] = (0.0, b'')   # for the pages: when it was made, and its JSON


def make_app(options: Options, ros: RosSide) -> Starlette:
    """Return the application; its state has the `door`."""
    door = Door(options, ros)
    app = Starlette(
        routes=[
            Route('/v1/chat/completions', completions.chat, methods=['POST']),
            Route('/v1/completions', completions.text, methods=['POST']),
            Route('/v1/embeddings', embedding_answers.embeddings, methods=['POST']),
            Route('/v1/models', models.models),
            Route('/v1/models/{name:path}', models.models),
            Route('/health', models.health),
            Route('/metrics', exporter.metrics),
            Route('/', figures_page.page),
            Route('/events', figures_page.events)],
        middleware=[Middleware(Entrance, door=door)],
        exception_handlers={HttpError: _refused, HTTPException: _not_found, Exception: _fault})
    app.state.door = door
    return app


class Entrance:
    """Lets in who names this host and has the key, and counts the responses."""

    def __init__(self, app, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope, receive, send) -> None:
        async def counted(message) -> None:
            if message['type'] == 'http.response.start':
                self._door.responses[message['status']] += 1
            await send(message)
        try:
            _check_host(self._door.options, Headers(scope=scope).get('host', ''))
            if self._door.options.api_key and scope['path'] not in OPEN:
                _check_key(self._door.options.api_key,
                           Headers(scope=scope).get('authorization', ''))
        except HttpError as error:
            await http_errors.response(error)(scope, receive, counted)
        else:
            await self._app(scope, receive, counted)


def _check_host(options: Options, host: str) -> None:
    """Refuse a page of another site whose name was made to point at this machine."""
    name = host.rsplit(':', 1)[0] if not host.endswith(']') else host
    if options.host in LOOPBACK and name.strip('[]').lower() not in LOOPBACK:
        raise HttpError(f'this gateway serves {" and ".join(LOOPBACK)} only, not {host!r:.80}: '
                        'start it with --host for others', WRONG_HOST)


def _check_key(key: str, given: str) -> None:
    kind, _, value = given.partition(' ')
    if kind.lower() == 'basic':   # what a browser sends for the page; any user name will do
        try:
            value = base64.b64decode(value).decode().partition(':')[2]
        except (binascii.Error, UnicodeDecodeError):
            value = ''
    if not hmac.compare_digest(value.strip().encode(), key.encode()):
        raise HttpError('the API key is missing or wrong: send it as a bearer token', NO_KEY)


def _refused(request: Request, error: HttpError) -> JSONResponse:
    return http_errors.response(error)


def _not_found(request: Request, error: HTTPException) -> JSONResponse:
    known = ', '.join(route.path for route in request.app.routes if '{' not in route.path)
    message = (f'{request.url.path[:120]} is not here: there are {known}'
               if error.status_code == 404 else f'{request.method:.20} {request.url.path[:120]}: '
               f'{error.detail}')
    reply = http_errors.Reply(error.status_code, CALLER, 'not_found', again=False)
    return JSONResponse(http_errors.error_object(message, reply), error.status_code,
                        error.headers)


def _fault(request: Request, error: Exception) -> JSONResponse:
    """Answer what nobody foresaw; uvicorn logs the traceback."""
    logging.getLogger('slice_gateway').error('%s: %r', request.url.path, error)
    return http_errors.response(HttpError('the gateway failed: see its log', FAULT))
