# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Delivery never slows the loop, loses nothing and keeps its order."""

import threading
import time

import pytest
from slice_ros.errors import ErrorCode
from slice_ros.request import Request
from slice_ros.serving import delivery as module
from slice_ros.serving.delivery import Courier, Delivery, LIMIT
from slice_ros.slo import SloClass

from .conftest import Consumer, FakeEngine, FakeInfo
from .test_server import ask, wait_until

REQUEST = Request('a', SloClass('x'), 0.0, 1, 1)


def delivery(number):
    return Delivery(REQUEST, number, '', None, ErrorCode.NONE, '', number + 1, 0.0)


def test_a_consumer_that_hangs_holds_up_no_step(make_server):
    engine = FakeEngine()
    free = threading.Event()

    class Slow(Consumer):
        def __call__(self, delivery):
            free.wait(10)
            super().__call__(delivery)
    _, consumer = ask(make_server(engine), max_tokens=300, on_output=Slow())
    wait_until(lambda: engine.closed)  # computed to the end before anybody listened
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


def test_what_waits_is_bounded_and_nothing_is_lost():
    heard, free = [], threading.Event()

    def consumer(delivery):
        free.wait(10)
        heard.append(delivery.number)
    courier = Courier(lambda delivery: None)
    courier.start()
    count = LIMIT + 100
    writer = threading.Thread(
        target=lambda: [courier.put((consumer, delivery(i))) for i in range(count)])
    writer.start()
    writer.join(0.3)
    assert writer.is_alive()  # it waits for room
    free.set()
    writer.join(10)
    assert courier.stop(10) and heard == list(range(count))


def test_a_consumer_that_fails_is_named_and_the_next_is_served():
    failed, heard = [], []
    courier = Courier(failed.append)
    courier.start()
    courier.put((lambda delivery: 1 / 0, delivery(0)), (heard.append, delivery(1)))
    begin = time.monotonic()
    assert courier.stop(10) and time.monotonic() - begin < 5
    assert [d.number for d in failed] == [0] and [d.number for d in heard] == [1]


@pytest.fixture
def courier():
    courier = Courier(lambda delivery: None)
    courier.start()
    yield courier
    assert courier.stop(10)


def test_the_loop_rests_until_listeners_are_told(courier, monkeypatch):
    monkeypatch.setattr(module, 'MOST', 10.0)
    told = []

    def listened_to(delivery):
        time.sleep(0.02)
        told.append(delivery.number)
        return True
    courier.put((listened_to, delivery(0)))
    wait_until(courier._idle.is_set)
    for number in range(1, 10):
        courier.put((listened_to, delivery(number)))
        courier.rest()
        assert told[-1] == number


def test_nobody_rests_for_those_who_do_not_listen(courier, monkeypatch):
    monkeypatch.setattr(module, 'MOST', 30.0)
    free = threading.Event()
    begin = time.monotonic()
    courier.put((lambda delivery: None, delivery(0)), (lambda delivery: free.wait(30), None))
    courier.rest()
    assert time.monotonic() - begin < 20
    free.set()


def test_the_loop_rests_for_a_slow_one_only_once(courier, monkeypatch):
    monkeypatch.setattr(module, 'MOST', 1.0)
    free, told = threading.Event(), []

    def listened_to(delivery):
        told.append(delivery)
        return True
    courier.put((listened_to, delivery(0)))
    wait_until(courier._idle.is_set)
    courier.put((lambda delivery: free.wait(30), delivery(1)))
    begin = time.monotonic()
    courier.rest()
    once = time.monotonic()
    courier.rest()
    assert once - begin >= 0.9 and time.monotonic() - once < 0.9
    free.set()


@pytest.mark.parametrize('fills', [True, False])
def test_only_an_engine_that_fills_the_cores_leaves_them_to_listeners(make_server, monkeypatch,
                                                                      fills):
    monkeypatch.setattr(Courier, 'rest', lambda self: 5.0)
    server = make_server(FakeEngine(info=FakeInfo(fills_cores=fills)))
    _, consumer = ask(server, max_tokens=5)
    consumer.wait()
    step, _ = server.snapshot().step
    assert (step >= 5.0) is fills  # what a step takes includes it
