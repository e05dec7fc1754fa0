# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_bench ros, with few tokens: what it prints has been measured on a real node."""

import json
import subprocess
import sys


def test_figures_over_real_topics(ros, tmp_path):
    out = tmp_path / 'ros.json'
    done = subprocess.run(
        [sys.executable, '-m', 'slice_ros.bench', 'ros', '--streams', '2', '--tokens', '40',
         '--trials', '1', '--seconds', '2', '--json', str(out)],
        capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    delivery = figures['delivery']
    assert 2 <= delivery['tokens'] <= 40
    assert delivery['lost'] == delivery['reordered'] == 0
    assert 0 < delivery['latency_p50_ms'] <= delivery['latency_p99_ms']
    assert 0 < delivery['paced_latency_p50_ms'] <= delivery['paced_latency_p99_ms']
    for cores in ('idle', 'busy'):
        assert 0 < figures['floor'][f'{cores}_p50_ms'] <= figures['floor'][f'{cores}_p99_ms']
    assert figures['control_under_dialogue']['trials'] == 1
    assert figures['paced']['rate_error'] < 0.2 and figures['paced']['jitter_p99_ms'] > 0
    assert 0.3 < figures['sim_time']['half'] < 0.7 and 1.4 < figures['sim_time']['double'] < 2.6
    assert figures['sim_time']['stopped'] == 0
    assert all(value > 0 for value in figures['energy'].values())
    assert 'rate of a class at 100 ms' in done.stdout and '15 ms' in done.stdout


def test_options_that_make_no_sense_are_named():
    done = subprocess.run([sys.executable, '-m', 'slice_ros.bench', 'ros', '--trials', '0'],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and '--trials' in done.stderr and 'Traceback' not in done.stderr
