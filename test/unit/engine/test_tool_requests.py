# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded model with real-shaped tools: whatever it says, a call is valid or the answer cut.

SLICE_TOOL_REQUESTS in the environment is the number of requests, 1,000 in `make tools`.
"""

from collections import Counter
import json
import os

from jsonschema import Draft202012Validator
import pytest
from slice_ros.engine import (
    EngineConfig, load_engine, Message, ResponseFormat, Sampling, Tool, ToolCall)
from slice_ros.errors import ErrorCode
from tool_files import BY_NAME, TOOLS

REQUESTS = int(os.environ.get('SLICE_TOOL_REQUESTS', 24))
TOGETHER = 10     # answers at once
MAX_TOKENS = 64


@pytest.fixture(scope='module')
def engine():
    return load_engine(EngineConfig(max_context=1024, slots=TOGETHER, max_batch=TOGETHER))


def conversation(tool):
    """Return a conversation in which a tool was called before, so that a small model does it."""
    return [Message('user', 'How full is the battery?'),
            Message('assistant', '', (ToolCall('call00001', 'get_battery', '{}'),)),
            Message('tool', '81 %', (), 'call00001'), Message('assistant', 'It has 81 %.'),
            Message('user', f'Call {tool.name} now.')]


def begun(engine, number):
    """Return the answer number n, its tools and its choice."""
    tool = TOOLS[number * 7 % len(TOOLS)]
    tools = tuple(dict.fromkeys((tool, BY_NAME['get_battery'])))   # a set has any order
    choice = ('auto', 'required', tool.name)[number // 2 % 3]
    sampling = Sampling(temperature=1.0, seed=number) if number % 2 else Sampling()
    return engine.open(engine.encode_chat(conversation(tool), tools), MAX_TOKENS, sampling, (),
                       ResponseFormat(tools=tools, tool_choice=choice)), tools, choice


def finish(engine, sequences):
    """Return the last output of each sequence, all decoded together."""
    last = {}
    while running := [s for s in sequences if not s.finish_reason]:
        for output in engine.step([(s, s.pending) for s in running]):
            last[output.sequence] = output
    for sequence in sequences:
        engine.close(sequence)
    return [last[sequence] for sequence in sequences]


def check(output, tools, choice, seen):
    """Assert that an answer is as its tools and its choice allow."""
    sequence, calls = output.sequence, output.sequence.tool_calls
    assert output.error is None or output.error.code is ErrorCode.FORMAT_INCOMPLETE
    assert not sequence.text.startswith('{"name": "')
    for call in calls:
        schema = next(json.loads(t.parameters) for t in tools if t.name == call.name)
        Draft202012Validator(schema).validate(json.loads(call.arguments))
    if choice != 'auto':
        assert not sequence.text and (calls or output.error)
        assert choice == 'required' or all(call.name == choice for call in calls)
    seen[choice if choice in ('auto', 'required') else 'named',
         'cut' if output.error else 'called' if calls else 'said'] += 1


def test_each_call_parses_and_validates_or_the_answer_says_that_it_was_cut(engine):
    seen = Counter()
    for first in range(0, REQUESTS, TOGETHER):
        wanted = [begun(engine, n) for n in range(first, min(first + TOGETHER, REQUESTS))]
        for output, (_, tools, choice) in zip(finish(engine, [w[0] for w in wanted]), wanted):
            check(output, tools, choice, seen)
    print(*(f'{choice} {how}: {n}' for (choice, how), n in sorted(seen.items())), sep='\n')
    for choice in ('auto', 'required', 'named'):
        assert seen[choice, 'called'], seen


def test_jumping_forward_changes_no_call(engine):
    def answers(jump):
        engine.opener.jump_forward = jump
        try:
            sequences = [begun(engine, n)[0] for n in range(4)]
            outputs = finish(engine, sequences)
        finally:
            engine.opener.jump_forward = True
        return [(s.tokens, [c[1:] for c in s.tool_calls], o.finish_reason)
                for s, o in zip(sequences, outputs)]
    assert answers(True) == answers(False)


@pytest.mark.parametrize('schema', [
    {'properties': {'a': {'$ref': '#'}}, 'required': ['a']},
    {'properties': {'a': {'$ref': '#/$defs/A'}}, 'required': ['a'],
     '$defs': {'A': {'$ref': '#/$defs/A'}}}])
def test_a_schema_without_end_ends_with_a_code(engine, schema):
    tools = (Tool('x', '', json.dumps({'type': 'object', **schema})),)
    sequence = engine.open(engine.encode('x'), 40, Sampling(), (),
                           ResponseFormat(tools=tools, tool_choice='x'))
    error = finish(engine, [sequence])[0].error
    assert error.code in (ErrorCode.FORMAT_INCOMPLETE, ErrorCode.INVALID_REQUEST)
    assert 'tool call' in error.message and not sequence.tool_calls
