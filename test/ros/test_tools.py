# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tools through every way into the node with the real model, and the loop of the client."""

import json
from typing import Annotated, Literal

from conftest import get
from pydantic import Field
import pytest
from slice_ros import msg
from slice_ros.client import InvalidRequest, Timeout
from slice_ros.errors import ErrorCode

CALL = msg.ToolCall(id='call00001', name='get_battery', arguments='{}')
BEFORE = [msg.ChatMessage(role='user', content='How full is the battery?'),
          msg.ChatMessage(role='assistant', tool_calls=[CALL]),
          msg.ChatMessage(role='tool', content='81 %', tool_call_id='call00001'),
          msg.ChatMessage(role='assistant', content='It has 81 %.')]
TURN = [*BEFORE, msg.ChatMessage(role='user', content='Call turn now.')]


def turn(angle_deg: Annotated[int, Field(ge=-180, le=180)],
         speed: Literal['slow', 'fast'] = 'slow') -> dict:
    """Turn on the spot."""
    return {'turned': angle_deg, 'speed': speed}


async def get_battery() -> str:
    """Return the charge of the battery in percent."""
    return '81 %'


TOOLS = [
    msg.Tool(name='turn', description='Turn on the spot.', parameters=json.dumps({
        'type': 'object', 'properties': {'angle_deg': {
            'type': 'integer', 'minimum': -180, 'maximum': 180}}, 'required': ['angle_deg']})),
    msg.Tool(name='get_battery', description='Return the charge of the battery in percent.')]
ASKED = {'messages': TURN, 'tools': TOOLS, 'tool_choice': 'turn', 'max_tokens': 40}


def check_turn(calls):
    call, = calls
    arguments = json.loads(call.arguments)
    assert call.name == 'turn' and set(arguments) == {'angle_deg'} and len(call.id) == 9
    assert -180 <= arguments['angle_deg'] <= 180
    return arguments


def test_a_call_comes_by_action_service_and_topic_and_is_no_text(caller):
    pieces = []
    result = get(caller.send(lambda m: pieces.append(m.feedback.text), **ASKED)
                 .get_result_async()).result
    assert result.error_code == 0 and result.finish_reason == 'stop' and result.text == ''
    arguments = check_turn(result.tool_calls)
    chunks = caller.chunks_of(result.request_id)
    assert not ''.join(pieces) and not ''.join(c.text for c in chunks)
    assert chunks[-1].tool_calls == result.tool_calls and not chunks[0].tool_calls
    response = caller.call(caller.text, slo_class='dialogue', **ASKED)
    assert check_turn(response.tool_calls) == arguments and response.text == ''
    caller.prompts['dialogue'].publish(msg.Prompt(request_id='by topic', **ASKED))
    assert check_turn(caller.chunks_of('by topic')[-1].tool_calls) == arguments


def test_the_model_may_just_talk_and_none_shows_it_no_tools(caller):
    _, plain = caller.ask(prompt='Hi', max_tokens=8)
    _, none = caller.ask(prompt='Hi', max_tokens=8, tools=TOOLS, tool_choice='none')
    assert none.text == plain.text
    assert none.report.prompt_tokens == plain.report.prompt_tokens
    _, auto = caller.ask(prompt='Hi', max_tokens=8, tools=TOOLS)
    assert auto.report.prompt_tokens > plain.report.prompt_tokens
    assert auto.error_code in (0, ErrorCode.FORMAT_INCOMPLETE)
    asked = {'prompt': 'Hi', 'max_tokens': 8, 'slo_class': 'dialogue'}
    sizes = [caller.call(caller.admission, tools=tools, **asked).prompt_tokens
             for tools in ([], TOOLS)]
    assert sizes == [plain.report.prompt_tokens, auto.report.prompt_tokens]


def test_a_call_that_max_tokens_cuts_says_so(caller):
    _, result = caller.ask(**{**ASKED, 'max_tokens': 5})
    assert result.error_code == ErrorCode.FORMAT_INCOMPLETE and 'tool call' in result.error_msg
    assert not result.tool_calls and not result.text


