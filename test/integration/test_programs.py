# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The examples, the gateway and the demo as processes beside a node: what launch files start."""

from pathlib import Path
import re
import signal
import sys

from example_checks import check_demo_report, EXAMPLE_CHECKS
from gateway_checks import check_it_ends, GATEWAY_CHECKS, ready
from langchain_checks import LANGCHAIN_CHECKS
import pytest
from robot import Robot, start

ROOT = Path(__file__).resolve().parents[2]
IN_NAMESPACE = ['-r', '__ns:=/robot']

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    """A node and the examples in one namespace; at SIGINT they end with 0."""
    log = tmp_path_factory.mktemp('programs') / 'log.txt'
    with log.open('w') as output:
        processes = [start(
            [sys.executable, '-m', f'slice_ros.{name}'],
            ['--params-file', str(ROOT / 'config' / 'slice.yaml'), *IN_NAMESPACE], ROOT, output)
            for name in ('ros.main', 'examples.control', 'examples.goal_planner',
                         'examples.talker', 'examples.patrol_tree', 'examples.look')]
    robot = Robot('/robot/slice')
    try:
        robot.wait_until_ready()
        yield robot
        for process in processes:
            process.send_signal(signal.SIGINT)
        assert [p.wait(timeout=60.0) for p in processes] == [0] * 6, log.read_text()
        assert 'Traceback' not in log.read_text()
    finally:
        robot.close()
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope='module')
def gateway(robot, tmp_path_factory):
    """The gateway of that node: its process and its address."""
    log = tmp_path_factory.mktemp('gateway') / 'log.txt'
    with log.open('w') as output:
        program = start([sys.executable, '-m', 'slice_ros.gateway.gateway_program', '--port', '0'],
                        IN_NAMESPACE, ROOT, output)
    try:
        robot.wait_for(lambda: 'serving' in log.read_text(), 'the gateway does not listen')
        url = re.search(r'at (http://\S+)', log.read_text())[1]
        robot.wait_for(lambda: ready(url), 'the gateway does not discover the node')
        yield program, url
        assert 'Traceback' not in log.read_text(), log.read_text()
    finally:
        program.kill()
        program.wait()


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
        assert demo.wait(timeout=240.0) == 0, (tmp_path / 'demo.txt').read_text()
    finally:
        demo.kill()
        demo.wait()
    check_demo_report(report)


@pytest.mark.parametrize('check', GATEWAY_CHECKS + LANGCHAIN_CHECKS,
                         ids=lambda check: check.__name__)
def test_gateway(robot, gateway, check):
    """See the docstring of the check."""
    check(robot, gateway[1])


def test_gateway_ends(robot, gateway):
    """The last of its tests: it ends what streams."""
    check_it_ends(robot, gateway[1], gateway[0])
