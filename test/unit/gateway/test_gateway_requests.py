# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What callers of the gateway send and get, beside a node that answers what a test wants."""

from array import array
import base64
import json
import math

from fake_node import FakeNode, options
import pytest
from slice_ros.errors import ErrorCode
from slice_ros.gateway.app import make_app
from slice_ros.gateway.http_errors import REPLIES
from starlette.testclient import TestClient

CHAT, TEXT = '/v1/chat/completions', '/v1/completions'
HI = [{'role': 'user', 'content': 'Hi'}]


def door(node=None, **given):
    """Return a client of a gateway at its own address."""
    return TestClient(make_app(options(**given), node or FakeNode()), base_url='http://localhost',
                      raise_server_exceptions=False)


def error_of(response, status):
    """Return the error object of a response that has this status code."""
    assert response.status_code == status, response.text
    error = response.json()['error']
    assert set(error) == {'message', 'type', 'param', 'code'} and error['message']
    return error


def events(response):
    """Return the events of a stream, without the mark of its end, which must be there."""
    assert response.headers['content-type'].startswith('text/event-stream'), response.text
    lines = [line for line in response.text.split('\n') if line]
    assert lines[-1] == 'data: [DONE]' and all(line.startswith('data: ') for line in lines)
    return [json.loads(line[len('data: '):]) for line in lines[:-1]]


def test_every_error_code_has_a_status():
    assert set(REPLIES) == set(ErrorCode) - {ErrorCode.NONE}
    assert {code.name: REPLIES[code].status for code in (
        ErrorCode.QUEUE_FULL, ErrorCode.INFEASIBLE_SLO, ErrorCode.INVALID_REQUEST,
        ErrorCode.DEADLINE_MISSED, ErrorCode.NOT_READY)} == {
            'QUEUE_FULL': 429, 'INFEASIBLE_SLO': 503, 'INVALID_REQUEST': 400,
            'DEADLINE_MISSED': 504, 'NOT_READY': 503}


def test_an_answer_in_a_message():
    node = FakeNode()
    response = door(node).post(CHAT, json={'model': 'slice/control', 'messages': HI})
    answer = response.json()
    assert response.status_code == 200 and response.headers['x-request-id'] == 'id-1'
    assert answer['id'] == 'chatcmpl-id-1' and answer['object'] == 'chat.completion'
    assert answer['model'] == 'slice/control' and answer['created'] > 1.7e9
    assert answer['choices'] == [
        {'index': 0, 'finish_reason': 'stop', 'logprobs': None,
         'message': {'role': 'assistant', 'content': 'Go on', 'refusal': None}}]
    assert answer['usage'] == {'prompt_tokens': 12, 'completion_tokens': 2, 'total_tokens': 14,
                               'completion_tokens_details': {'reasoning_tokens': 0},
                               'prompt_tokens_details': {'cached_tokens': 5}}
    report = answer['slo_report']
    assert report['slo_class'] == 'control' and report['attained'] and report['tpot_ms'] is None
    assert report['ttft_ms'] == 80 and report['objectives']['ttft_ms'] == 500


def test_an_answer_as_plain_text():
    node = FakeNode()
    answer = door(node).post(TEXT, json={'prompt': ['Hi'], 'max_tokens': 9}).json()
    assert answer['object'] == 'text_completion' and answer['id'] == 'cmpl-id-1'
    assert answer['choices'] == [
        {'index': 0, 'text': 'Go on', 'logprobs': None, 'finish_reason': 'stop'}]
    assert (node.goals[0].prompt, node.goals[0].max_tokens) == ('Hi', 9)


def test_a_stream_carries_each_piece():
    response = door().post(CHAT, json={'messages': HI, 'stream': True})
    first, second, last = events(response)
    assert first['object'] == 'chat.completion.chunk'
    assert first['choices'][0]['delta'] == {'role': 'assistant', 'content': 'Go'}
    assert second['choices'][0]['delta'] == {'content': ' on'}
    assert [e['choices'][0]['finish_reason'] for e in (first, second, last)] == [
        None, None, 'stop']
    assert last['choices'][0]['delta'] == {} and 'usage' not in last
    assert last['slo_report']['attained']
    with_usage = events(door().post(TEXT, json={
        'prompt': 'Hi', 'stream': True, 'stream_options': {'include_usage': True}}))
    assert [e['choices'][0]['text'] for e in with_usage[:-1]] == ['Go', ' on', '']
    assert with_usage[-1]['choices'] == [] and with_usage[-1]['usage']['total_tokens'] == 14


