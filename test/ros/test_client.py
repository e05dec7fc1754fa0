# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_client as a program of its own, against a node with the real model."""

import json
import signal
import subprocess
import sys

from conftest import wait_until
from rclpy.parameter import Parameter
from slice_ros.errors import ErrorCode
from slice_ros.ros.node import SliceNode


def run(*arguments, timeout=60):
    return subprocess.run([sys.executable, '-m', 'slice_ros.cli.ask', *arguments],
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


def test_a_refusal_is_printed_and_ends_with_1(node):
    done = run('Say hi.', '--class', 'bogus')
    assert done.returncode == 1 and 'UNKNOWN_SLO_CLASS' in done.stderr
    assert 'Traceback' not in done.stderr


def test_without_a_node_it_gives_up(ros):
    done = run('Say hi.', '--node', 'nobody', '--timeout', '1')
    assert done.returncode == 1 and 'nobody' in done.stderr and 'Traceback' not in done.stderr


def test_it_says_at_once_what_the_node_waits_for(ros, spin):
    idle = SliceNode(namespace='idle', parameter_overrides=[Parameter('autostart', value=False)])
    spinning = spin(idle)
    client = subprocess.Popen([sys.executable, '-m', 'slice_ros.cli.ask', 'Say hi.', '--node',
                               '/idle/slice'], stderr=subprocess.PIPE, text=True)
    try:
        said = 'waiting for the node, which is unconfigured: configure and activate it\n'
        assert said in iter(client.stderr.readline, '')   # before it gives up
        client.send_signal(signal.SIGINT)
        assert client.wait(60) == 130
    finally:
        client.kill()
        client.stderr.close()
        spinning.close()
        idle.destroy_node()


def test_a_conversation_and_a_form_reach_the_node(node, tmp_path):
    schema = tmp_path / 'schema.json'
    schema.write_text('{"type": "object", "properties": {"x": {"type": "integer"}}, '
                      '"required": ["x"], "additionalProperties": false}')
    for flags, check in ((('--choice', 'STOP', '--choice', 'GO'), ('STOP', 'GO').__contains__),
                         (('--schema', str(schema)), lambda text: set(json.loads(text)) == {'x'}),
                         (('--regex', '[0-9]{3}'), lambda text: len(text) == 3 and int(text) > -1),
                         (('--session', 'terminal', '--reset'), bool)):
        done = run('How far is the box?', '--json', '--max-tokens', '24', *flags)
        answer = json.loads(done.stdout)
        assert done.returncode == 0 and answer['error'] == 'NONE', answer
        assert check(answer['text']), answer['text']


def test_flags_that_make_no_sense_are_named(node, tmp_path):
    for flags in (('--choice', 'a', '--regex', 'b'), ('--schema', str(tmp_path / 'none.json'))):
        done = run('Hi', *flags)
        assert done.returncode == 2 and flags[-2] in done.stderr, done.stderr
    done = run('Hi', '--max-tokens', '-1')
    assert done.returncode == 1 and 'max_tokens' in done.stderr and 'Traceback' not in done.stderr


def test_ctrl_c_cancels_the_request(node):
    node.set_parameters([Parameter('rate_control.mode', value='paced')])  # lasts long enough
    process = subprocess.Popen(
        [sys.executable, '-m', 'slice_ros.cli.ask', '--max-tokens', '400',
         'Tell me a long story about a robot that explores a warehouse.'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.read(1)
        request, = node.server.snapshot().requests
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        wait_until(lambda: request.ended)   # in this mode: in the other it may be served first
    finally:
        process.kill()
        node.set_parameters([Parameter('rate_control.mode', value='work_conserving')])
    assert request.error is ErrorCode.CANCELLED and request.generated < 400
    assert process.returncode == 130 and 'Traceback' not in errors
