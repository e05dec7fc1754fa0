# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""From Python values to the goal message, and from error codes to exceptions; no ROS graph."""

import json
import math

import pytest
from slice_ros import client, msg
from slice_ros.action import Generate
from slice_ros.client import exceptions
from slice_ros.client.answer import Answer, AnswerBuffer, MAX_UNREAD
from slice_ros.client.goals import answer_format, check_timeout, make_goal
from slice_ros.errors import ErrorCode


@pytest.mark.parametrize('code', [code for code in ErrorCode if code is not ErrorCode.NONE])
def test_every_error_code_has_one_exception(code):
    kinds = [kind for kind in exceptions.SliceError.__subclasses__() if code in kind.codes]
    assert len(kinds) == 1
    error = exceptions.error_for(int(code), 'say less', 'partial')
    assert type(error) is kinds[0] and error.code is code
    assert (error.message, str(error), error.answer) == ('say less', 'say less', 'partial')
    assert kinds[0].__name__ in client.__all__


def test_a_code_of_a_newer_node_is_still_an_error():
    error = exceptions.error_for(999, 'new')
    assert type(error) is exceptions.SliceError and error.code == 999
    assert issubclass(exceptions.Timeout, TimeoutError)


def test_forms_of_an_answer():
    assert answer_format() == msg.ResponseFormat(type='text')
    assert answer_format(choice=('STOP', 'GO')) == msg.ResponseFormat(
        type='choice', choices=['STOP', 'GO'])
    form = answer_format(schema={'type': 'object'})
    assert form.type == 'json_schema' and json.loads(form.grammar) == {'type': 'object'}
    assert answer_format(schema='{"type": "null"}').grammar == '{"type": "null"}'
    assert answer_format(regex='[0-9]+') == msg.ResponseFormat(type='regex', grammar='[0-9]+')
    given = msg.ResponseFormat(type='regex', grammar='a')
    assert answer_format(given) == given and answer_format(choice=[]).type == 'choice'
    with pytest.raises(exceptions.InvalidRequest, match='one of'):
        answer_format(choice=['a'], schema={})


def test_a_goal_has_what_was_said():
    goal = make_goal([('system', 'Be brief.'), msg.ChatMessage(role='user', content='Hi'),
                      {'role': 'assistant', 'content': 'Hello'}], 'control', max_tokens=4,
                     ttft_ms=1, deadline_ms=math.inf, stop='.', session_id='s',
                     reset_session=True, adapter='lab', sampling={'temperature': 1, 'top_k': 3})
    assert [(m.role, m.content) for m in goal.messages] == [
        ('system', 'Be brief.'), ('user', 'Hi'), ('assistant', 'Hello')]
    assert (goal.prompt, goal.slo_class, goal.max_tokens) == ('', 'control', 4)
    assert (goal.ttft_ms, goal.tpot_ms, goal.deadline_ms) == (1.0, 0.0, math.inf)
    assert isinstance(goal.ttft_ms, float) and isinstance(goal.sampling.temperature, float)
    assert goal.stop == ['.'] and goal.session_id == 's' and goal.reset_session
    assert goal.adapter == 'lab'
    assert make_goal('Hi', 'dialogue') == Generate.Goal(prompt='Hi', slo_class='dialogue')
    by_hand = msg.SamplingParams()
    by_hand.temperature = 1  # an int here would reach C code as a float
    assert isinstance(make_goal('Hi', 'a', sampling=by_hand).sampling.temperature, float)


@pytest.mark.parametrize('fields', [
    {'prompt': None}, {'prompt': 3}, {'prompt': ['hi']}, {'prompt': [('user',)]},
    {'prompt': [{'role': 'user'}]}, {'prompt': [('user', 3)]}, {'prompt': 'a\udc00'},
    {'slo_class': None}, {'max_tokens': -1}, {'max_tokens': 2**32}, {'max_tokens': 2.5},
    {'ttft_ms': 'soon'}, {'tpot_ms': None}, {'stop': 3}, {'stop': [3]}, {'stop': ['\ud800']},
    {'adapter': 3}, {'adapter': '\ud800'},
    {'session_id': 3}, {'reset_session': 'yes'}, {'sampling': {'heat': 1.0}},
    {'sampling': {'top_k': -1}}, {'sampling': {'temperature': 'hot'}}, {'sampling': 3},
    {'response_format': 3}, {'choice': 'STOP'}, {'choice': [1]}, {'choice': 3},
    {'schema': {1, 2}}, {'schema': {'a': object()}}, {'regex': 3},
    {'response_format': msg.ResponseFormat(grammar='\ud800')}])
def test_what_no_message_can_carry_is_an_invalid_request(fields):
    with pytest.raises(exceptions.InvalidRequest) as caught:
        make_goal(**{'prompt': 'hi', 'slo_class': 'dialogue', **fields})
    assert caught.value.message and len(caught.value.message) < 300


def test_timeouts():
    assert check_timeout(None) is check_timeout(math.inf) is check_timeout(1e12) is None
    assert check_timeout(2) == 2.0 and check_timeout(0) == 0.0
    for wrong in (-1, math.nan, 'soon'):
        with pytest.raises(exceptions.InvalidRequest, match='timeout'):
            check_timeout(wrong)


def test_json_of_an_answer():
    answer = Answer('id', '{"x": [1, 2]}', 'stop', msg.SloReport())
    assert answer.json == {'x': [1, 2]}
    with pytest.raises(ValueError):
        assert Answer('id', 'hello', 'stop', msg.SloReport()).json


def read(buffer):
    """Return the pieces that are there, without waiting."""
    pieces = []
    while buffer._unread:
        try:
            buffer.next().send(None)
        except StopIteration as piece:
            pieces.append(piece.value)
    return pieces


def feedback(number, text):
    return Generate.Feedback(text=text, sequence=number, tokens=number + 1)


@pytest.mark.parametrize('arrive', [(0, 1, 2, 3), (0, 1), (0, 2, 3), (), (1, 2, 3), (0, 0, 1, 3)])
def test_the_pieces_are_the_answer_whatever_feedback_arrives(arrive):
    texts = ['One', '', ' two', ' three']
    buffer = AnswerBuffer('id')
    for number in arrive:
        buffer.feed(feedback(number, texts[number]))
    buffer.finish(Generate.Result(text='One two three', finish_reason='stop'))
    buffer.feed(feedback(2, texts[2]))  # late
    pieces = read(buffer)
    assert ''.join(piece.text for piece in pieces) == buffer.text == 'One two three'
    assert all(piece.text for piece in pieces) and buffer.error is None and buffer.done


def test_unread_pieces_are_joined():
    buffer = AnswerBuffer('id')
    for number in range(MAX_UNREAD * 3):
        buffer.feed(feedback(number, 'x'))
    pieces = read(buffer)
    assert len(pieces) == MAX_UNREAD and ''.join(p.text for p in pieces) == 'x' * (MAX_UNREAD * 3)
    assert pieces[-1].tokens == MAX_UNREAD * 3


def test_an_end_is_reported_once():
    buffer, ends = AnswerBuffer('id'), []
    buffer.on_end(lambda: ends.append(buffer.error))
    buffer.end(exceptions.Timeout('late'))
    buffer.finish(Generate.Result(text='Hi'))
    buffer.on_end(lambda: ends.append(buffer.answer))
    assert isinstance(ends[0], exceptions.Timeout) and ends[1] is None and len(ends) == 2
