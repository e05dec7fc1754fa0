"""slice_bench ros, with few tokens: what it prints has been measured on a real node."""

import json
import subprocess
import sys


def test_figures_over_real_topics(ros, tmp_path):
    out = tmp_path / 'ros.json'
    done = subprocess.run(
        [sys.executable, '-m', 'slice_ros.bench', 'ros', '--streams', '2', '--tokens', '40',
         '--trials', '1', '--json', str(out)], capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    delivery = json.loads(out.read_text())['delivery']
    assert 2 <= delivery['tokens'] <= 40
    assert delivery['lost'] == delivery['reordered'] == 0
    assert 0 < delivery['latency_p50_ms'] <= delivery['latency_p99_ms']
    assert json.loads(out.read_text())['control_under_dialogue']['trials'] == 1


def test_options_that_make_no_sense_are_said():
    done = subprocess.run([sys.executable, '-m', 'slice_ros.bench', 'ros', '--trials', '0'],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and '--trials' in done.stderr and 'Traceback' not in done.stderr
