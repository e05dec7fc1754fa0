# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The peers of `slice_bench serve`, with a program in the place of vLLM's Python."""

from argparse import ArgumentTypeError
import math
import os
from pathlib import Path
import sys
import time

import pytest
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.bench.vllm import vllm_peer
from slice_ros.bench.vllm.peer_runs import peer_list, peer_table
from slice_ros.bench.vllm.vllm_peer import find_vllm, orders, VllmPeer
from slice_ros.errors import ErrorCode
from slice_ros.request import State
from slice_ros.slo import DEFAULT_CLASSES

CONTROL, _, DIALOGUE = DEFAULT_CLASSES
LOAD = [Arrival(0.0, CONTROL, 5, 9, 20), Arrival(0.1, DIALOGUE, 6, 30, 20),
        Arrival(0.2, CONTROL, 7, 4, 20)]
# Answers as `vllm_load` does: the second request fails. It says more than it has to.
PROGRAM = """
import json, os, subprocess, sys
print('17 is no line for the benchmark, nor is this')
options = json.loads(sys.argv[3])
assert sys.argv[1:3] == ['-m', 'slice_ros.bench.vllm.vllm_load'] and options['model'] == 'model'
assert [*os.scandir(os.environ['PYTHONPATH'])][0].name == 'slice_ros'
open(os.environ['SEEN'], 'w').write(f'{os.getpid()} {subprocess.Popen(["sleep", "600"]).pid}')
print(json.dumps({'ready': '0', 'weights': 'float32'}), flush=True)
for line in sys.stdin:
    for number, entry in enumerate(json.loads(line)['load']):
        at = entry['time']
        print(json.dumps({'ended': number, 'tokens': entry['length'], 'first': at + .5,
                          'last': at + 1.5, 'gap': .25, 'at': at + 1.5,
                          'reason': 'error' if number == 1 else 'stop'}))
    print(json.dumps({'steps': 40}), flush=True)
"""
FAILS = "import sys\nsys.exit('no such model')\n"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return what makes the Python that runs a program."""
    monkeypatch.setenv('SEEN', str(tmp_path / 'seen'))

    def make(text):
        (tmp_path / 'program.py').write_text(text)
        python = tmp_path / 'python'
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/program.py "$@"\n')
        python.chmod(0o755)
        return str(python)
    return make


def ended(pid):
    """Return whether a process has ended, or is about to be reaped."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z'
    except OSError:
        return True


def test_what_vllm_measures_becomes_reports(program, tmp_path):
    done = []
    with VllmPeer('vllm', program(PROGRAM), Path('model'), 'auto', LOAD, 4, 8, 1) as peer:
        assert peer.about['weights'] == 'float32'
        for _ in range(2):
            requests, steps = peer.serve(LOAD, 1, 100, 5.0, lambda: done.append(1))
        pids = (tmp_path / 'seen').read_text().split()
    assert steps == 40 and len(done) == 2 * len(LOAD)
    first, second, third = [request.report() for request in requests]
    assert first.ttft == pytest.approx(.5) and first.tpot == pytest.approx(1 / 8)
    assert third.completion == pytest.approx(1.5) and third.output_tokens == 4
    assert first.served and not second.served and not second.attained
    assert requests[1].state is State.FAILED and requests[1].error is ErrorCode.ENGINE_FAILURE
    assert first.max_gap == .25 and math.isfinite(second.elapsed)
    # With what it had started itself.
    end = time.monotonic() + 20
    while not all(map(ended, pids)) and time.monotonic() < end:
        time.sleep(.05)
    assert all(map(ended, pids))


@pytest.mark.parametrize('text', [FAILS, "raise ValueError('no such model')"])
def test_a_peer_that_cannot_start_is_said(text, program):
    with pytest.raises(ValueError, match='no such model'):
        with VllmPeer('vllm', program(text), Path('model'), 'auto', LOAD, 4, 8, 1):
            pass


def test_a_load_has_the_lengths_and_ranks_of_its_classes():
    sent = orders(LOAD, 1, 100)
    assert [entry['length'] for entry in sent] == [9, 20, 4]   # max_tokens ends the second
    assert [entry['rank'] for entry in sent] == [0, 1, 0]
    assert [len(entry['prompt']) for entry in sent] == [5, 6, 7]
    assert min(min(entry['prompt']) for entry in sent) >= vllm_peer.FIRST_TOKEN
    assert sent == orders(LOAD, 1, 100) != orders(LOAD, 2, 100)


def test_peers_are_named_once_each():
    assert peer_list('vllm, vllm:slice,vllm') == ['vllm', 'vllm:slice']
    with pytest.raises(ArgumentTypeError, match='is none of vllm, vllm:priority, vllm:slice'):
        peer_list('vllm:fastest')


def test_where_vllm_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vllm_peer.importlib.util, 'find_spec', lambda name: None)
    assert find_vllm('/a/python') == '/a/python'
    with pytest.raises(ValueError, match='--peer-python'):
        find_vllm('')
    (tmp_path / '.venv-vllm' / 'bin').mkdir(parents=True)
    os.symlink(sys.executable, tmp_path / '.venv-vllm' / 'bin' / 'python')
    assert find_vllm('') == str(tmp_path / '.venv-vllm' / 'bin' / 'python')


def test_the_table_has_a_row_for_each_class():
    summary = {'attained': 3, 'requests': 4, 'ttft_p50': .5, 'ttft_p99': 1.0, 'tpot_p50': .05,
               'tpot_p99': None}
    row = {'rate': 1.0, 'seed': 1, 'steps': 9, 'tokens': 80, 'attainment': .75,
           'utility_attainment': .5, 'classes': {'control': summary, 'dialogue': summary}}
    table = peer_table([row | {'policy': 'slice'}, row | {'policy': 'vllm:slice'}])
    assert table.row_count == 4
    assert list(table.columns[2].cells) == ['slice', '', 'vllm:slice', '']
    assert list(table.columns[9].cells)[0] == '0.50 / 1.00'
    assert list(table.columns[10].cells)[0] == '50 / -'