def test_an_answer_without_a_text_is_a_stream_too():
    first, last = events(door(FakeNode(pieces=())).post(CHAT, json={'messages': HI,
                                                                    'stream': True}))
    assert first['choices'][0]['delta'] == {'role': 'assistant', 'content': ''}
    assert last['choices'][0]['finish_reason'] == 'stop'


def test_all_that_a_goal_takes():
    node = FakeNode()
    assert door(node).post(CHAT, json={
        'messages': [{'role': 'developer', 'content': 'Be brief.'}, {
            'role': 'user', 'name': 'Ann',
            'content': [{'type': 'text', 'text': 'How '}, {'type': 'text', 'text': 'far?'}]}],
        'ttft_ms': 100, 'tpot_ms': 20.5, 'deadline_ms': 900, 'session_id': 'talk',
        'reset_session': True, 'adapter': 'lab', 'max_tokens': 5, 'max_completion_tokens': 7,
        'temperature': 0.5,
        'top_p': 0.9, 'top_k': 4, 'min_p': 0.1, 'repetition_penalty': 1.1, 'seed': 3,
        'stop': ['.', '!'], 'user': 'me', 'n': 1, 'logprobs': False, 'tools': None,
        'presence_penalty': 0.0}).status_code == 200
    goal = node.goals[0]
    assert [(m.role, m.content) for m in goal.messages] == [
        ('system', 'Be brief.'), ('user', 'How far?')]
    assert (goal.ttft_ms, goal.tpot_ms, goal.deadline_ms) == (100.0, 20.5, 900.0)
    assert goal.session_id == 'talk' and goal.reset_session and goal.max_tokens == 7
    assert goal.adapter == 'lab'
    s = goal.sampling
    assert (s.top_k, s.seed) == (4, 3)
    assert [round(value, 3) for value in (
        s.temperature, s.top_p, s.min_p, s.repetition_penalty)] == [0.5, 0.9, 0.1, 1.1]
    assert goal.stop == ['.', '!'] and goal.response_format.type == 'text'


def test_without_wishes_the_goal_is_the_default_one():
    node = FakeNode()
    door(node).post(TEXT, content='{"prompt": "Hi", "ttft_ms": Infinity, "stop": "."}',
                    headers={'content-type': 'application/json; charset=utf-8'})
    goal = node.goals[0]
    assert goal.max_tokens == 128 and goal.sampling.temperature == 0 and goal.sampling.seed == -1
    assert goal.slo_class == 'dialogue' and goal.ttft_ms == math.inf and goal.stop == ['.']


@pytest.mark.parametrize('given, kind, content', [
    ({'type': 'text'}, 'text', ''), ({'type': 'json_object'}, 'json_schema', '{"type": "object"}'),
    ({'type': 'json_schema', 'json_schema': {'name': 'n', 'strict': True, 'schema': {
        'type': 'integer'}}}, 'json_schema', '{"type": "integer"}'),
    ({'type': 'regex', 'regex': '[0-9]+'}, 'regex', '[0-9]+'),
    ({'type': 'choice', 'choices': ['STOP', 'GO']}, 'choice', ['STOP', 'GO'])])
def test_the_form_of_an_answer(given, kind, content):
    node = FakeNode()
    assert door(node).post(CHAT, json={'messages': HI, 'response_format': given}).is_success
    form = node.goals[0].response_format
    assert form.type == kind and content == (form.choices if kind == 'choice' else form.grammar)


@pytest.mark.parametrize('body, header, expected', [
    ({}, '', 'dialogue'), ({'model': 'slice/control'}, '', 'control'),
    ({'model': 'slice/control'}, 'navigation', 'navigation'),
    ({'model': 'slice/control', 'slo_class': 'dialogue'}, 'navigation', 'dialogue'),
    ({'model': 'tiny.Q4'}, 'control', 'control')])
