# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tools, calls and results through the gateway, beside a node that answers what a test wants."""

import json

from fake_node import FakeNode, options
import pytest
from slice_ros import msg
from slice_ros.errors import ErrorCode
from slice_ros.gateway.app import make_app
from starlette.testclient import TestClient

CHAT = '/v1/chat/completions'
HI = [{'role': 'user', 'content': 'Hi'}]
SCHEMA = {'type': 'object', 'properties': {'angle_deg': {'type': 'integer'}}}
TOOLS = [{'type': 'function', 'function': {
    'name': 'turn', 'description': 'Turn.', 'parameters': SCHEMA, 'strict': True}},
    {'type': 'function', 'function': {'name': 'stop'}}]
CALLS = [msg.ToolCall(id='abc', name='turn', arguments='{"angle_deg": 90}'),
         msg.ToolCall(id='def', name='stop', arguments='{}')]
AS_JSON = [{'id': 'abc', 'type': 'function',
            'function': {'name': 'turn', 'arguments': '{"angle_deg": 90}'}},
           {'id': 'def', 'type': 'function', 'function': {'name': 'stop', 'arguments': '{}'}}]


def ask(node, **body):
    door = TestClient(make_app(options(), node), base_url='http://localhost')
    return door.post(CHAT, json={'messages': HI, 'tools': TOOLS, **body})


def test_tools_and_a_conversation_with_calls_reach_the_node():
    node = FakeNode()
    # The second message is that of an answer of the gateway, sent back as it came.
    assert ask(node, tool_choice='required', messages=[
        *HI, {'role': 'assistant', 'content': None, 'refusal': None, 'tool_calls': AS_JSON},
        {'role': 'tool', 'tool_call_id': 'abc', 'content': 'turned'},
        {'role': 'tool', 'tool_call_id': 'def', 'content': [{'type': 'text', 'text': 'no'}]}
        ]).is_success
    goal, = node.goals
    assert [tool.name for tool in goal.tools] == ['turn', 'stop']
    assert json.loads(goal.tools[0].parameters) == SCHEMA and goal.tools[1].parameters == ''
    assert goal.tool_choice == 'required'
    assert goal.messages[1].tool_calls == CALLS and goal.messages[1].content == ''
    assert [(m.role, m.content, m.tool_call_id) for m in goal.messages[2:]] == [
        ('tool', 'turned', 'abc'), ('tool', 'no', 'def')]


@pytest.mark.parametrize('choice, expected', [
    ('auto', 'auto'), ('none', 'none'), (None, ''), ('fly', 'fly'),
    ({'type': 'function', 'function': {'name': 'turn'}}, 'turn')])
def test_the_choice_is_passed_on(choice, expected):
    node = FakeNode()
    assert ask(node, tool_choice=choice).is_success and node.goals[0].tool_choice == expected


@pytest.mark.parametrize('pieces, content', [((), None), (('I ', 'turn.'), 'I turn.')])
def test_calls_are_in_the_message_and_in_the_last_pieces(pieces, content):
    node = FakeNode(pieces=pieces, calls=CALLS)
    choice = ask(node).json()['choices'][0]
    assert choice['finish_reason'] == 'tool_calls'
    assert choice['message'] == {'role': 'assistant', 'content': content, 'refusal': None,
                                 'tool_calls': AS_JSON}
    lines = ask(node, stream=True).text.split('\n\n')
    assert lines[-2] == 'data: [DONE]'
    *first, called, last = [json.loads(line.removeprefix('data: '))['choices'][0]
                            for line in lines[:-2]]
    assert ''.join(c['delta'].get('content', '') for c in first) == (content or '')
    assert called['delta']['tool_calls'] == [
        {'index': number, **call} for number, call in enumerate(AS_JSON)]
    assert called['finish_reason'] is None and last['finish_reason'] == 'tool_calls'
    assert last['delta'] == {}


def test_a_call_that_was_cut_ends_by_length():
    node = FakeNode(pieces=(), calls=CALLS[:1], code=ErrorCode.FORMAT_INCOMPLETE)
    choice = ask(node).json()['choices'][0]
    assert choice['finish_reason'] == 'length' and len(choice['message']['tool_calls']) == 1


@pytest.mark.parametrize('messages', [
    [{'role': 'assistant', 'tool_calls': [{'id': 'a', 'type': 'function'}]}],
    [{'role': 'assistant', 'tool_calls': [{'id': '', 'type': 'function', 'function': {
        'name': 'a', 'arguments': '{}'}}]}],
    [{'role': 'assistant', 'tool_calls': [{'id': 'a', 'type': 'function', 'function': {
        'name': 'a', 'arguments': {}}}]}]])
def test_a_broken_call_is_refused_by_its_place(messages):
    node = FakeNode()
    response = ask(node, messages=[*HI, *messages])
    assert response.status_code == 400 and not node.goals
    assert 'messages.1.tool_calls.0' in response.json()['error']['message']
