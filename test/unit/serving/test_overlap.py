# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""An engine that computes by itself is never kept waiting, and callers notice nothing of it."""

import random
import threading

import pytest
from slice_ros.errors import ErrorCode
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving.delivery import Delivery, DeliveryThread

from .conftest import Consumer, FakeEngine, FakeInfo
from .test_gated_server import gated  # noqa: F401
from .test_server import ask, CONTROL, wait_until


class Overlapping(FakeEngine):
    """Between `launch` and `collect` it computes; `during` is called then, with the step's number.

    `log` says what happened in which order.
    """

    def __init__(self, log=None, during=lambda number: None, launching=lambda number: None,
                 **options):
        super().__init__(info=FakeInfo(fills_cores=False, asynchronous=True), **options)
        self.log, self.during, self.launching = [] if log is None else log, during, launching

    def launch(self, work, drafts):
        self.log.append('launch')
        self.launching(self.log.count('launch'))
        return super().launch(work, drafts)

    def collect(self, launched, clock):
        self.during(self.log.count('launch'))
        self.log.append('collect')
        return super().collect(launched, clock)


@pytest.fixture
def log(monkeypatch):
    """Return a list that the tokens and ends go to as the loop hands them out."""
    log, put = [], DeliveryThread.put

    def logged(self, *deliveries):
        log.extend(d.finish_reason or d.tokens for _, d in deliveries if isinstance(d, Delivery))
        put(self, *deliveries)
    monkeypatch.setattr(DeliveryThread, 'put', logged)
    return log


def numbers(consumer):
    """Return the tokens an ended request received: each once, in order."""
    received = consumer.wait()
    assert [d.number for d in received] == list(range(len(received)))
    tokens = [d.tokens for d in received if d.text]
    assert tokens == list(range(1, len(tokens) + 1))
    assert ''.join(d.text for d in received) == ''.join(f'{n} ' for n in tokens)
    assert all(d.finish_reason is None for d in received[:-1])
    assert received[-1].tokens == len(tokens)
    return tokens


def test_tokens_are_handed_out_once_the_next_step_is_launched(make_server, log):
    _, consumer = ask(make_server(Overlapping(log)), max_tokens=4)
    assert numbers(consumer) == [1, 2, 3, 4]
    assert log == ['launch', 'collect', 'launch', 1, 'collect', 'launch', 2, 'collect',
                   'launch', 3, 'collect', 'length']


def test_an_engine_that_blocks_the_loop_delivers_at_once(make_server, log):
    engine = Overlapping(log)
    engine.info = FakeInfo()
    _, consumer = ask(make_server(engine), max_tokens=3)
    consumer.wait()
    assert log == ['launch', 'collect', 1, 'launch', 'collect', 2, 'launch', 'collect', 'length']


def test_every_step_is_learnt_from_and_counted(make_server):
    server = make_server(Overlapping())
    for _ in range(3):
        numbers(ask(server, max_tokens=5)[1])
    stats = server.snapshot()
    assert (stats.steps, stats.tokens, stats.delivery) == (15, 15, 0.0)
    assert stats.prediction_error > 0 and server.latency.error > 0


def test_who_is_cancelled_during_a_step_receives_its_token_and_then_the_end(make_server):
    asked = threading.Event()

    def cancel(number):
        assert asked.wait(10)
        if number == 3:
            server.cancel(request.id)
    server = make_server(engine := Overlapping(during=cancel))
    request, consumer = ask(server, max_tokens=50)
    asked.set()
    assert numbers(consumer) == [1, 2, 3] and consumer.last.error is ErrorCode.CANCELLED
    assert len(engine.steps) == 3 and len(engine.closed) == 1


@pytest.mark.parametrize('when', ['during', 'launching'])
@pytest.mark.parametrize('error, code', [(RuntimeError('luck'), ErrorCode.ENGINE_FAILURE),
                                         (MemoryError('full'), ErrorCode.OUT_OF_MEMORY)])
def test_a_step_that_fails_ends_its_requests_behind_their_tokens(make_server, when, error, code):
    asked = threading.Event()

    def fail(number):
        assert asked.wait(10)
        if number == 3:
            raise error
    server = make_server(engine := Overlapping(**{when: fail}))
    failing = [ask(server, max_tokens=50)[1]]
    wait_until(lambda: engine.log)
    failing.append(ask(server, max_tokens=50)[1])  # comes while the first step is under way
    asked.set()
    assert [numbers(consumer) for consumer in failing] == [[1, 2], [1]]
    assert [consumer.last.error for consumer in failing] == [code, code]
    assert len(engine.closed) == 2
    assert numbers(ask(server, max_tokens=5)[1]) == [1, 2, 3, 4, 5]
    assert server.snapshot().engine_failures == 1


def test_a_fault_of_the_loop_and_a_stop_come_behind_the_tokens_too(make_server, monkeypatch):
    server = make_server(Overlapping(seconds=0.01))
    consumers = []
    for fault in (True, False):
        request, consumer = ask(server, max_tokens=400)
        consumers.append(consumer)
        wait_until(lambda: request.generated > 3)
        if fault:
            with monkeypatch.context() as patch:
                patch.setattr(server._loop.planner, 'plan', lambda *given: 1 / 0)
                consumer.wait()
        else:
            assert server.stop(0)
        assert len(numbers(consumer)) == request.generated > 3
    assert [c.last.error for c in consumers] == [ErrorCode.ENGINE_FAILURE, ErrorCode.SHUTTING_DOWN]


@pytest.mark.parametrize('overlaps', [True, False])
def test_a_step_that_nothing_can_be_learnt_from_is_no_harm(make_server, monkeypatch, overlaps):
    monkeypatch.setattr(LatencyModel, 'observe', lambda *given: 1 / 0)
    server = make_server(Overlapping() if overlaps else FakeEngine())
    assert numbers(ask(server, max_tokens=5)[1]) == [1, 2, 3, 4, 5]
    assert server.snapshot().steps == 5


def test_nobody_waits_for_a_token_while_the_loop_does(gated):  # noqa: F811
    server, timer, _ = gated(engine=Overlapping(seconds=0.01))
    request, consumer = ask(server, slo=CONTROL, max_tokens=480)
    wait_until(lambda: request.generated > 3)
    timer.runs = False
    wait_until(lambda: server.snapshot().gate_shut == 1)
    wait_until(lambda: len(consumer.deliveries) == request.generated)
    assert not consumer.ended.is_set()
    server.cancel(request.id)
    assert len(numbers(consumer)) == request.generated


def test_whatever_happens_each_caller_hears_each_token_once_and_in_order(make_server):
    chance = random.Random(5)

    def at_times(number):
        if number % 17 == 0:
            raise RuntimeError('luck')
    server = make_server(Overlapping(during=at_times, seconds=5e-4,
                                     launching=lambda number: at_times(number + 8)),
                         max_queued=100)
    asked = []
    for _ in range(80):
        asked.append(ask(server, max_tokens=chance.randrange(1, 30), prompt=chance.randrange(1, 9),
                         on_output=Consumer()))
        if chance.random() < 0.3:
            server.cancel(chance.choice(asked[-2:])[0].id)
        threading.Event().wait(chance.random() * 2e-3)
    for request, consumer in asked:
        assert len(numbers(consumer)) == request.generated
    assert {c.last.error for _, c in asked} == {
        ErrorCode.NONE, ErrorCode.CANCELLED, ErrorCode.ENGINE_FAILURE}
