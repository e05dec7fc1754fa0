# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens at the rate of the node's clock and executor, with the real model.

Times are the stamps of the tokens: by the clock of the node, and not of their receipt.
"""

from itertools import pairwise
from statistics import median
import threading
import time

from conftest import Caller, get, LONG, Spinning, subscribers, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.ros.node import SliceNode
from slice_ros.ros.qos import TOKENS

STORY = {**LONG, 'ttft_ms': float('inf'), 'deadline_ms': float('inf')}
PACE = 0.2     # seconds between two tokens: a machine that does something else keeps it, too
STALL = 1.0    # seconds
SETTLED = 3    # tokens after a change of the clock's speed


class Listener(Node):
    """Receives the stamps of the tokens of dialogue, and the diagnostics of the node."""

    def __init__(self) -> None:
        super().__init__('listener')
        self.times: dict[str, list[float]] = {}
        self.health: list[DiagnosticStatus] = []
        self.create_subscription(msg.TokenChunk, '/slice/dialogue/tokens', self._token, TOKENS)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._diagnostics, 100)
        self.clock = self.create_publisher(Clock, '/clock', 10)

    def _token(self, chunk) -> None:
        self.times.setdefault(chunk.request_id, []).append(
            chunk.stamp.sec + chunk.stamp.nanosec / 1e9)

    def _diagnostics(self, array) -> None:
        self.health += [s for s in array.status if s.name == 'slice: scheduler']

    def pace(self, tokens=9):
        """Return the median time between two of the next tokens of the one request that runs."""
        wait_until(lambda: self.times)
        (times,) = self.times.values()
        first = len(times) + SETTLED
        wait_until(lambda: len(times) > first + tokens)
        return median(b - a for a, b in pairwise(times[first:first + tokens + 1]))


@pytest.fixture
def rig(ros, engine, latency):
    """Return a function that starts a node with parameters: (node, caller, listener)."""
    open_ = []

    def start(**parameters):
        node = SliceNode(parameter_overrides=[
            Parameter(name.replace('__', '.'), value=value)
            for name, value in {'limits__max_tokens': 400, 'status__period_s': 0.2,
                                **parameters}.items()])
        caller, listener = Caller(), Listener()
        spinning = [Spinning(node), Spinning(caller), Spinning(listener)]
        open_.append((node, caller, listener, spinning))
        node.serve(engine, latency)
        assert caller.generate.wait_for_server(20) and caller.status.wait_for_service(20)
        wait_until(lambda: subscribers(node, '/slice/dialogue/tokens') == 2)
        wait_until(lambda: subscribers(node, '/diagnostics'))
        return node, caller, listener
    yield start
    for node, caller, listener, spinning in open_:
        assert node.close()
        for each in spinning:
            each.close()
        for each in (node, caller, listener):
            each.destroy_node()


class Sim:
    """Publishes /clock every 2 ms, at a speed that can be changed."""

    def __init__(self, listener) -> None:
        self.now, self.speed, self.over = 100.0, 1.0, False
        self._publisher = listener.clock
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        before = time.monotonic()
        while not self.over:
            time.sleep(0.002)
            now = time.monotonic()
            self.now, before = self.now + (now - before) * self.speed, now
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(int(self.now * 1e9), 10**9)
            self._publisher.publish(clock)

    def close(self) -> None:
        self.over = True
        self._thread.join(5)


def test_a_class_is_served_at_its_rate_until_the_mode_is_changed(rig):
    node, caller, listener = rig(rate_control__mode='paced', rate_control__stall_s=10.0)
    handle = caller.send(tpot_ms=PACE * 1e3, **STORY)
    assert 0.8 * PACE < listener.pace() < 1.25 * PACE
    status = caller.call(caller.status).scheduler
    assert status.rate_control == 'paced' and status.gate_open and status.gate_shut == 0
    assert status.gate_age_ms >= 0
    wait_until(lambda: caller.call(caller.status).scheduler.gated == 1)
    wait_until(lambda: caller.call(caller.status).scheduler.requests[0].gated)
    node.set_parameters([Parameter('rate_control.mode', value='work_conserving')])
    assert listener.pace() < 0.6 * PACE
    get(handle.cancel_goal_async())
    get(handle.get_result_async())
    assert caller.call(caller.status).scheduler.rate_control == 'work_conserving'
    wait_until(lambda: not node.gate_timer.ticking)   # an idle node does not tick
    idle = caller.call(caller.status).scheduler
    assert idle.gate_open and idle.gate_age_ms != idle.gate_age_ms
    assert caller.ask(prompt='Hello', max_tokens=3)[1].error_code == Generate.Result.NONE


def test_a_blocked_executor_stops_tokens_and_diagnostics_report_it_at_once(rig):
    node, caller, listener = rig(rate_control__mode='paced', rate_control__stall_s=STALL)
    handle = caller.send(tpot_ms=50.0, **STORY)
    wait_until(lambda: listener.times)
    free, blocked = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        free.wait(100)
    timer = node.create_timer(0.01, block, callback_group=node.group)
    assert blocked.wait(60)
    (times,) = listener.times.values()
    listener.health.clear()
    wait_until(lambda: any(s.level == DiagnosticStatus.ERROR for s in listener.health))
    assert 'gate is shut' in listener.health[-1].message
    count = len(times)
    time.sleep(0.5)
    assert len(times) == count
    wait_until(lambda: len(listener.health) > 1)   # and again, as long as it lasts
    timer.cancel()
    free.set()
    wait_until(lambda: len(times) > count + 10)
    assert times[count + 10] - times[count] > 0.4 * 10 * 0.05   # at its rate: no flood
    wait_until(lambda: listener.health[-1].level == DiagnosticStatus.WARN)
    assert 'of late' in listener.health[-1].message
    status = caller.call(caller.status).scheduler
    assert status.gate_open and status.gate_shut == 1
    get(handle.cancel_goal_async())
    node.destroy_timer(timer)


def test_the_rate_follows_the_simulated_clock_and_stops_with_it(rig):
    node, caller, listener = rig(rate_control__mode='paced', use_sim_time=True,
                                 rate_control__stall_s=STALL)
    sim = Sim(listener)
    try:
        wait_until(lambda: node.get_clock().now().nanoseconds)
        handle = caller.send(tpot_ms=PACE * 1e3, **STORY)
        sim.speed = 0.5
        assert 0.75 * PACE < listener.pace(5) < 1.3 * PACE
        sim.speed = 2.0
        assert 0.75 * PACE < listener.pace() < 1.3 * PACE
        sim.speed = 0.0
        wait_until(lambda: listener.health[-1].level == DiagnosticStatus.ERROR)
        (times,) = listener.times.values()
        count = len(times)
        time.sleep(0.5)
        assert len(times) == count
        shut = caller.call(caller.status).scheduler
        assert not shut.gate_open and shut.gate_shut == 1 and shut.gate_age_ms > 1e3 * STALL
        sim.now, sim.speed = 1.0, 1.0    # the simulation is started anew
        assert 0.75 * PACE < listener.pace() < 1.3 * PACE
        sim.speed = 0.0
        get(handle.cancel_goal_async())
        assert get(handle.get_result_async()).result.error_code == Generate.Result.CANCELLED
        # A request that comes when the clock has stood still for a while waits for it.
        time.sleep(1.2 * STALL)
        waiting = caller.send(**STORY)
        time.sleep(0.3)
        assert not caller.call(caller.status).scheduler.requests[0].output_tokens
        sim.speed = 1.0
        wait_until(lambda: len(listener.times) == 2)
        get(waiting.cancel_goal_async())
    finally:
        sim.close()
