# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Several answers to one prompt, and log-probabilities, in the shapes of OpenAI's API."""

from fake_node import FakeNode, listening, options, wait_until
import openai
import pytest
from slice_ros.errors import ErrorCode
from slice_ros.gateway.http_errors import REPLIES
from test_gateway_requests import CHAT, door, error_of, events, HI, TEXT


def said(choice):
    return choice['text'] if 'text' in choice else choice['message']['content']


@pytest.mark.parametrize('path, ask', [(CHAT, {'messages': HI}), (TEXT, {'prompt': 'Hi'})])
def test_several_answers_have_an_index_each_and_their_usage_adds_up(path, ask):
    node = FakeNode()
    answer = door(node).post(path, json={**ask, 'n': 3, 'seed': 7, 'temperature': 1.0}).json()
    assert [c['index'] for c in answer['choices']] == [0, 1, 2]
    assert {said(c) for c in answer['choices']} == {'Go on'} and answer['id'].endswith('id-1')
    assert answer['usage']['prompt_tokens'] == 12 and answer['usage']['total_tokens'] == 18
    assert answer['usage']['completion_tokens'] == 6
    assert all(c['slo_report']['attained'] for c in answer['choices'])
    seeds = [goal.sampling.seed for goal in node.goals]
    assert seeds[0] == 7 and len(set(seeds)) == 3 and min(seeds) >= 0
    door(node).post(path, json={**ask, 'n': 3, 'seed': 7})
    assert [goal.sampling.seed for goal in node.goals[3:]] == seeds
    door(node).post(path, json={**ask, 'n': 2})
    assert [goal.sampling.seed for goal in node.goals[6:]] == [-1, -1]


def test_a_stream_of_several_has_the_index_of_each_piece():
    found = events(door().post(CHAT, json={
        'messages': HI, 'n': 2, 'stream': True, 'stream_options': {'include_usage': True}}))
    *pieces, last = found
    assert last['usage']['total_tokens'] == 16 and last['choices'] == []
    for index in range(2):
        mine = [e['choices'][0] for e in pieces if e['choices'][0]['index'] == index]
        assert ''.join(c['delta'].get('content', '') for c in mine) == 'Go on'
        assert [c['delta'].get('role') for c in mine] == ['assistant', None, None]
        assert [c['finish_reason'] for c in mine] == [None, None, 'stop']
    assert len({event['id'] for event in found}) == 1


@pytest.mark.parametrize('stream', [False, True])
@pytest.mark.parametrize('code, reason', [(ErrorCode.ENGINE_FAILURE, 'error'),
                                          (ErrorCode.CANCELLED, 'cancelled')])
@pytest.mark.parametrize('index', [0, 1])
def test_one_that_fails_has_a_finish_reason_of_its_own(stream, code, reason, index):
    node = FakeNode(fails={index: code}, sentence='broken')
    response = door(node).post(CHAT, json={'messages': HI, 'n': 2, 'stream': stream})
    choices = [e['choices'][0] for e in events(response)] if stream else response.json()['choices']
    ends = {c['index']: c for c in choices if c['finish_reason']}
    assert ends[index]['finish_reason'] == reason and ends[1 - index]['finish_reason'] == 'stop'
    assert ends[index]['error']['message'] == 'broken'
    assert ends[index]['error']['code'] == REPLIES[code].code
    assert 'error' not in ends[1 - index]


def test_where_all_fail_the_whole_has_a_status():
    node = FakeNode(fails={0: ErrorCode.ENGINE_FAILURE, 1: ErrorCode.CANCELLED}, sentence='broken')
    error = error_of(door(node).post(CHAT, json={'messages': HI, 'n': 2}), 500)
    assert error['message'] == 'broken' and error['code'] == 'engine_failure'
    streamed = door(node).post(CHAT, json={'messages': HI, 'n': 2, 'stream': True})
    assert streamed.status_code == 200 and '[DONE]' not in streamed.text


@pytest.mark.parametrize('stream', [False, True])
def test_a_refused_prompt_is_sent_once(stream):
    node = FakeNode(pieces=(), code=ErrorCode.PROMPT_TOO_LONG, sentence='shorten it')
    error = error_of(door(node).post(CHAT, json={'messages': HI, 'n': 4, 'stream': stream}), 400)
    assert error['message'] == 'shorten it' and len(node.goals) == 1


