# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The process of the node: signals at any time, and parameters it cannot use."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest
from slice_ros.ros.isolation.executor import Executor


def start(*arguments, **env):
    return subprocess.Popen([sys.executable, '-m', 'slice_ros.ros.main', '--ros-args', *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, 'RCUTILS_LOGGING_BUFFERED_STREAM': '0', **env})


def end(process):
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, output


# Ends the process as soon as it spins.
SPINS = """
import os, signal, sys
from slice_ros.ros import main
spin = main._spin
def spun(executor, node):
    print('SPUN', type(executor).__module__, node.executor is executor, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    spin(executor, node)
main._spin = spun
sys.exit(main.main(['--ros-args', '-p', 'autostart:=false', *sys.argv[1:]]))
"""


def test_the_node_is_spun_by_its_own_executor():
    done = subprocess.run([sys.executable, '-c', SPINS], capture_output=True, text=True,
                          timeout=60)
    assert f'SPUN {Executor.__module__} True' in done.stdout and done.returncode == 0


@pytest.mark.parametrize('namespace', ['/', '/robot1', '/fleet/robot1'])
def test_the_log_level_of_the_launch_file_counts_in_any_namespace(namespace):
    launch = (Path(__file__).parents[2] / 'launch' / 'slice.launch.py').read_text()
    assert "'--log-level', LaunchConfiguration('log_level')]" in launch   # as below
    for level, logged in ('info', True), ('warn', False):
        done = subprocess.run([sys.executable, '-c', SPINS, '-r', f'__ns:={namespace}',
                               '--log-level', level], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and ('stopping' in done.stderr) is logged


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('moment', ['reading the tokenizer', 'loading the weights'])
def test_a_signal_while_loading_ends_with_0_and_no_traceback(number, moment):
    process = start()
    for line in process.stdout:
        if moment in line:
            break
    process.send_signal(number)
    code, output = end(process)
    assert code == 0 and 'Traceback' not in output and 'ready:' not in output, output


def test_a_signal_while_it_measures_step_times_ends_with_0(tmp_path):
    """With an empty cache."""
    process = start(XDG_CACHE_HOME=str(tmp_path))
    for line in process.stdout:
        assert 'ready:' not in line
        if 'measuring step times' in line:
            break
    process.send_signal(signal.SIGINT)
    code, output = end(process)
    assert code == 0 and 'Traceback' not in output and 'ready:' not in output, output


def test_a_signal_before_anything_is_loaded_ends_with_0():
    process = start()
    time.sleep(1.5)  # rclpy or torch is being imported
    process.send_signal(signal.SIGINT)
    code, output = end(process)
    assert code == 0 and 'Traceback' not in output, output


@pytest.mark.parametrize('parameter, word', [
    ('limits.max_queued:=0', 'limits.max_queued'),
    ('slo.control.tpot_ms:=fast', 'slo.control.tpot_ms'),
    ('scheduler.policy:=magic', 'slice_static'),
    ('engine.kv:=4', 'auto, 16, 8'), ('engine.weights:=fp12', 'fp16')])
def test_parameters_it_cannot_use_are_named_and_end_with_2(parameter, word):
    code, output = end(start('-p', parameter))
    assert code == 2 and word in output and 'Traceback' not in output, output


def test_a_file_that_is_no_model_is_named_and_ends_with_1(tmp_path):
    (tmp_path / 'model.gguf').write_bytes(b'no model at all')
    code, output = end(start('-p', f'engine.model:={tmp_path / "model.gguf"}'))
    assert code == 1 and 'model.gguf' in output and 'Traceback' not in output, output


@pytest.mark.parametrize('files', [(), (
    'identity_ca.cert.pem', 'cert.pem', 'key.pem', 'permissions_ca.cert.pem', 'governance.p7s',
    'permissions.p7s')], ids=['no keystore', 'no plug-ins'])
def test_security_that_cannot_be_enforced_ends_with_3_and_a_sentence(tmp_path, files):
    """The middleware of the wheels has no security; one that has refuses these files as well."""
    for name in files:
        (tmp_path / 'enclaves').mkdir(exist_ok=True)
        (tmp_path / 'enclaves' / name).write_text('no certificate')
    code, output = end(start(ROS_SECURITY_ENABLE='true', ROS_SECURITY_STRATEGY='Enforce',
                             ROS_SECURITY_KEYSTORE=str(tmp_path)))
    assert code == 3 and 'Traceback' not in output, output
    assert 'ROS_SECURITY_ENABLE' in output and 'docs/security.md' in output


def test_arguments_that_ros_cannot_use_end_with_3_and_a_sentence(tmp_path):
    code, output = end(start('--params-file', str(tmp_path / 'none.yaml')))
    assert code == 3 and 'none.yaml' in output and 'Traceback' not in output, output


def test_a_typo_in_a_parameter_file_is_warned_of(tmp_path):
    file = tmp_path / 'slice.yaml'
    file.write_text('/**:\n  ros__parameters:\n    limits:\n      max_queud: 3\n')
    process = start('--params-file', str(file))
    for line in process.stdout:
        assert 'ready:' not in line
        if 'limits.max_queud' in line:
            assert 'limits.max_queued' in line
            break
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 0
