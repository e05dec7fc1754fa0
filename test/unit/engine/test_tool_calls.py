# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Answers that may call tools: text is free, and what begins as a call is one."""

import json

import pytest
from slice_ros.engine import ResponseFormat, Tool
from slice_ros.engine.config import TOOL_SYNTAXES
from slice_ros.engine.text.tools.call_syntax import MAX_CALLS
from slice_ros.engine.text.tools.syntaxes import choose_syntax, SYNTAXES
from slice_ros.errors import ErrorCode, RequestError
from tool_files import BY_NAME, constraint, follow, may_end, SYNTAX, TEMPLATES, TOOLS

TWO = (BY_NAME['turn'], BY_NAME['get_battery'])
TURN, BATTERY = ('turn', '{"angle_deg": 90}'), ('get_battery', '{}')
NAMES = [syntax.name for syntax in SYNTAXES]
AUTO = ResponseFormat(tools=TWO, tool_choice='auto')


def called(answer):
    return [call[1:] for call in answer.reader.calls]


def refusal(wanted):
    with pytest.raises(RequestError) as refused:
        constraint(wanted)
    assert refused.value.code is ErrorCode.INVALID_REQUEST
    return refused.value.message


def test_the_syntax_is_that_of_the_template_or_as_it_was_set():
    assert set(TEMPLATES) == set(NAMES) == set(TOOL_SYNTAXES) - {'auto'}
    for name, template in TEMPLATES.items():
        assert choose_syntax(template).name == name
        assert choose_syntax(template, 'gemma').name == 'gemma'
    assert choose_syntax(None).name == 'json'
    # Arguments that are no JSON: Qwen3-Coder.
    assert choose_syntax(TEMPLATES['hermes'] + '<function=').name == 'json'


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('choice', ['auto', 'required'])
def test_calls_are_read_in_every_syntax(name, choice):
    syntax = SYNTAX[name]
    calls = [TURN, BATTERY] if syntax.several else [TURN]
    answer = constraint(ResponseFormat(tools=TWO, tool_choice=choice), name)
    assert follow(answer, syntax.text(calls)) == ('', None)
    assert may_end(answer) and called(answer) == calls
    ids = [call.id for call in answer.reader.calls]
    assert len(set(ids)) == len(calls) and all(len(i) == 9 and i.isalnum() for i in ids)
    assert ids == [call.id for call in answer.reader.calls]


@pytest.mark.parametrize('name', [s.name for s in SYNTAXES if any(s.triggers)])
def test_text_in_front_of_a_call_is_released_and_nothing_of_the_call(name):
    syntax, answer = SYNTAX[name], constraint(AUTO, name)
    trigger = next(filter(None, syntax.triggers))
    text = f'Let me see {trigger[:-1]} or {trigger[:2]}. '
    call = trigger + syntax.text([TURN])[len(syntax.triggers[0]):]
    assert follow(answer, text + call) == (text, None)
    assert may_end(answer) and called(answer) == [TURN]


@pytest.mark.parametrize('name', NAMES)
def test_a_text_that_only_begins_like_a_call_stays_text(name):
    syntax, answer = SYNTAX[name], constraint(AUTO, name)
    like = (syntax.triggers[0] or syntax.head.partition('NAME')[0])[:-1]
    released, place = follow(answer, like)
    assert place is None and may_end(answer)
    assert released + answer.reader.flush() == like and not called(answer)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('calls', [
    [('fly', '{}')], [('turn', '{}')], [('turn', '{"angle_deg": 181}')],
    [('turn', '{"angle_deg": 90, "fast": true}')], [('get_battery', '{"a": 1}')]])
def test_no_other_call_can_be_begun(name, calls):
    syntax = SYNTAX[name]
    for choice in ('auto', 'required'):
        answer = constraint(ResponseFormat(tools=TWO, tool_choice=choice), name)
        assert follow(answer, syntax.text(calls))[1] is not None
        assert not called(answer) and not may_end(answer)