def test_a_session_keeps_calls_and_results(caller):
    asked = {'tools': TOOLS, 'session_id': 'tools', 'max_tokens': 40}
    _, first = caller.ask(messages=TURN, tool_choice='turn', **asked)
    check_turn(first.tool_calls)
    result = msg.ChatMessage(role='tool', content='turned',
                             tool_call_id=first.tool_calls[0].id)
    wrong = msg.ChatMessage(role='tool', content='turned', tool_call_id='another')
    _, refused = caller.ask(messages=[wrong], **asked)
    assert refused.error_code == ErrorCode.INVALID_REQUEST and 'another' in refused.error_msg
    _, second = caller.ask(messages=[result], **asked)
    assert second.error_code in (0, ErrorCode.FORMAT_INCOMPLETE)
    before = first.report.prompt_tokens + first.report.output_tokens
    # All but the last page of what was computed before is in the cache.
    assert second.report.prompt_tokens > before and second.report.reused_tokens > before - 40
    whole = [*TURN, msg.ChatMessage(role='assistant', tool_calls=first.tool_calls), result]
    _, same = caller.ask(messages=whole, tools=TOOLS, max_tokens=40)
    assert (same.text, same.report.prompt_tokens) == (second.text, second.report.prompt_tokens)
    # With other tools the prompt is another from its beginning.
    _, other = caller.ask(prompt='Thanks.', session_id='tools', max_tokens=8)
    assert other.error_code == 0 and other.text


@pytest.mark.parametrize('goal, field', [
    ({'tool_choice': 'fly'}, 'tool_choice'), ({'tool_choice': 'x' * 500}, 'tool_choice'),
    ({'tools': [], 'tool_choice': 'required'}, 'tool_choice'),
    ({'tools': [msg.Tool(name='a b')]}, 'tools[0].name'),
    ({'tools': [msg.Tool(name='a', parameters='{"$ref": "#"}')]}, 'tools'),
    ({'tools': [msg.Tool(name='a', parameters='[' * 9000)]}, 'tools[0].parameters'),
    ({'tools': [msg.Tool(name='a', description='x' * 40000)]}, 'tools'),
    ({'tools': [msg.Tool(name=f't{i}') for i in range(65)]}, 'tools'),
    ({'stop': ['x']}, 'stop'),
    ({'response_format': msg.ResponseFormat(type='choice', choices=['a'])}, 'tools'),
    ({'messages': [TURN[0], msg.ChatMessage(role='tool', content='x', tool_call_id='y')]},
     'tool_call_id'),
    ({'messages': [msg.ChatMessage(role='user', content='x', tool_calls=[CALL])]}, 'tool_calls'),
    ({'messages': [TURN[0], msg.ChatMessage(role='assistant', tool_calls=[CALL] * 65)]},
     'tool_calls')])
def test_what_cannot_be_served_is_refused_by_its_field(caller, goal, field):
    _, result = caller.ask(**{**ASKED, 'tool_choice': '', **goal})
    assert result.error_code == ErrorCode.INVALID_REQUEST and field in result.error_msg


def test_functions_are_tools_and_the_loop_ends_with_words(client, play):
    called = []

    def steer(angle_deg: Annotated[int, Field(ge=-180, le=180)]) -> dict:
        """Turn on the spot."""
        called.append(angle_deg)
        return {'turned': angle_deg}
    answer = play(client.ask(TURN, tools=[turn, get_battery], tool_choice='turn', max_tokens=60))
    call, = answer.tool_calls
    assert call.name == 'turn' and turn(**call.arguments)['turned'] == call.arguments['angle_deg']
    assert answer.message.tool_calls[0].id == call.id
    for more in ({}, {'session_id': 'loop'}):
        called.clear()
        answer = play(client.run_tools(TURN, [steer, get_battery], max_turns=2, max_tokens=40,
                                       tool_choice='steer', **more))
        assert len(called) == 1 and not answer.tool_calls and answer.text


def test_the_loop_has_a_deadline_and_passes_on_what_a_function_raises(client, play):
    def broken() -> str:
        """Return nothing."""
        raise LookupError('no such map')
    asked = {'tools': [broken], 'tool_choice': 'broken', 'max_tokens': 40}
    with pytest.raises(LookupError, match='no such map'):
        play(client.run_tools('Go.', **asked))
    with pytest.raises(Timeout):
        play(client.run_tools('Go.', timeout=0.0, **asked))
    for tool in (len, 3, lambda x: x):
        with pytest.raises(InvalidRequest):
            play(client.ask('Go.', tools=[tool]))
