# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Names of models: the one that is served, and `slice/<class>` for it in a class of objectives."""

from pathlib import PurePath

from slice_ros import srv
from slice_ros.client import Unavailable
from slice_ros.errors import ErrorCode
from slice_ros.gateway import http_errors
from slice_ros.gateway.bodies import Body, EmbeddingBody
from slice_ros.gateway.http_errors import HttpError, REPLIES
from starlette.requests import Request
from starlette.responses import JSONResponse

PREFIX = 'slice/'


def served_model(status: srv.GetStatus.Response) -> str:
    """Return the name of the loaded model: its folder, or its file without .gguf; '' for none."""
    return PurePath(status.engine.model).name.removesuffix('.gguf')


async def find_class(door, body: Body | EmbeddingBody, header: str, default: str) -> str:
    """Return the class of a request: of its body, the header, the model's name, or the default.

    Raises `HttpError` for a model that is not served.
    """
    of_model = body.model.removeprefix(PREFIX) if body.model.startswith(PREFIX) else ''
    if not of_model and body.model and body.model != door.model:
        try:
            door.model = served_model(await door.ros.status())
        except Unavailable as error:
            raise http_errors.as_http(error) from error
        if body.model != door.model:
            raise HttpError(f'there is no model {body.model!r:.120}: take {door.model!r} or '
                            f'{PREFIX}CLASS', REPLIES[ErrorCode.UNKNOWN_SLO_CLASS], 'model')
    return body.slo_class or header or of_model or default


async def models(request: Request) -> JSONResponse:
    """Answer /v1/models."""
    door = request.app.state.door
    try:
        status = await door.ros.status()
    except Unavailable as error:
        raise http_errors.as_http(error) from error
    names = [served_model(status)] if status.engine.model else []
    names += [PREFIX + c.slo.name for c in status.scheduler.classes]
    found = [{'id': name, 'object': 'model', 'created': 0, 'owned_by': 'slice_ros'}
             for name in names]
    wanted = request.path_params.get('name')
    if wanted is None:
        return JSONResponse({'object': 'list', 'data': found})
    for one in found:
        if one['id'] == wanted:
            return JSONResponse(one)
    raise HttpError(f'there is no model {wanted!r:.120}', REPLIES[ErrorCode.UNKNOWN_SLO_CLASS],
                    'model')


async def health(request: Request) -> JSONResponse:
    """Answer /health: 200 while the node serves, otherwise 503 and its state."""
    try:
        state = (await request.app.state.door.ros.status()).state
    except Unavailable:
        state = 'absent'
    return JSONResponse({'status': state}, 200 if state == 'ready' else 503)
