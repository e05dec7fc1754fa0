# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_bench ros, abuse and soak, each small: what they print was measured on a real node.

Such a program, and the demo, leave no process behind when they are interrupted.
"""

import json
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

BENCH = [sys.executable, '-m', 'slice_ros.bench']
WITHIN = 280   # seconds

pytestmark = pytest.mark.timeout(300)


def children(process):
    """Return the ids of the processes that a process has started and that still run."""
    try:
        ids = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    except FileNotFoundError:
        return []
    return [int(i) for i in ids]


def test_figures_over_real_topics(ros, tmp_path):
    out = tmp_path / 'ros.json'
    done = subprocess.run(
        [*BENCH, 'ros', '--streams', '2', '--tokens', '40',
         '--trials', '1', '--seconds', '2', '--json', str(out)],
        capture_output=True, text=True, timeout=WITHIN)
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
    # How well a busy machine keeps rates is not for this test.
    assert figures['paced']['rate_error'] >= 0 and figures['paced']['jitter_p99_ms'] > 0
    assert 0 < 1.5 * figures['sim_time']['half'] < figures['sim_time']['double']
    assert figures['sim_time']['stopped'] == 0
    assert all(value > 0 for value in figures['energy'].values())
    assert 'rate of a class at 100 ms' in done.stdout and '15 ms' in done.stdout


def test_options_that_make_no_sense_are_named():
    done = subprocess.run([*BENCH, 'ros', '--trials', '0'],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and '--trials' in done.stderr and 'Traceback' not in done.stderr


def test_hostile_inputs_and_a_neighbour(tmp_path):
    out = tmp_path / 'abuse.json'
    done = subprocess.run(
        [*BENCH, 'abuse', '--only', 'request id', '--seconds', '0.2', '--limit-ms', '10000',
         '--json', str(out)], capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(out.read_text())
    answers = {one['name']: one for one in figures['inputs']}
    assert answers['a request id of 8 MB']['code'] == 'INVALID_REQUEST'
    assert '128' in answers['a request id of 8 MB']['sentence']
    assert answers['the same request id, 8 at once']['sent'] == 8
    for one in figures['inputs']:
        assert one['answered'] == one['sent'] and one['fault'] == '' and one['seconds'] > 0
    assert figures['idle']['requests'] >= 50 and figures['idle']['median_ms'] > 1
    assert figures['worst_extra_ms'] == max(one['extra_ms'] for one in figures['inputs'])
    assert figures['missed'] == figures['not_sent'] == [] and min(figures['resident_mb']) > 100
    assert 'a request id of 8 MB' in done.stdout and 'INVALID_REQUEST' in done.stdout


def test_a_small_soak_with_a_kill_of_each_kind(tmp_path):
    out = tmp_path / 'soak.json'
    done = subprocess.run(
        [*BENCH, 'soak', '--tiny', '--goals', '120', '--concurrent', '16', '--cancels', '12',
         '--kills', '1', '--json', str(out)], capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(out.read_text())
    for name in ('unanswered', 'ended_twice', 'lost', 'reordered', 'left_live', 'not_sent'):
        assert figures[name] == 0
    assert figures['client_kills'] == figures['node_kills'] == 1
    assert figures['ended'] + figures['cut_by_node'] + figures['cut_by_client'] == 120
    assert figures['ended'] >= 120 - 2 * 16 == 88
    assert sum(figures['codes'].values()) == figures['ended'] and figures['codes']['NONE'] > 50
    assert 0 < figures['cancels'] <= 12
    assert all(ttft > 0 for ttft in figures['quiet_ttft_ms'])
    assert figures['resident_growth'] is None and 'too few requests' in done.stdout


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_soak_leaves_no_process(number):
    process = subprocess.Popen([*BENCH, 'soak', '--tiny'], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(started := children(process)) < 5 and time.monotonic() < end:
        time.sleep(0.1)
    assert len(started) == 5   # the node and four clients
    process.send_signal(number)
    assert process.wait(60) == 130
    assert not [i for i in started if Path(f'/proc/{i}').exists()]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_node(number, tmp_path):
    process = subprocess.Popen([sys.executable, '-m', 'slice_ros.cli.demo', '--report',
                                str(tmp_path / 'report.json')], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (started := children(process)) and time.monotonic() < end:
        time.sleep(0.01)   # so that the signal often comes while the node is being started
    assert len(started) == 1
    process.send_signal(number)
    assert process.wait(60) == 130
    assert not Path(f'/proc/{started[0]}').exists()


def test_what_http_costs(tmp_path):
    out = tmp_path / 'gateway.json'
    done = subprocess.run([*BENCH, 'gateway', '--requests', '4', '--json', str(out)],
                          capture_output=True, text=True, timeout=WITHIN)
    figures = json.loads(out.read_text())
    kept = figures['first']['later_p50_ms'] <= 5
    assert done.returncode == int(not kept) and ('kept' in done.stdout) == kept, done.stderr
    for part in ('first', 'whole'):
        for way in ('action', 'gateway'):
            assert 0 < figures[part][f'{way}_p10_ms'] <= figures[part][f'{way}_p90_ms']
    assert figures['first']['gateway_p50_ms'] < figures['whole']['gateway_p50_ms']
