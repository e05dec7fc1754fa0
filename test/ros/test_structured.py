# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Structured answers through every way in, and hostile formats beside a neighbour."""

import json
import threading

from action_msgs.msg import GoalStatus
from conftest import get
import pytest
from slice_ros import msg
from slice_ros.action import Generate

Result = Generate.Result
SCHEMA = json.dumps({
    'type': 'object', 'additionalProperties': False, 'required': ['frame', 'x', 'y'],
    'properties': {'frame': {'enum': ['map', 'odom']},
                   'x': {'type': 'number', 'minimum': -10, 'maximum': 10},
                   'y': {'type': 'number', 'minimum': -10, 'maximum': 10}}})
NEIGHBOUR = {'prompt': 'What does a robot do all day?', 'max_tokens': 24}
STEER = {'prompt': 'A box blocks the way. Stop or go?'}


def choice(*choices):
    return msg.ResponseFormat(type='choice', choices=choices)


def schema(grammar):
    return msg.ResponseFormat(type='json_schema', grammar=grammar)


def regex(grammar):
    return msg.ResponseFormat(type='regex', grammar=grammar)


def check_unharmed(neighbour):
    """Assert that a goal beside the one under test was served to its end."""
    response = get(neighbour)
    assert response.status == GoalStatus.STATUS_SUCCEEDED, response.result.error_msg
    assert response.result.text and response.result.report.served


def test_an_answer_parses_while_a_plain_neighbour_streams(caller):
    neighbour = caller.send(**NEIGHBOUR).get_result_async()
    pieces = []
    handle = caller.send(lambda m: pieces.append(m.feedback.text), max_tokens=60,
                         prompt='Drive to x 2.5, y -1.', response_format=schema(SCHEMA))
    response = get(handle.get_result_async())
    result = response.result
    assert response.status == GoalStatus.STATUS_SUCCEEDED, result.error_msg
    goal = json.loads(result.text)
    assert set(goal) == {'frame', 'x', 'y'} and goal['frame'] in ('map', 'odom')
    assert -10 <= goal['x'] <= 10 and -10 <= goal['y'] <= 10
    assert result.finish_reason == 'stop' and result.report.served
    assert ''.join(c.text for c in caller.chunks_of(result.request_id)) == result.text
    assert pieces and result.text.startswith(''.join(pieces))
    check_unharmed(neighbour)


def test_a_choice_by_action_service_and_topic(caller):
    wanted = choice('STOP', 'GO', 'SLOW DOWN')
    _, by_action = caller.ask(**STEER, response_format=wanted)
    by_service = caller.call(caller.text, **STEER, slo_class='control', max_tokens=8,
                             response_format=wanted)
    caller.prompts['control'].publish(msg.Prompt(
        **STEER, max_tokens=8, request_id='steer', response_format=wanted))
    chunks = caller.chunks_of('steer', 'control')
    assert by_action.text in wanted.choices and by_action.error_code == Result.NONE
    assert by_service.text == ''.join(c.text for c in chunks) == by_action.text
    assert by_action.finish_reason == chunks[-1].finish_reason == 'stop'


def test_an_answer_that_is_not_whole_says_to_raise_max_tokens(caller):
    pieces = []
    handle = caller.send(lambda m: pieces.append(m.feedback.text), prompt='Where to?',
                         max_tokens=5, response_format=schema(SCHEMA))
    response = get(handle.get_result_async())
    result = response.result
    assert response.status == GoalStatus.STATUS_ABORTED
    assert result.error_code == Result.FORMAT_INCOMPLETE and 'max_tokens' in result.error_msg
    assert result.finish_reason == 'error' and result.text and not result.report.served
    assert ''.join(c.text for c in caller.chunks_of(result.request_id)) == result.text
    assert pieces and result.text.startswith(''.join(pieces))


