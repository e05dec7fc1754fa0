# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Does what happens once, before the first request: caches, lazy imports, grammars, memory."""

from collections.abc import Callable, Iterator, Mapping
import copy
from dataclasses import replace
import logging
import threading
from types import MappingProxyType

from slice_ros.engine import Engine, ResponseFormat, Sampling
from slice_ros.engine.chat_options import ChatOptions
from slice_ros.engine.kv.memory import spare_heap
from slice_ros.engine.pinned_prefixes import PinnedPrefixes
from slice_ros.errors import RequestError
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving.delivery import Delivery
from slice_ros.serving.live_config import settled
from slice_ros.serving.sentences import SentenceSplitter
from slice_ros.serving.server import Server
from slice_ros.serving.server_config import ServerConfig
from slice_ros.serving.sessions import Messages
from slice_ros.serving.warm.preambles import prefix_of

log = logging.getLogger('slice_ros.serving')

NONE: Mapping[str, ChatOptions] = MappingProxyType({})
TOKENS = 4       # of each answer
LONGEST = 30.0   # seconds that one answer may take
POLL = 0.1       # seconds between two looks whether the node is asked to stop
HELLO = 'Hello. How are you?'
FORMATS = (ResponseFormat(), ResponseFormat('choice', ('STOP', 'GO')),
           ResponseFormat('regex', (), '[0-9]+'),
           ResponseFormat('json_schema', (), '{"type": "object", "properties": '
                          '{"name": {"type": "string"}}, "required": ["name"]}'))


def warm_up(engine: Engine, latency: LatencyModel, config: ServerConfig,
            preambles: Mapping[str, Messages], stopping: Callable[[], bool],
            options: Mapping[str, ChatOptions] = NONE) -> PinnedPrefixes:
    """Compute the preambles and serve one request of each kind in each class.

    `preambles` and `options` are by class name. A server of its own is used: the real one has no
    figures of it, and learns nothing from the first, slow steps. Nothing here keeps the node from
    serving.
    """
    config = settled(config, engine.info, latency)
    pinned = pinned_preambles(engine, preambles, options)
    _compute(pinned, config.prefill_chunk, stopping)
    splitter = SentenceSplitter()
    splitter.push(HELLO)
    splitter.flush()
    server = Server(engine, copy.deepcopy(latency), replace(config, admission='accept'))
    server.start()
    try:
        for ended in _requests(server, config, preambles):
            waited = 0.0
            while not ended.wait(POLL) and waited < LONGEST and not stopping():
                waited += POLL
    finally:
        server.stop()
    _compute(pinned, config.prefill_chunk, stopping)   # what the requests had no room for
    spare_heap()
    return pinned


def _compute(pinned: PinnedPrefixes, tokens: int, stopping: Callable[[], bool]) -> None:
    while not stopping() and (pinned.compute(tokens) or pinned.wait_for_disk(POLL)):
        pass


def pinned_preambles(engine: Engine, preambles: Mapping[str, Messages],
                     options: Mapping[str, ChatOptions] = NONE) -> PinnedPrefixes:
    """Return the preambles, by class name, as prefixes that are yet to be computed.

    They are rendered with the `options` of their class.
    """
    prefixes = []
    for name, messages in preambles.items():
        try:
            if messages:
                prefixes.append(prefix_of(engine, messages, options.get(name, ChatOptions())))
        except RequestError as error:
            log.warning('slo.%s.preamble is not used: %s', name, error.message)
    return PinnedPrefixes(engine, prefixes)


def _requests(server: Server, config: ServerConfig, preambles: Mapping[str, Messages]
              ) -> Iterator[threading.Event]:
    """Submit the requests one after the other; yield an event that is set at the end of each."""
    for slo in config.classes:
        for form in FORMATS:
            ended = threading.Event()

            def receive(delivery: Delivery, ended: threading.Event = ended) -> None:
                if delivery.finish_reason is not None:
                    ended.set()
            try:
                tokens = _prompt(server.engine, preambles.get(slo.name, []))
                server.submit(slo, tokens, min(TOKENS, config.max_tokens), Sampling(), receive,
                              response_format=form)
            except RequestError as error:   # a limit that is too low, or a model without formats
                log.debug('no warm-up of %s, %s: %s', slo.name, form.kind, error.message)
                continue
            yield ended


def _prompt(engine: Engine, preamble: Messages) -> list[int]:
    text = HELLO + ''.join(engine.special_texts[:1])   # such texts are encoded another way
    try:
        return engine.encode_chat([*preamble, ('user', text)])
    except RequestError:   # the preamble is refused, or the model has no chat template
        try:
            return engine.encode_chat([('user', text)])
        except RequestError:
            return engine.encode(HELLO)