def test_the_class_is_of_body_header_or_model(body, header, expected):
    node = FakeNode()
    response = door(node).post(CHAT, json={'messages': HI, **body},
                               headers={'X-SLO-Class': header} if header else {})
    assert response.is_success and node.goals[0].slo_class == expected


@pytest.mark.parametrize('code', [c for c in ErrorCode if c and c != ErrorCode.FORMAT_INCOMPLETE])
@pytest.mark.parametrize('stream', [False, True])
def test_a_refusal_of_the_node_keeps_its_sentence(code, stream):
    response = door(FakeNode(pieces=(), code=code, sentence='ask for less')).post(
        CHAT, json={'messages': HI, 'stream': stream})
    error = error_of(response, REPLIES[code].status)
    assert error['message'] == 'ask for less' and error['code'] == REPLIES[code].code
    waits = code in (ErrorCode.QUEUE_FULL, ErrorCode.OUT_OF_MEMORY, ErrorCode.NOT_READY,
                     ErrorCode.SHUTTING_DOWN)
    assert ('retry-after' in response.headers) == waits


def test_a_failure_in_a_stream_is_its_last_event():
    response = door(FakeNode(code=ErrorCode.ENGINE_FAILURE, sentence='broken')).post(
        CHAT, json={'messages': HI, 'stream': True})
    assert response.status_code == 200 and '[DONE]' not in response.text
    last = json.loads(response.text.strip().rpartition('data: ')[2])
    assert last['error']['message'] == 'broken' and last['error']['code'] == 'engine_failure'


@pytest.mark.parametrize('stream', [False, True])
def test_a_cut_format_is_an_answer_that_ended_by_length(stream):
    node = FakeNode(pieces=('{"x":',), code=ErrorCode.FORMAT_INCOMPLETE, sentence='more tokens')
    response = door(node).post(CHAT, json={'messages': HI, 'stream': stream})
    choice = (events(response)[-1] if stream else response.json())['choices'][0]
    assert choice['finish_reason'] == 'length'


REFUSED = {
    b'{"messages": [': 'no JSON', b'\xff\xfe{}': 'no JSON', b'[' * 100_000: 'recursion',
    b'{"a":' * 50_000: 'recursion', b'[]': 'object', b'{}': 'messages', b'null': 'object',
    b'': 'no JSON',
    b'{"messages": []}': 'messages', b'{"messages": "Hi"}': 'messages',
    b'{"messages": [{"role": "user", "content": "\xff"}]}': 'no JSON',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}': 'no JSON',
    b'{"messages": [{"role": "robot", "content": "x"}]}': 'messages.0.role',
    b'{"messages": [{"role": "user", "content": 5}]}': 'messages.0.content',
    b'{"messages": [{"role": "user", "content": [{"type": "file"}]}]}': 'only text and'}
FIELDS = [
    ({'max_tokens': '5'}, 'max_tokens'), ({'max_tokens': 5.5}, 'max_tokens'),
    ({'max_tokens': -1}, 'cannot be sent'), ({'max_tokens': 10 ** 30}, 'cannot be sent'),
    ({'temperature': 'hot'}, 'temperature'), ({'temperature': 1e300}, 'cannot be sent'),
    ({'stop': [1]}, 'stop'), ({'stream': 'yes'}, 'stream'), ({'seed': 1.5}, 'seed'),
    ({'dead_line_ms': 5}, 'dead_line_ms'), ({'n': 9}, 'n: '), ({'n': 0}, 'n: '),
    ({'logprobs': 1}, 'logprobs: '), ({'logit_bias': {'five': 1}}, 'logit_bias'),
    ({'tools': [{'type': 'function'}]}, 'tools.0.function'),
    ({'tools': [{'type': 'web', 'function': {'name': 'a'}}]}, 'tools.0.type'),
    ({'tool_choice': {'type': 'function'}}, 'tool_choice'),
    ({'presence_penalty': 0.5}, 'presence_penalty is not'),
    ({'response_format': {'type': 'xml'}}, 'response_format.type'),
    ({'response_format': {'type': 'regex'}}, 'response_format.regex is missing'),
    ({'response_format': {'type': 'json_schema', 'json_schema': {'schema': 7}}}, 'schema'),
    ({'messages': HI * 2000}, 'at most 1024'), ({'ttft_ms': [1]}, 'ttft_ms')]


