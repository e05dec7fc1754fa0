# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The examples and the demo as processes beside a node: all that their launch files start."""

from pathlib import Path
import signal
import sys

from example_checks import check_demo_report, EXAMPLE_CHECKS
import pytest
from robot import Robot, start

ROOT = Path(__file__).resolve().parents[2]
IN_NAMESPACE = ['-r', '__ns:=/robot']

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    """A node and the three examples in one namespace; at SIGINT they end with 0."""
    log = tmp_path_factory.mktemp('programs') / 'log.txt'
    with log.open('w') as output:
        processes = [start(
            [sys.executable, '-m', f'slice_ros.{name}'],
            ['--params-file', str(ROOT / 'config' / 'slice.yaml'), *IN_NAMESPACE], ROOT, output)
            for name in ('ros.main', 'examples.control', 'examples.goal_planner',
                         'examples.talker')]
    robot = Robot('/robot/slice')
    try:
        robot.wait_until_ready()
        yield robot
        for process in processes:
            process.send_signal(signal.SIGINT)
        assert [p.wait(timeout=30.0) for p in processes] == [0] * 4, log.read_text()
        assert 'Traceback' not in log.read_text()
    finally:
        robot.close()
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize('check', EXAMPLE_CHECKS, ids=lambda check: check.__name__)
def test_example(robot, check):
    """See the docstring of the check."""
    check(robot)


def test_demo_on_a_node_that_runs(robot, tmp_path):
    """It asks the node of its namespace, and its figures are whole."""
    report = tmp_path / 'report.json'
    with (tmp_path / 'demo.txt').open('w') as output:
        demo = start([sys.executable, '-m', 'slice_ros.cli.demo', '--node', 'slice',
                      '--report', str(report)], IN_NAMESPACE, ROOT, output)
    try:
        assert demo.wait(timeout=120.0) == 0, (tmp_path / 'demo.txt').read_text()
    finally:
        demo.kill()
        demo.wait()
    check_demo_report(report)
