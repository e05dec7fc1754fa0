# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Two nodes as processes side by side: the checks of the launch tests without that stack."""

from pathlib import Path
import signal
import sys

from lifecycle_msgs.msg import Transition
import pytest
from robot import MANY_WORDS, Robot, start
from serving_checks import (
    check_respawn_while_a_client_waits, check_side_by_side, CHECKS, id_of, STORY)
from slice_ros.action import Generate

ROOT = Path(__file__).resolve().parents[2]
SIDES = ('left', 'right')

pytestmark = pytest.mark.timeout(300)


class Nodes:
    """One node for each side, in its namespace, and a robot that talks to it."""

    def __init__(self, folder: Path):
        """Start the nodes; they get ready by themselves."""
        self.folder, self.processes = folder, {}
        for side in SIDES:
            self.start(side)
        self.robots = {side: Robot(f'/{side}/slice') for side in SIDES}

    def start(self, side):
        """Start the node of a side, as a launch file would with `namespace:=side`."""
        with (self.folder / f'{side}.txt').open('a') as log:
            self.processes[side] = start(
                [sys.executable, '-m', 'slice_ros.ros.main'],
                ['--params-file', str(ROOT / 'config' / 'slice.yaml'), '-r', f'__ns:=/{side}',
                 '-p', 'engine.slots:=16'], ROOT, log)

    def respawn(self, side):
        """Kill the node of a side and start another."""
        self.processes[side].kill()
        self.processes[side].wait()
        self.start(side)

    def output(self) -> str:
        """Return all that was printed."""
        return ''.join((self.folder / f'{side}.txt').read_text() for side in SIDES)


@pytest.fixture(scope='module')
def nodes(tmp_path_factory):
    """Both nodes, ready."""
    nodes = Nodes(tmp_path_factory.mktemp('nodes'))
    try:
        for robot in nodes.robots.values():
            robot.wait_until_ready()
        yield nodes
    finally:
        for robot in nodes.robots.values():
            robot.close()
        for process in nodes.processes.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
def test_it(nodes, check):
    """See the docstring of the check."""
    check(nodes.robots['left'])


def test_side_by_side(nodes):
    """What is done to one is not done to the other."""
    check_side_by_side(*nodes.robots.values())


def test_respawn_while_a_client_waits(nodes):
    """The client is served by the next node."""
    check_respawn_while_a_client_waits(nodes.robots['right'], lambda: nodes.respawn('right'))


def test_interrupted_both_end_with_0(nodes):
    """SIGINT under load and SIGTERM in a transition: code 0, answers, and no traceback."""
    left, right = nodes.robots.values()
    assert right.put(shutdown__drain_s=5.0).successful
    goals = []
    for robot in (left, right):
        robot.listen('dialogue')
        assert robot.put(rate_control__mode='paced').successful   # none ends by itself
        goals.append([robot.send('dialogue', STORY, 900, response_format=MANY_WORDS)
                      for _ in range(8)])
        robot.wait_for_tokens('dialogue', [id_of(handle) for handle, _ in goals[-1]])
    right.begin(Transition.TRANSITION_DEACTIVATE)
    right.wait_for(lambda: right.status().state == 'draining', 'it does not drain')
    nodes.processes['left'].send_signal(signal.SIGINT)
    nodes.processes['right'].send_signal(signal.SIGTERM)
    for _, result in goals[0]:
        assert left.result_of(result).result.error_code == Generate.Result.SHUTTING_DOWN
    assert [p.wait(timeout=60.0) for p in nodes.processes.values()] == [0, 0], nodes.output()
    assert 'Traceback' not in nodes.output()