@pytest.mark.parametrize('body, sentence', [
    *REFUSED.items(), *((json.dumps({'messages': HI, **more}).encode(), sentence)
                        for more, sentence in FIELDS)])
def test_what_cannot_be_served_is_refused_by_name(body, sentence):
    node = FakeNode()
    response = door(node).post(CHAT, content=body, headers={'content-type': 'application/json'})
    error = error_of(response, 400)
    assert sentence in error['message'] and len(error['message']) < 600 and not node.goals
    assert error['type'] == 'invalid_request_error'


def test_a_body_that_is_long_or_no_json():
    tiny = door(body_bytes=1000)
    assert 'longer' in error_of(tiny.post(CHAT, json={'messages': HI * 99}), 413)['message']
    assert tiny.post(CHAT, json={'messages': HI}).is_success
    error_of(tiny.post(CHAT, data={'messages': 'x'}), 415)


def test_models_health_and_metrics():
    node = FakeNode()
    client = door(node)
    names = [one['id'] for one in client.get('/v1/models').json()['data']]
    assert names == ['tiny.Q4', 'slice/control', 'slice/dialogue']
    assert client.get('/v1/models/slice/control').json()['object'] == 'model'
    assert error_of(client.get('/v1/models/other'), 404)['code'] == 'model_not_found'
    unknown = error_of(client.post(CHAT, json={'messages': HI, 'model': 'gpt-9'}), 404)
    assert 'tiny.Q4' in unknown['message'] and unknown['param'] == 'model'
    assert client.get('/health').json() == {'status': 'ready'}
    text = client.get('/metrics').text
    for line in ('slice_up 1.0', 'slice_tokens_total 77.0',
                 'slice_requests_total{outcome="attained",slo_class="control"} 1.0',
                 'slice_ttft_objective_seconds{slo_class="control"} 0.5',
                 'slice_ttft_objective_seconds{slo_class="dialogue"} +Inf',
                 'slice_gateway_responses_total{code="404"} 2.0'):
        assert line in text, text
    node.present = False
    assert client.get('/health').status_code == 503
    assert 'slice_up 0.0' in client.get('/metrics').text
    assert error_of(client.get('/v1/models'), 503)['code'] == 'not_ready'


def test_what_is_not_there_is_named():
    assert '/v1/models' in error_of(door().get('/v1/images'), 404)['message']
    assert 'GET' in error_of(door().get(CHAT), 405)['message']


def test_a_key_is_asked_for_where_there_is_one():
    client = door(api_key='secret')
    body = {'messages': HI}
    for headers in ({}, {'authorization': 'Bearer wrong'}, {'authorization': 'Basic !!'},
                    {'authorization': 'Bearer sécret'.encode()}):
        response = client.post(CHAT, json=body, headers=headers)
        assert error_of(response, 401)['code'] == 'invalid_api_key'
    basic = base64.b64encode(b'me:secret').decode()
    for given in ('Bearer secret', f'Basic {basic}'):
        assert client.post(CHAT, json=body, headers={'authorization': given}).is_success
    assert client.get('/').status_code == 401 and client.get('/health').is_success


@pytest.mark.parametrize('host, status', [
    ('localhost:8000', 200), ('127.0.0.1', 200), ('[::1]:8000', 200), ('LOCALHOST', 200),
    ('evil.example', 403), ('localhost.evil.example:80', 403), ('', 403)])
def test_a_page_of_another_site_is_not_let_in(host, status):
    assert door().get('/health', headers={'host': host}).status_code == status
    assert door(host='0.0.0.0').get('/health', headers={'host': host}).status_code == 200


def test_a_fault_of_the_gateway_is_answered():
    node = FakeNode()
    node.status = None
    assert error_of(door(node).get('/v1/models'), 500)['code'] == 'gateway_fault'


def test_the_page_loads_nothing_from_elsewhere():
    response = door().get('/')
    assert response.is_success and "default-src 'none'" in response.headers[
        'content-security-policy']
    assert 'http' not in response.text and 'innerHTML' not in response.text


