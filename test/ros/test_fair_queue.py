# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A thousand dialogue goals thrown at the node: control is served within its objectives."""

from collections import Counter
import subprocess
import sys

from conftest import wait_until
from slice_ros.errors import ErrorCode

GOALS = 1000
IN_FLIGHT = 50     # goals that the node has not accepted yet: DDS keeps a bounded number of them
DECISIONS = 20
LATE = 1           # of these, for a machine that does something else
# Another process, as a planner that has lost count of its goals would be.
FLOOD = f"""
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from slice_ros.action import Generate
from slice_ros.ros.qos import SERVICES
rclpy.init()
node = rclpy.create_node('flood')
executor = SingleThreadedExecutor()
executor.add_node(node)
client = ActionClient(node, Generate, '/slice/generate', goal_service_qos_profile=SERVICES)
assert client.wait_for_server(20)
accepted = []
for number in range({GOALS}):
    goal = Generate.Goal(slo_class='dialogue', prompt=f'Tell me story {{number}}.', max_tokens=200)
    client.send_goal_async(goal).add_done_callback(accepted.append)
    while number - len(accepted) > {IN_FLIGHT}:
        executor.spin_once(0.1)
"""


def test_control_is_served_within_its_objectives(node, caller):
    def dialogue():
        return node.server.snapshot().classes['dialogue']
    flood, results, thrown = subprocess.Popen([sys.executable, '-c', FLOOD]), [], 0
    try:
        wait_until(lambda: dialogue().rejected, what='the queue was not full')
        while dialogue().received < GOALS:
            results.append(caller.ask(
                slo_class='control', prompt=f'A wall is {len(results)} m ahead. STOP or GO?',
                max_tokens=4)[1])
            thrown += GOALS // DECISIONS
            wait_until(lambda: dialogue().received >= min(thrown, GOALS))
        assert flood.wait(20) == 0
    finally:
        flood.kill()
        node.server.cancel_class('dialogue')
    assert Counter(ErrorCode(r.error_code) for r in results) == {ErrorCode.NONE: len(results)}
    late = [r.report.ttft_ms for r in results if not r.report.attained]
    assert len(results) >= DECISIONS and len(late) <= LATE, late
    assert dialogue().rejected > GOALS / 2
    wait_until(lambda: not node.server.snapshot().requests)