def test_a_structured_goal_can_be_cancelled(caller, slow_steps):
    started = threading.Event()
    handle = caller.send(lambda m: started.set(), prompt='Say much.', max_tokens=300,
                         response_format=regex('[a-z ]{400}'))
    assert started.wait(60)
    assert len(get(handle.cancel_goal_async()).goals_canceling) == 1
    assert get(handle.get_result_async()).result.error_code == Result.CANCELLED


HOSTILE = {
    'type': msg.ResponseFormat(type='xml'),
    'choices without their type': msg.ResponseFormat(choices=['a']),
    'no choice': choice(),
    'empty choice': choice('a', ''),
    'many choices': choice(*(f'choice {n}' for n in range(10000))),
    'no json': schema('{"type": '),
    'no schema': schema('5'),
    'unknown type': schema('{"type": "robot"}'),
    'deep': schema('{"items":' * 5000 + '{}' + '}' * 5000),
    'long': schema(json.dumps({'enum': ['x' * 100] * 50000})),
    'huge enum': schema(json.dumps({'enum': list(range(5000))})),
    'remote': schema('{"$ref": "http://127.0.0.1:9/schema.json"}'),
    'file': schema('{"$ref": "file:///etc/hostname"}'),
    'loop': schema('{"$ref": "#"}'),
    'multiple': schema('{"type": "integer", "multipleOf": 99999989}'),
    'patterns': schema(json.dumps({'type': 'string', 'allOf': [
        {'pattern': f'[ab]*a[ab]{{{n}}}$'} for n in range(50)]})),
    'regex': regex('(('),
    'look-around': regex('(?=a)b'),
    'repeats': regex('((((a{100}){100}){100}){100})'),
    'nothing': regex(r'[^\s\S]'),
}


@pytest.mark.parametrize('wanted', HOSTILE.values(), ids=HOSTILE)
def test_a_format_that_cannot_be_kept_is_refused_and_nobody_else_notices(caller, wanted):
    neighbour = caller.send(**NEIGHBOUR).get_result_async()
    status, result = caller.ask(prompt='Hello', response_format=wanted)
    assert status == GoalStatus.STATUS_ABORTED and result.error_code == Result.INVALID_REQUEST
    assert result.error_msg.startswith('response_format') and len(result.error_msg) < 300
    assert '\n' not in result.error_msg and not result.text
    check_unharmed(neighbour)


@pytest.mark.parametrize('wanted', [
    regex('(a?){200}a{200}'), regex('((a+)+)+b'), regex('[ab]*a[ab]{400}'),
    schema(json.dumps({'type': 'object', 'additionalProperties': False, 'properties': {
        f'p{n}': {'type': 'string'} for n in range(200)}})),
    schema(json.dumps({'$ref': '#/$defs/d0', '$defs': {
        f'd{n}': {'type': 'array', 'minItems': 9, 'items': {'$ref': f'#/$defs/d{n + 1}'}}
        for n in range(40)} | {'d40': {'type': 'null'}}}))],
    ids=['branches', 'nested', 'states', 'properties', 'references'])
def test_a_costly_format_gets_an_answer_and_nobody_else_notices(caller, wanted):
    neighbour = caller.send(**NEIGHBOUR).get_result_async()
    _, result = caller.ask(prompt='Hello', max_tokens=12, response_format=wanted)
    assert result.error_code in (Result.NONE, Result.INVALID_REQUEST, Result.FORMAT_INCOMPLETE)
    assert bool(result.error_msg) == (result.error_code != Result.NONE)
    check_unharmed(neighbour)


def test_a_format_and_stop_texts_are_not_combined(caller):
    _, result = caller.ask(prompt='Hi', stop=['x'], response_format=choice('a', 'b'))
    assert result.error_code == Result.INVALID_REQUEST and 'stop' in result.error_msg


def test_a_conversation_goes_on_after_an_answer_that_was_cut_short_by_its_format(caller):
    _, first = caller.ask(**STEER, session_id='steer', response_format=choice('STOP', 'GO ON'))
    _, second = caller.ask(prompt='Why?', session_id='steer')
    assert first.error_code == second.error_code == Result.NONE, second.error_msg
    assert second.report.reused_tokens > 0 and second.text
