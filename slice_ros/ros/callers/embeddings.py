# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""~/embed: embeddings of texts, computed one after the other as requests without objectives."""

from array import array
from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from slice_ros import msg, srv
from slice_ros.engine.pooling import Pooling
from slice_ros.errors import RequestError
from slice_ros.ros import conversions
from slice_ros.ros.host import Host
from slice_ros.ros.isolation import bounds, contents
from slice_ros.ros.isolation.boundary import answering
from slice_ros.ros.isolation.executor import Awaited
from slice_ros.ros.isolation.workers import Workers
from slice_ros.ros.parameters import Parameters, Settings
from slice_ros.ros.qos import SERVICES
from slice_ros.serving import Delivery, Server
from slice_ros.slo import SloClass

CLASS = 'embed'   # of those who name none: no objectives, and the least utility there is


class Embeddings:
    """Answers ~/embed. `wake_gate` and `submitted` are as in `Requests`."""

    def __init__(self, node: Node, host: Host, parameters: Parameters, group: CallbackGroup,
                 workers: Workers, wake_gate: Callable[[], None],
                 submitted: Callable[[], None], wake_executor: Callable[[], None]) -> None:
        self._host, self._parameters, self._workers = host, parameters, workers
        self._wake_gate, self._submitted = wake_gate, submitted
        self._wake_executor = wake_executor
        node.create_service(srv.Embed, '~/embed', self._embed, qos_profile=SERVICES,
                            callback_group=group)

    async def _embed(self, request, response):
        settings, server = self._parameters.settings, self._host.serving()
        slo = _class_of(request.slo_class, settings)
        bounds.check_embedded(request, settings.max_text_bytes)
        asked = contents.taken(request)
        for text in asked.texts:   # one at a time: a list takes no more places than a question
            done = await self._workers.compute(
                lambda text=text: self._submit(server, slo, text, asked.pooling),
                settings.server.max_queued, utility=slo.utility, heavy=len(text) > bounds.HEAVY)
            self._wake_gate()   # it is live by now: a gate woken before may have shut again
            vector, tokens = await done
            response.embeddings.append(msg.Embedding(values=vector))
            response.tokens.append(tokens)
        response.model = server.engine.info.model
        return response

    def _submit(self, server: Server, slo: SloClass, text: str, pooling: str) -> Awaited:
        """Return a future of a vector and its tokens; runs in a worker. Raises `RequestError`."""
        try:
            kind = Pooling(pooling)
        except ValueError as error:
            raise bounds.invalid(str(error)) from error
        tokens, done = server.engine.encode(text), Awaited()

        def on_output(delivery: Delivery) -> None:
            with answering(done.set_exception, 'making an embedding'):
                if delivery.error:
                    raise RequestError(delivery.error, delivery.message)
                done.set_result((array('f', kind.vector().tobytes()), len(tokens)))
            self._wake_executor()
        server.embed(slo, tokens, kind, on_output)
        self._submitted()
        return done


def _class_of(name: str, settings: Settings) -> SloClass:
    if name:
        return conversions.configured_class(name, settings)
    return SloClass(CLASS, utility=min(slo.utility for slo in settings.classes.values()))
