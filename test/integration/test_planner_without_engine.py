# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A build with SLICE_CLIENT_ONLY=1, in an environment of its own, asks a node of this one."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest
from robot import Robot, start

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get('SLICE_TEST_CLIENT', 'none'))
IN_NAMESPACE = ['--ros-args', '-r', '__ns:=/robot']
PROGRAMS = {'slice_client', 'slice_monitor', 'slice_router', 'slice_example_control',
            'slice_example_patrol', 'slice_example_planner', 'slice_example_talker'}
PLANNER = """
import asyncio, sys, threading
import rclpy
from slice_ros.client import SliceClient

rclpy.init()
node = rclpy.create_node('planner', namespace='/robot')
threading.Thread(target=rclpy.spin, args=(node,), daemon=True).start()
client = SliceClient(node)

async def ask():
    await client.wait_until_ready(60)
    return await client.ask('A box is ahead.', 'control', choice=['STOP', 'GO'])

answer = asyncio.run(ask())
print(answer.text, *(name for name in ('torch', 'transformers') if name in sys.modules))
"""

pytestmark = [pytest.mark.client_only, pytest.mark.timeout(300)]


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run a program of the planner's environment, which inherits no paths of this one's."""
    env = {name: value for name, value in os.environ.items() if name not in (
        '_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'PYTHONPATH')}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope='module')
def node(tmp_path_factory):
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    with log.open('w') as output:
        process = start([sys.executable, '-m', 'slice_ros.ros.main'],
                        ['--params-file', str(ROOT / 'config' / 'slice.yaml'),
                         '-r', '__ns:=/robot'], ROOT, output)
    robot = Robot('/robot/slice')
    try:
        robot.wait_until_ready()
        yield
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60.0) == 0, log.read_text()
    finally:
        robot.close()
        process.kill()
        process.wait()


def test_nothing_of_the_engine_is_installed(tmp_path):
    code = ('import importlib.util as util; print(*(name for name in ("torch", "transformers", '
            '"slice_ros.engine", "slice_ros.serving") if util.find_spec(name)))')
    done = run(str(PYTHON), '-c', code, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == '', done.stderr + done.stdout
    assert {path.name for path in PYTHON.parent.glob('slice_*')} == PROGRAMS
    prefix = PYTHON.parents[1]
    assert {path.name for path in (prefix / 'lib' / 'slice_ros').iterdir()} == PROGRAMS
    assert (prefix / 'include' / 'slice_ros' / 'slice_ros' / 'action' / 'generate.hpp').is_file()
    assert not list(prefix.rglob('*slice_kernels*'))


def test_its_library_is_answered(node, tmp_path):
    (tmp_path / 'planner.py').write_text(PLANNER)
    done = run(str(PYTHON), 'planner.py', cwd=tmp_path)
    assert done.stdout.strip() in ('STOP', 'GO'), done.stderr + done.stdout


def test_its_programs_are_answered(node, tmp_path):
    client = PYTHON.with_name('slice_client')
    done = run(str(client), 'Stop or go?', '--class', 'control', '--max-tokens', '4', '--json',
               *IN_NAMESPACE, cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)['output_tokens'] > 0, done.stderr
    done = run(str(PYTHON.with_name('slice_monitor')), '--once', *IN_NAMESPACE, cwd=tmp_path)
    assert done.returncode == 0 and 'control' in done.stdout, done.stderr + done.stdout
