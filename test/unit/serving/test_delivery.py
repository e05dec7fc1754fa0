# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Delivery never slows the loop, loses nothing and keeps its order."""

import threading
import time

import pytest
from slice_ros.errors import ErrorCode
from slice_ros.request import Request
from slice_ros.serving import delivery as module
from slice_ros.serving.delivery import Delivery, DeliveryThread, MAX_QUEUED
from slice_ros.slo import SloClass

from .conftest import Consumer, FakeEngine, FakeInfo
from .test_server import ask, wait_until

REQUEST = Request('a', SloClass('x'), 0.0, 1, 1)


def delivery(number):
    return Delivery(REQUEST, number, '', None, ErrorCode.NONE, '', number + 1, 0.0)


def test_a_consumer_that_hangs_delays_no_step(make_server):
    engine = FakeEngine()
    free = threading.Event()

    class Slow(Consumer):
        def __call__(self, delivery):
            free.wait(100)
            super().__call__(delivery)
    _, consumer = ask(make_server(engine), max_tokens=300, on_output=Slow())
    wait_until(lambda: engine.closed)  # computed to the end before anything is delivered
    assert not consumer.deliveries
    free.set()
    assert [d.tokens for d in consumer.wait()] == list(range(1, 301))


def test_each_delivery_keeps_the_figures_of_its_own_token(make_server):
    request, consumer = ask(make_server(FakeEngine(seconds=0.001)), max_tokens=20)
    deliveries = consumer.wait()
    assert [d.number + 1 for d in deliveries] == [d.tokens for d in deliveries]
    times = [d.at for d in deliveries]
    assert times == sorted(times) and times[0] == request.first_token_at
    assert times[-1] == request.last_token_at and len(set(times)) == 20


def test_what_waits_is_bounded_and_nothing_is_dropped():
    received, free = [], threading.Event()

    def consumer(delivery):
        free.wait(100)
        received.append(delivery.number)
    thread = DeliveryThread(lambda delivery: None)
    thread.start()
    count = MAX_QUEUED + 100
    writer = threading.Thread(
        target=lambda: [thread.put((consumer, delivery(i))) for i in range(count)])
    writer.start()
    writer.join(0.3)
    assert writer.is_alive()  # it waits for room
    free.set()
    writer.join(60)
    assert thread.stop(60) and received == list(range(count))


def test_a_consumer_that_fails_is_named_and_the_next_is_served():
    failed, received = [], []
    thread = DeliveryThread(failed.append)
    thread.start()
    thread.put((lambda delivery: 1 / 0, delivery(0)), (received.append, delivery(1)))
    assert thread.stop(60)
    assert [d.number for d in failed] == [0] and [d.number for d in received] == [1]


@pytest.fixture
def thread():
    thread = DeliveryThread(lambda delivery: None)
    thread.start()
    yield thread
    assert thread.stop(60)


def test_the_loop_yields_until_subscribers_have_received(thread, monkeypatch):
    monkeypatch.setattr(module, 'MAX_YIELD', 60.0)
    received = []

    def subscribed(delivery):
        time.sleep(0.02)
        received.append(delivery.number)
        return True
    thread.put((subscribed, delivery(0)))
    wait_until(thread._idle.is_set)
    for number in range(1, 10):
        thread.put((subscribed, delivery(number)))
        thread.yield_cores()
        assert received[-1] == number


def test_the_loop_does_not_yield_without_subscribers(thread, monkeypatch):
    monkeypatch.setattr(module, 'MAX_YIELD', 100.0)
    free = threading.Event()
    begin = time.monotonic()
    thread.put((lambda delivery: None, delivery(0)), (lambda delivery: free.wait(100), None))
    thread.yield_cores()
    assert time.monotonic() - begin < 90
    free.set()


def test_the_loop_yields_to_a_slow_consumer_only_once(thread, monkeypatch):
    monkeypatch.setattr(module, 'MAX_YIELD', 0.5)
    free, received = threading.Event(), []

    def subscribed(delivery):
        received.append(delivery)
        return True
    thread.put((subscribed, delivery(0)))
    wait_until(thread._idle.is_set)
    thread.put((lambda delivery: free.wait(100), delivery(1)))
    begin = time.monotonic()
    thread.yield_cores()
    once = time.monotonic()
    monkeypatch.setattr(module, 'MAX_YIELD', 100.0)
    thread.yield_cores()
    assert once - begin >= 0.4 and time.monotonic() - once < 90
    free.set()


@pytest.mark.parametrize('fills', [True, False])
def test_the_loop_yields_only_where_the_engine_fills_the_cores(make_server, monkeypatch,
                                                               fills):
    monkeypatch.setattr(DeliveryThread, 'yield_cores', lambda self: 5.0)
    server = make_server(FakeEngine(info=FakeInfo(fills_cores=fills)))
    _, consumer = ask(server, max_tokens=5)
    consumer.wait()
    step, _ = server.snapshot().step
    assert (step >= 5.0) is fills  # what a step takes includes it