def test_a_bias_by_token_id_reaches_the_node():
    node = FakeNode()
    assert door(node).post(CHAT, json={'messages': HI, 'logit_bias': {'5': -100, '7': 2.5}}
                           ).status_code == 200
    sampling = node.goals[0].sampling
    assert list(sampling.biased_tokens) == [5, 7] and list(sampling.biases) == [-100.0, 2.5]


def test_texts_become_vectors():
    node = FakeNode()
    made = door(node).post('/v1/embeddings', json={'model': 'tiny.Q4', 'input': ['a', 'bcd']})
    answer = made.json()
    assert made.status_code == 200 and answer['object'] == 'list' and answer['model'] == 'tiny.Q4'
    assert [d['index'] for d in answer['data']] == [0, 1]
    assert answer['data'][1]['embedding'] == pytest.approx([0.6, -0.8])
    assert answer['usage'] == {'prompt_tokens': 4, 'total_tokens': 4}
    assert node.goals == [(['a', 'bcd'], 'mean', '')]   # of no class: after all that is due


def test_vectors_as_openai_reads_them_and_in_a_class():
    node = FakeNode()
    made = door(node).post('/v1/embeddings', headers={'x-slo-class': 'control'}, json={
        'input': 'a', 'encoding_format': 'base64', 'pooling': 'last', 'user': 'me'})
    data = base64.b64decode(made.json()['data'][0]['embedding'])
    assert data == array('f', [0.6, -0.8]).tobytes() and made.json()['model'] == 'tiny'
    assert node.goals == [(['a'], 'last', 'control')]


@pytest.mark.parametrize('body, field', [
    ({}, 'input'), ({'input': []}, 'input'), ({'input': [1, 2]}, 'input'), ({'input': 3}, 'input'),
    ({'input': 'a', 'dimensions': 8}, 'dimensions'),
    ({'input': 'a', 'encoding_format': 'int8'}, 'encoding_format')])
def test_what_makes_no_vector_is_named(body, field):
    error = error_of(door().post('/v1/embeddings', json=body), 400)
    assert error['param'] == field


def test_a_refused_text_and_a_full_gateway_have_their_codes():
    node = FakeNode(code=ErrorCode.PROMPT_TOO_LONG, sentence='shorten it')
    error = error_of(door(node).post('/v1/embeddings', json={'input': 'a'}), 400)
    assert error['code'] == 'context_length_exceeded' and error['message'] == 'shorten it'
    full = door(FakeNode(), live=0).post('/v1/embeddings', json={'input': 'a'})
    assert error_of(full, 429)['code'] == 'gateway_full'


@pytest.mark.parametrize('sent, reasoning, arguments', [
    ({}, '', ''), ({'reasoning_effort': 'none'}, 'off', ''),
    ({'reasoning_effort': 'low'}, 'on', ''),
    ({'chat_template_kwargs': {'enable_thinking': False}}, 'off', ''),
    ({'chat_template_kwargs': {'thinking': True, 'style': 'x'}}, 'on', '{"style": "x"}'),
    ({'reasoning': 'default', 'reasoning_effort': 'high', 'template_arguments': {'a': 1}},
     'default', '{"a": 1}')])
def test_what_turns_thoughts_on_or_off_reaches_the_node(sent, reasoning, arguments):
    node = FakeNode()
    assert door(node).post(CHAT, json={
        'messages': HI, 'reasoning_budget': 9, **sent}).is_success
    goal = node.goals[0]
    assert (goal.reasoning, goal.template_arguments, goal.reasoning_budget) == (
        reasoning, arguments, 9)


def test_a_thought_stands_beside_the_content():
    node = FakeNode(thought='Hm, yes.')
    answer = door(node).post(CHAT, json={'messages': HI}).json()
    message = answer['choices'][0]['message']
    assert (message['content'], message['reasoning_content']) == ('Go on', 'Hm, yes.')
    assert answer['usage']['completion_tokens_details'] == {'reasoning_tokens': 2}
    assert door(node).post(CHAT, json={'messages': [*HI, message, *HI]}).is_success
    deltas = [event['choices'][0]['delta'] for event in events(
        door(node).post(CHAT, json={'messages': HI, 'stream': True}))]
    assert ''.join(delta.get('reasoning_content', '') for delta in deltas) == 'Hm, yes.'
    assert ''.join(delta.get('content', '') for delta in deltas) == 'Go on'
