# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The router beside two nodes, one of which is killed; its process: signals and parameters."""

import json
from pathlib import Path
import signal
import subprocess
import sys

import pytest
from robot import start
from slice_ros.bench.engine.tiny_model import write_tiny

ROOT = Path(__file__).resolve().parents[2]
ROUTER = [sys.executable, '-m', 'slice_ros.router.router_main']


@pytest.mark.timeout(300)
def test_every_request_ends_when_a_node_is_killed(tmp_path):
    """Every request ends once, and the other node serves; how soon, the benchmark says."""
    out = tmp_path / 'router.json'
    done = subprocess.run(
        [sys.executable, '-m', 'slice_ros.bench', 'router', '--model', str(write_tiny(tmp_path)),
         '--rate', '5', '--seconds', '5', '--json', str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 1), done.stdout + done.stderr   # 1: a bar of time is missed
    rows = json.loads(out.read_text())['rows']
    assert sum(row['requests'] for row in rows) > 20
    for row in rows:
        assert row['answered'] + sum(row['codes'].values()) == row['requests'], row
        # Those whose text had begun, and those whose deadline had passed.
        assert set(row['codes']) <= {'ENGINE_FAILURE', 'DEADLINE_MISSED'}, done.stdout
        assert row['answered'] > 0, row   # before the kill and after it


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_router_with_0(tmp_path, number):
    log = tmp_path / 'log.txt'
    with log.open('w') as output:
        router = start(ROUTER, ['-p', "nodes:=['/nowhere/slice']"], ROOT, output)
    try:
        for _ in range(600):
            if 'routing to /nowhere/slice' in log.read_text():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                router.wait(0.1)
        router.send_signal(number)
        assert router.wait(60) == 0 and 'Traceback' not in log.read_text(), log.read_text()
    finally:
        router.kill()
        router.wait()


@pytest.mark.parametrize('wrong', [
    "nodes:=['']", "nodes:=['/a/slice', '/a/slice']", 'nodes:=7', 'margin_s:=-1.0'])
def test_parameters_that_cannot_be_used_end_it_with_2(wrong):
    done = subprocess.run([*ROUTER, '--ros-args', '-p', wrong], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 2 and 'parameters: ' in done.stderr, done.stderr
    assert 'Traceback' not in done.stderr
