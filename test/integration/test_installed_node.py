"""The node as a process of its own, started the ways a user without the launch stack would."""

import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest
from serving_checks import check_one_answer, Client

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = str(ROOT / 'config' / 'slice.yaml')


def installed_program() -> list[str]:
    """Return the command of the installed node: beside the interpreter, or on the PATH."""
    beside = Path(sys.executable).with_name('slice_node')
    return [str(beside)] if beside.is_file() else ['ros2', 'run', 'slice_ros', 'slice_node']


def start(command, arguments, cwd, log):
    """Start the node; its output goes to the file `log`."""
    # The wheels' start-up hook runs the interpreter twice; the flag it leaves behind would make it
    # skip a child that has another environment. Read now: this graph is the one the test is on.
    env = {key: value for key, value in os.environ.items()
           if key != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    return subprocess.Popen([*command, '--ros-args', *arguments], cwd=cwd, env=env, stdout=log,
                            stderr=subprocess.STDOUT)


@pytest.mark.timeout(300)
@pytest.mark.parametrize('way', ['module in the checkout', 'installed program elsewhere'])
def test_serves_and_ends_cleanly(way, tmp_path):
    """A goal is answered, its tokens are on the topic, and SIGINT ends with code 0."""
    if way == 'module in the checkout':
        command, cwd = [sys.executable, '-m', 'slice_ros.ros.node'], ROOT
    else:
        command, cwd = installed_program(), tmp_path
    output = tmp_path / 'output.txt'
    with output.open('w') as log:
        process = start(command, ['--params-file', PARAMETERS, '-r', '__ns:=/robot'], cwd, log)
        client = Client('/robot/slice')
        try:
            check_one_answer(client)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20.0) == 0, output.read_text()
        finally:
            client.close()
            process.kill()
            process.wait()
    assert 'Traceback' not in output.read_text()


@pytest.mark.timeout(120)
def test_unloadable_model_is_said_and_exits_nonzero(tmp_path):
    """The node names the path it looked for and does not stay half alive."""
    output = tmp_path / 'output.txt'
    with output.open('w') as log:
        process = start([sys.executable, '-m', 'slice_ros.ros.node'],
                        ['-p', 'engine.model:=/no/such/model.gguf'], ROOT, log)
        try:
            assert process.wait(timeout=90.0) not in (0, None)
        finally:
            process.kill()
            process.wait()
    assert '/no/such/model.gguf' in output.read_text()
    assert 'Traceback' not in output.read_text()
