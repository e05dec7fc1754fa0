# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node as a process of its own, started the ways a user without the launch stack would."""

from pathlib import Path
import signal
import sys

from ament_index_python import get_package_prefix
import pytest
from robot import Robot, start
from serving_checks import check_one_answer

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = str(ROOT / 'config' / 'slice.yaml')


def installed_program() -> list[str]:
    """Return the command of the installed node: beside the interpreter, or where colcon puts it.

    Not `ros2 run`: a signal would end that alone, and leave the node.
    """
    beside = Path(sys.executable).with_name('slice_node')
    if beside.is_file():
        return [str(beside)]
    return [str(Path(get_package_prefix('slice_ros'), 'lib', 'slice_ros', 'slice_node'))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize('way', ['module in the checkout', 'installed program elsewhere'])
def test_serves_and_ends_cleanly(way, tmp_path):
    """A goal is answered, its tokens are on the topic, and SIGINT ends with code 0."""
    if way == 'module in the checkout':
        command, cwd = [sys.executable, '-m', 'slice_ros.ros.main'], ROOT
    else:
        command, cwd = installed_program(), tmp_path
    output = tmp_path / 'output.txt'
    with output.open('w') as log:
        process = start(command, ['--params-file', PARAMETERS, '-r', '__ns:=/robot'], cwd, log)
        robot = Robot('/robot/slice')
        try:
            robot.wait_until_ready()
            check_one_answer(robot)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60.0) == 0, output.read_text()
        finally:
            robot.close()
            process.kill()
            process.wait()
    assert 'Traceback' not in output.read_text()


@pytest.mark.timeout(120)
def test_unloadable_model_is_said_and_exits_nonzero(tmp_path):
    """The node names the path it looked for and does not stay half alive."""
    output = tmp_path / 'output.txt'
    with output.open('w') as log:
        process = start([sys.executable, '-m', 'slice_ros.ros.main'],
                        ['-p', 'engine.model:=/no/such/model.gguf'], ROOT, log)
        try:
            assert process.wait(timeout=90.0) not in (0, None)
        finally:
            process.kill()
            process.wait()
    assert '/no/such/model.gguf' in output.read_text()
    assert 'Traceback' not in output.read_text()
