# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The loop behind a gate: nothing runs while it is shut, and what is asked of it still happens."""

import threading
import time

import pytest
from slice_ros.errors import ErrorCode
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Gate, RateControl, Server, ServerConfig
from slice_ros.slo import SloClass

from .conftest import FakeEngine
from .test_server import ask, wait_until

STALL = 0.15


class Timer:
    """Opens a gate every 2 ms from a thread, while it runs.

    Time passes in that thread alone: none does while it has to wait for the processor.
    """

    def __init__(self, mode):
        self.now, self.runs, self.over = 50.0, True, False
        self.gate = Gate(RateControl(mode, 0.004, STALL), self.clock)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def clock(self):
        return self.now

    def _run(self):
        while not self.over:
            self.now += 0.002
            if self.runs:
                self.gate.open(self.now + 1e6)
            time.sleep(0.002)


@pytest.fixture
def gated():
    """Return a function that makes a server behind a gate, its timer, and what it was notified."""
    made = []

    def make(mode='work_conserving', engine=None):
        timer, notified = Timer(mode), []
        server = Server(engine or FakeEngine(seconds=0.01),
                        LatencyModel('fake', ((1, 1.0), (8, 4.0)), prefill_token_ms=0.1),
                        ServerConfig(policy='slice'), clock=timer.clock, gate=timer.gate,
                        on_gate=notified.append)
        wait_until(lambda: not timer.gate.shut(timer.now))
        server.start()
        made.append((server, timer))
        return server, timer, notified
    yield make
    for server, timer in made:
        assert server.stop()
        timer.over = True
        timer.thread.join(60)


@pytest.mark.parametrize('mode', ['paced', 'work_conserving'])
def test_without_a_tick_nothing_runs_until_the_next(gated, mode):
    server, timer, notified = gated(mode)
    request, consumer = ask(server, slo=SloClass('a', tpot_ms=20), max_tokens=480)
    wait_until(lambda: request.generated > 3)
    timer.runs = False
    wait_until(lambda: notified == [True])
    steps = len(server.engine.steps)
    second, _ = ask(server, max_tokens=480)
    time.sleep(0.3)
    assert len(server.engine.steps) == steps and not second.generated
    shut = server.snapshot()
    assert not shut.gate_open and shut.gate_shut == 1 and shut.gate_age > STALL
    timer.runs = True
    wait_until(lambda: notified[-1] is False and second.generated)
    done = request.generated
    wait_until(lambda: request.generated > done)
    again = server.snapshot()
    assert again.gate_open and again.gate_shut == 1 and again.gate_age <= STALL
    assert again.rate_control == mode


def test_a_shut_gate_is_notified_again_and_again(gated):
    server, timer, notified = gated()
    request, _ = ask(server, max_tokens=480)
    timer.runs = False
    wait_until(lambda: len(notified) >= 3)
    assert set(notified) == {True} and server.snapshot().gate_shut == 1


def test_cancel_and_stop_work_while_the_gate_is_shut(gated):
    server, timer, notified = gated('paced')
    request, consumer = ask(server, max_tokens=480)
    other, left = ask(server, max_tokens=480)
    timer.runs = False
    wait_until(lambda: notified)
    assert server.cancel(request.id)
    assert consumer.last.error is ErrorCode.CANCELLED
    assert server.stop()
    assert left.last.error is ErrorCode.SHUTTING_DOWN
    assert set(notified) == {True}   # it has not opened meanwhile


def test_an_idle_server_needs_no_tick(gated):
    server, timer, notified = gated()
    timer.runs = False
    end = timer.now + 2 * STALL
    wait_until(lambda: timer.now > end)
    snapshot = server.snapshot()
    assert not notified and snapshot.gate_open and snapshot.gate_age != snapshot.gate_age


def test_paced_requests_are_gated_and_the_engine_idles(gated):
    server, timer, notified = gated('paced')
    slo = SloClass('a', tpot_ms=50)
    requests = [ask(server, slo=slo, max_tokens=40)[0] for _ in range(3)]
    wait_until(lambda: server.snapshot().gated == 3)
    for request in requests:
        wait_until(lambda: request.ended)
        # 0.05 where the machine does nothing else; `test_gate_ticks.py` has the exact rates.
        assert 0.04 < request.tpot < 0.2
    assert server.snapshot().gated == 0 and not notified


def test_a_fault_of_who_is_notified_is_nobody_elses(gated):
    server, timer, notified = gated()
    server._loop.on_gate = lambda shut: 1 / 0
    request, consumer = ask(server, max_tokens=100)
    timer.runs = False
    wait_until(lambda: server.snapshot().gate_shut)
    timer.runs = True
    assert consumer.last.finish_reason == 'length'