@pytest.mark.parametrize('name', NAMES)
def test_required_and_a_name_leave_no_room_for_words(name):
    syntax = SYNTAX[name]
    for choice, other in (('required', 'No.'), ('turn', syntax.text([BATTERY]))):
        answer = constraint(ResponseFormat(tools=TWO, tool_choice=choice), name)
        assert not may_end(answer)
        assert follow(answer, other)[1] is not None
    named = constraint(ResponseFormat(tools=TWO, tool_choice='turn'), name)
    assert follow(named, syntax.text([TURN])) == ('', None)
    assert named.over or name in ('llama', 'json') and may_end(named)
    assert called(named) == [TURN]


def test_an_answer_has_a_bounded_number_of_calls():
    for name, most in (('hermes', MAX_CALLS), ('llama', 1)):
        answer = constraint(AUTO, name)
        released, place = follow(answer, SYNTAX[name].text([BATTERY] * (most + 1)))
        assert place is not None and len(called(answer)) == most and not released


def test_a_call_that_is_cut_is_none():
    answer = constraint(AUTO, 'hermes')
    text = SYNTAX['hermes'].text([BATTERY, TURN])
    assert follow(answer, text[:text.rindex('}}')]) == ('', None)
    assert called(answer) == [BATTERY] and not answer.complete


def test_arguments_may_hold_what_ends_a_call():
    for name, syntax in SYNTAX.items():
        spoken = json.dumps({'text': syntax.closing + syntax.tail + '"}] {'})
        answer = constraint(ResponseFormat(tools=(BY_NAME['say'],)), name)
        assert follow(answer, syntax.text([('say', spoken)])) == ('', None), name
        assert called(answer) == [('say', spoken)]


@pytest.mark.parametrize('tool', TOOLS, ids=lambda tool: tool.name)
def test_every_schema_has_a_grammar(tool):
    for choice in ('auto', 'required', tool.name):
        assert constraint(ResponseFormat(tools=(tool,), tool_choice=choice)) is not None
    answer = constraint(ResponseFormat(tools=TOOLS))
    assert follow(answer, '{"name": "' + tool.name + '", "arguments": {') == ('', None)


def test_unusable_tools_are_refused_by_name():
    def tool(**changes):
        return refusal(ResponseFormat(tools=(TOOLS[0], Tool('x')._replace(**changes))))
    assert 'tools[1].name' in tool(name='') and 'tools[1].name' in tool(name='a b')
    assert 'two tools have the name' in tool(name=TOOLS[0].name)
    assert 'tools[1].name' in tool(name='auto')
    assert 'tools[1].description' in tool(description='\ud800')
    for parameters in ('{', '[]', '3', '[' * 9999, '{"type": "object", "a": NaN}'):
        assert 'tools[1].parameters' in tool(parameters=parameters), parameters
    assert 'must be object' in tool(parameters='{"type": "array"}')
    assert 'bytes' in tool(parameters=json.dumps({'description': 'x' * 40000}))
    assert 'tools are too many' in refusal(ResponseFormat(tools=(TOOLS[0],) * 65))
    assert 'leave either out' in refusal(ResponseFormat('regex', (), 'a', TWO))


def test_an_unknown_choice_is_refused():
    message = refusal(ResponseFormat(tools=TWO, tool_choice='fly'))
    assert 'fly' in message and 'required' in message


@pytest.mark.parametrize('schema', [
    {'$ref': '#'}, {'allOf': [{'$ref': '#'}]}, {'$ref': '#/$defs/None'},
    {'properties': {f'p{i}': {'pattern': 'a{400}'} for i in range(70)}},
    {'x-guidance': {}, 'properties': {}}])
def test_schemas_that_no_call_can_have_are_refused(schema):
    parameters = json.dumps({'type': 'object', **schema})
    message = refusal(ResponseFormat(tools=(Tool('x', '', parameters),), tool_choice='x'))
    assert 'tools' in message


def test_a_recursive_schema_with_an_end_is_kept():
    answer = constraint(ResponseFormat(tools=(BY_NAME['run_behaviour'],), tool_choice='required'))
    arguments = ('{"root": {"kind": "sequence", "children": [{"kind": "action"}, {"kind": '
                 '"fallback", "children": []}]}}')
    assert follow(answer, SYNTAX['json'].text([('run_behaviour', arguments)])) == ('', None)
    assert may_end(answer) and called(answer) == [('run_behaviour', arguments)]
