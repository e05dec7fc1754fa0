"""slice_client as a program of its own, against a node with the real model."""

import json
import subprocess
import sys


def run(*arguments, timeout=60):
    return subprocess.run([sys.executable, '-m', 'slice_ros.cli.client', *arguments],
                          capture_output=True, text=True, timeout=timeout)


def test_it_prints_the_answer_and_its_report(caller):
    done = run('What is a wheel?', '--class', 'navigation', '--max-tokens', '12')
    _, same = caller.ask(prompt='What is a wheel?', max_tokens=12)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == same.text.strip()
    assert '[navigation: ' in done.stderr and 'TTFT' in done.stderr


def test_json_has_the_figures(node):
    done = run('Say hi.', '--json', '--max-tokens', '3')
    answer = json.loads(done.stdout)
    assert answer['error'] == 'NONE' and answer['output_tokens'] <= 3 and answer['text']
    assert 0 < answer['ttft'] <= answer['completion']
    assert answer['objectives']['tpot_ms'] == 250


def test_a_refusal_is_said_and_ends_with_1(node):
    done = run('Say hi.', '--class', 'bogus')
    assert done.returncode == 1 and 'UNKNOWN_SLO_CLASS' in done.stderr
    assert 'Traceback' not in done.stderr


def test_without_a_node_it_gives_up(ros):
    done = run('Say hi.', '--node', 'nobody', '--timeout', '1')
    assert done.returncode == 1 and 'nobody' in done.stderr and 'Traceback' not in done.stderr