def test_the_others_wait_for_the_first_token():
    node = FakeNode(first=0)   # none ever comes
    with listening(node, options()) as (port, _):
        asked = openai.OpenAI(base_url=f'http://127.0.0.1:{port}/v1', api_key='none',
                              max_retries=0, timeout=0.5)
        with pytest.raises(openai.APITimeoutError):
            asked.chat.completions.create(model='', messages=HI, n=3)
        wait_until(lambda: sorted(node.cancelled) == ['id-1'])
        assert len(node.goals) == 1
    node = FakeNode(first=1)
    with listening(node, options()) as (port, _):
        asked = openai.OpenAI(base_url=f'http://127.0.0.1:{port}/v1', api_key='none',
                              max_retries=0)
        with asked.chat.completions.create(model='', messages=HI, n=3, stream=True) as stream:
            assert next(iter(stream)).choices[0].delta.content == 'Go'
        wait_until(lambda: sorted(node.cancelled) == ['id-1', 'id-2', 'id-3'])
        assert len(node.goals) == 3


def test_each_counts_for_the_bound_of_live_requests():
    full = door(FakeNode(), live=3)
    assert error_of(full.post(CHAT, json={'messages': HI, 'n': 4}), 429)['code'] == 'gateway_full'
    assert full.post(CHAT, json={'messages': HI, 'n': 3}).is_success
    assert full.app.state.door.live == 0


@pytest.mark.parametrize('body, field', [
    ({'n': 0}, 'n'), ({'n': -1}, 'n'), ({'n': 9}, 'n'), ({'n': 10**9}, 'n'), ({'n': 1.5}, 'n'),
    ({'n': 10**40}, 'n'), ({'n': True}, 'n'),
    ({'logprobs': True, 'top_logprobs': -1}, 'top_logprobs'),
    ({'logprobs': True, 'top_logprobs': 21}, 'top_logprobs'),
    ({'logprobs': True, 'top_logprobs': 10**30}, 'top_logprobs'),
    ({'top_logprobs': 2}, 'top_logprobs'), ({'logprobs': 'yes'}, 'logprobs')])
def test_wishes_out_of_range_are_named(body, field):
    node = FakeNode()
    error = error_of(door(node).post(CHAT, json={'messages': HI, **body}), 400)
    assert error['param'] == field and field in error['message'] and not node.goals


@pytest.mark.parametrize('value', [-1, 21, 10**12, True, '3'])
def test_wishes_for_a_text_out_of_range_are_named(value):
    error = error_of(door().post(TEXT, json={'prompt': 'Hi', 'logprobs': value}), 400)
    assert error['param'] == 'logprobs'


def test_a_session_has_one_answer():
    error = error_of(door().post(CHAT, json={'messages': HI, 'n': 2, 'session_id': 's'}), 400)
    assert 'session' in error['message']


def test_log_probabilities_of_a_message():
    node = FakeNode(pieces=('Go', ' ↑'))
    asked = {'messages': HI, 'logprobs': True, 'top_logprobs': 2}
    choice, = door(node).post(CHAT, json=asked).json()['choices']
    sampling = node.goals[0].sampling
    assert sampling.logprobs and sampling.top_logprobs == 2
    first, second = choice['logprobs']['content']
    assert first == {'token': 'Go', 'bytes': [71, 111], 'logprob': -1.0, 'top_logprobs': [
        {'token': '<0>', 'bytes': None, 'logprob': -0.25},
        {'token': '<1>', 'bytes': list(b'<1>'), 'logprob': -0.75}]}
    assert second['bytes'] == list(' ↑'.encode()) and second['logprob'] == -2
    streamed = [e['choices'][0] for e in events(door(node).post(CHAT, json={
        **asked, 'stream': True}))]
    assert [c['logprobs'] and c['logprobs']['content'] for c in streamed] == [
        [first], [second], None]


def test_log_probabilities_of_a_text():
    node = FakeNode(pieces=('Go ', '↑', '!'))
    ranks = door(node).post(TEXT, json={'prompt': 'Hi', 'logprobs': 1}).json()[
        'choices'][0]['logprobs']
    assert ranks == {
        'tokens': ['Go ', '↑', '!'], 'token_logprobs': [-1.0, -2.0, -3.0],
        'top_logprobs': [{'<0>': -0.25, 'Go ': -1.0}, {'<0>': -0.25, '↑': -2.0},
                         {'<0>': -0.25, '!': -3.0}], 'text_offset': [0, 3, 4]}
    streamed = [e['choices'][0]['logprobs'] for e in events(door(node).post(TEXT, json={
        'prompt': 'Hi', 'logprobs': 1, 'stream': True}))]
    assert [r['text_offset'] for r in streamed[:-1]] == [[0], [3], [4]] and streamed[-1] is None
    none = door(node).post(TEXT, json={'prompt': 'Hi', 'logprobs': 0, 'n': 2}).json()
    for choice in none['choices']:
        assert choice['logprobs']['top_logprobs'][0] == {'Go ': -1.0}
        assert choice['logprobs']['text_offset'] == [0, 3, 4]
