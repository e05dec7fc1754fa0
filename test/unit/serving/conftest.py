# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A fake engine (words for tokens, no model) and a server on it that ends with the test."""

from dataclasses import dataclass, field
from queue import Queue
import threading
import time

import pytest
from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Delivery, Server, ServerConfig


@dataclass(eq=False)
class FakeSequence:
    request: Request
    length: int              # tokens after which it stops by itself
    text: str = ''
    closed: bool = False
    tool_calls: tuple = ()
    joined: tuple = ()

    @property
    def max_tokens(self) -> int:
        return self.request.max_tokens


@dataclass(frozen=True)
class FakeOutput:
    sequence: FakeSequence
    token: int
    number: int
    text: str
    finish_reason: str | None
    error: object = None
    reasoning: str = ''
    logprobs: tuple = ()


@dataclass(frozen=True)
class FakeInfo:
    max_context: int = 512
    slots: int = 8
    kv_tokens: int = 8 * 512
    fills_cores: bool = True
    asynchronous: bool = False


@dataclass
class FakeEngine:
    """Counts where a model would think; `fail` is called before each step and may raise."""

    info: FakeInfo = FakeInfo()
    length: int = 1 << 30
    seconds: float = 0.0
    fail: object = None
    draft_model: object = None
    prefix: int = 0          # tokens of every prompt that the cache knows
    steps: list = field(default_factory=list)      # sequences of each step
    closed: list = field(default_factory=list)
    evicted: list = field(default_factory=list)
    threads: set = field(default_factory=set)

    def open(self, tokens, max_tokens, sampling, stop=(), response_format=None,  # noqa: A003
             request=None, adapter='', images=()):
        return FakeSequence(request, self.length)

    def draft(self, sequence, most):
        return []

    def launch(self, work, drafts):
        return list(work)

    def collect(self, work, clock):
        self.threads.add(threading.get_ident())
        self.steps.append([sequence for sequence, _ in work])
        if self.fail:
            self.fail(work)
        if self.seconds:
            time.sleep(self.seconds)
        at, outputs = clock(), []
        for sequence, n in work:
            request = sequence.request
            assert not sequence.closed
            if not request.advance(n, at):
                continue
            text = f'{request.generated} '
            sequence.text += text
            reason = None
            if request.generated == sequence.length:
                reason = 'stop'
            elif request.generated == request.max_tokens:
                reason = 'length'
            outputs.append(FakeOutput(sequence, 1, request.generated, text, reason))
        return at, outputs

    def adopt(self, sequence):
        tokens = min(self.prefix, sequence.request.pending - 1)
        if tokens:
            sequence.request.adopt(tokens)
        return tokens

    def evict(self, sequence):
        sequence.request.evict()
        self.evicted.append(sequence)

    def close(self, sequence):
        sequence.closed = True
        self.closed.append(sequence)


class Consumer:
    """Collects deliveries; `wait` returns them once the request has ended."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.first = threading.Event()
        self.ended = threading.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.first.set()
        if delivery.finish_reason is not None:
            self.ended.set()

    def wait(self, timeout: float = 60.0) -> list[Delivery]:
        assert self.ended.wait(timeout), 'the request did not end'
        return self.deliveries

    @property
    def last(self) -> Delivery:
        return self.wait()[-1]

    @property
    def text(self) -> str:
        return ''.join(d.text for d in self.wait())


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def make_server():
    """Return a function that makes and starts a server; it is stopped after the test."""
    servers = Queue()

    def make(engine, started=True, **config) -> Server:
        latency = LatencyModel('fake', ((1, 1.0), (8, 4.0)), prefill_token_ms=0.1)
        server = Server(engine, latency, ServerConfig(**{'policy': 'orca', **config}))
        if started:
            server.start()
        servers.put(server)
        return server

    yield make
    while not servers.empty():
        assert servers.get().stop(), 'the serving loop did not end'
