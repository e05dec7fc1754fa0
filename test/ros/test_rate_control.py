# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens at the rate of the node's clock and executor, with the real model."""

import threading
import time

from conftest import Caller, get, Spinning, subscribers, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.ros.node import SliceNode
from slice_ros.ros.qos import TOKENS

STORY = {'prompt': 'Tell me a long story about a robot in a warehouse.', 'max_tokens': 400,
         'ttft_ms': float('inf'), 'deadline_ms': float('inf')}


class Listener(Node):
    """Receives the tokens of dialogue, with their times, and the diagnostics of the node."""

    def __init__(self) -> None:
        super().__init__('listener')
        self.times: dict[str, list[float]] = {}
        self.health: list[DiagnosticStatus] = []
        self.create_subscription(msg.TokenChunk, '/slice/dialogue/tokens', self._token, TOKENS)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._diagnostics, 100)
        self.clock = self.create_publisher(Clock, '/clock', 10)

    def _token(self, chunk) -> None:
        self.times.setdefault(chunk.request_id, []).append(time.monotonic())

    def _diagnostics(self, array) -> None:
        self.health += [s for s in array.status if s.name == 'slice: scheduler']

    def rate(self, seconds, settle=0.5):
        """Return tokens a second of the one request that runs, over the next `seconds`."""
        wait_until(lambda: self.times)
        time.sleep(settle)
        (times,) = self.times.values()
        before = len(times)
        time.sleep(seconds)
        return (len(times) - before) / seconds


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
    node, caller, listener = rig(rate_control__mode='paced')
    handle = caller.send(tpot_ms=100.0, **STORY)
    assert 9.0 <= listener.rate(3.0) <= 11.0
    status = caller.call(caller.status).scheduler
    assert status.rate_control == 'paced' and status.gate_open and status.gate_shut == 0
    assert 0 <= status.gate_age_ms < 500
    wait_until(lambda: caller.call(caller.status).scheduler.gated == 1)
    wait_until(lambda: caller.call(caller.status).scheduler.requests[0].gated)
    node.set_parameters([Parameter('rate_control.mode', value='work_conserving')])
    result = get(handle.get_result_async()).result
    assert result.report.output_tokens > 30
    assert caller.call(caller.status).scheduler.rate_control == 'work_conserving'
    wait_until(lambda: not node.gate_timer.ticking)   # an idle node does not tick
    idle = caller.call(caller.status).scheduler
    assert idle.gate_open and idle.gate_age_ms != idle.gate_age_ms
    assert caller.ask(prompt='Hello', max_tokens=3)[1].error_code == Generate.Result.NONE


def test_a_blocked_executor_stops_tokens_and_diagnostics_report_it_at_once(rig):
    node, caller, listener = rig(rate_control__mode='paced', rate_control__stall_s=0.2)
    handle = caller.send(tpot_ms=50.0, **STORY)
    wait_until(lambda: listener.times)
    free, blocked = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        free.wait(30)
    timer = node.create_timer(0.01, block, callback_group=node.group)
    assert blocked.wait(10)
    (times,) = listener.times.values()
    listener.health.clear()
    wait_until(lambda: any(s.level == DiagnosticStatus.ERROR for s in listener.health), 10)
    assert 'gate is shut' in listener.health[-1].message
    count = len(times)
    time.sleep(0.5)
    assert len(times) == count
    wait_until(lambda: len(listener.health) > 1)   # and again, as long as it lasts
    timer.cancel()
    begin = time.monotonic()
    free.set()
    wait_until(lambda: len(times) > count + 10)
    assert time.monotonic() - begin > 0.4 * 10 * 0.05   # at its rate: no flood
    wait_until(lambda: listener.health[-1].level == DiagnosticStatus.WARN)
    assert 'of late' in listener.health[-1].message
    status = caller.call(caller.status).scheduler
    assert status.gate_open and status.gate_shut == 1
    get(handle.cancel_goal_async())
    node.destroy_timer(timer)


def test_the_rate_follows_the_simulated_clock_and_stops_with_it(rig):
    node, caller, listener = rig(rate_control__mode='paced', use_sim_time=True)
    sim = Sim(listener)
    try:
        wait_until(lambda: node.get_clock().now().nanoseconds)
        handle = caller.send(tpot_ms=100.0, **STORY)
        sim.speed = 0.5
        assert 4.0 <= listener.rate(3.0) <= 6.0
        sim.speed = 2.0
        assert 17.0 <= listener.rate(2.0) <= 23.0
        sim.speed = 0.0
        assert listener.rate(1.0, settle=0.7) == 0
        wait_until(lambda: listener.health[-1].level == DiagnosticStatus.ERROR)
        shut = caller.call(caller.status).scheduler
        assert not shut.gate_open and shut.gate_shut == 1 and shut.gate_age_ms > 500
        sim.now, sim.speed = 1.0, 1.0    # the simulation is started anew
        assert 8.0 <= listener.rate(2.0) <= 12.0
        sim.speed = 0.0
        get(handle.cancel_goal_async())
        assert get(handle.get_result_async()).result.error_code == Generate.Result.CANCELLED
        # A request that comes when the clock has stood still for a while waits for it.
        time.sleep(0.6)
        waiting = caller.send(**STORY)
        time.sleep(0.3)
        assert not caller.call(caller.status).scheduler.requests[0].output_tokens
        sim.speed = 1.0
        wait_until(lambda: len(listener.times) == 2)
        get(waiting.cancel_goal_async())
    finally:
        sim.close()
