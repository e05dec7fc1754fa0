# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""/v1/embeddings: texts to vectors, in the shape of OpenAI's API."""

import base64

from slice_ros.client import SliceError
from slice_ros.gateway import bodies, http_errors
from slice_ros.gateway.completions import one_live, read_body
from slice_ros.gateway.models import find_class
from starlette.requests import Request
from starlette.responses import JSONResponse


async def embeddings(request: Request) -> JSONResponse:
    """Answer /v1/embeddings."""
    door = request.app.state.door
    body = bodies.read(bodies.EmbeddingBody, await read_body(request))
    slo_class = await find_class(door, body, request.headers.get('x-slo-class', ''), default='')
    texts = [body.texts] if isinstance(body.texts, str) else body.texts
    with one_live(door):
        try:
            found = await door.ros.client.embed_whole(
                texts, pooling=body.pooling, slo_class=slo_class)
        except SliceError as error:
            raise http_errors.as_http(error) from error

    def written(values) -> str | list[float]:   # little-endian on every machine of ROS
        return (base64.b64encode(values.tobytes()).decode()
                if body.encoding_format == 'base64' else values.tolist())
    tokens = sum(found.tokens)
    return JSONResponse({
        'object': 'list', 'model': body.model or found.model,
        'data': [{'object': 'embedding', 'index': index, 'embedding': written(embedding.values)}
                 for index, embedding in enumerate(found.embeddings)],
        'usage': {'prompt_tokens': tokens, 'total_tokens': tokens}})
