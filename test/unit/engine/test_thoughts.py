# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Thoughts come apart from answers, end within their budget, and cost the answer no token."""

from collections import deque

from formats import choice, GREEDY, regex
import pytest
from slice_ros.engine import EngineConfig, load_engine, ResponseFormat, Tool
from slice_ros.engine.chat_options import ChatOptions
from slice_ros.errors import ErrorCode
from slice_ros.request import Request
from slice_ros.serving.warm.preambles import prefix_of
from slice_ros.slo import SloClass
from thinkers import ASKED, begun, finish, OPENED, SILENT, STOP, SWITCHED, thinker

SAYS = '<think>\nI see a wall.\nSo: stop.\n</think>\n\nStop </thin> here.'
THOUGHT, ANSWER = 'I see a wall.\nSo: stop.', 'Stop </thin> here.'
ON, OFF = ChatOptions('on'), ChatOptions('off')


@pytest.fixture(scope='module', params=['tokens', 'special', 'text'])
def switched(request, tmp_path_factory):
    return thinker(tmp_path_factory.mktemp('switched'), SWITCHED, request.param)


@pytest.fixture(scope='module')
def opened(tmp_path_factory):
    return thinker(tmp_path_factory.mktemp('opened'), OPENED)


def test_a_thought_that_the_model_begins_is_no_part_of_the_answer(switched):
    sequence = begun(switched, SAYS)
    finish(switched, sequence)
    assert (sequence.reasoning, sequence.text) == (THOUGHT, ANSWER)
    assert sequence.finish_reason == 'stop'


@pytest.mark.parametrize('options', [ChatOptions(), ON])
def test_a_thought_that_the_prompt_begins_is_none_either(opened, options):
    sequence = begun(opened, SAYS.partition('\n')[2], options)
    finish(opened, sequence)
    assert (sequence.reasoning, sequence.text) == (THOUGHT, ANSWER)


@pytest.mark.parametrize('says', ['Stop.', '<thin air>', '<', '\n\n<think', ' <thinking>'])
def test_an_answer_without_a_thought_is_whole(switched, says):
    sequence = begun(switched, says)
    finish(switched, sequence)
    assert (sequence.reasoning, sequence.text) == ('', says)
    assert sequence.request.max_tokens == 100


def test_stop_strings_end_answers_and_no_thoughts(switched):
    sequence = begun(switched, SAYS, stop=['wall', 'here'])
    finish(switched, sequence)
    assert (sequence.reasoning, sequence.text) == (THOUGHT, 'Stop </thin> ')
    early = begun(switched, '<thin air>', stop=['<th'])
    finish(switched, early)
    assert (early.text, early.finish_reason) == ('', 'stop')


@pytest.mark.parametrize('jump', [True, False])
@pytest.mark.parametrize('budget', [1, 7, 40])
def test_a_spent_budget_begins_the_answer_which_has_all_its_tokens(switched, jump, budget):
    sequence = begun(switched, '<think>' + 'Hm. ' * 200, ChatOptions(budget=budget), 16)
    most = sequence.request.max_tokens
    outputs = finish(switched, sequence, jump)
    thought = sequence.request.thought
    assert sequence.reasoning == ('Hm. ' * 200)[:budget].rstrip()
    assert sequence.finish_reason == 'length' and len(outputs) == thought + 16 <= most
    assert thought == budget + len(switched.encode('<think>\n</think>\n\n'))
    closed = switched.encode('\n</think>\n\n')
    assert sequence.tokens[-16 - len(closed):-16] == closed
    assert sequence.request.max_tokens == thought + 16


def test_a_thought_is_closed_where_the_model_ends_its_turn_in_it(switched):
    sequence = begun(switched, '<think>Hm')
    outputs = finish(switched, sequence)
    assert (sequence.reasoning, sequence.text) == ('Hm', '')
    assert STOP not in sequence.tokens[sequence.prompt_tokens:-1]
    assert outputs[-1].finish_reason == 'stop'


@pytest.mark.parametrize('jump', [True, False])
def test_a_format_begins_behind_the_thought(switched, jump):
    for options, says in ((ON, SAYS.partition('\n')[2]), (ChatOptions('on', 5), 'Hm. ' * 60)):
        sequence = begun(switched, says, options, 16, choice('left', 'right'))
        finish(switched, sequence, jump)
        assert sequence.text in ('left', 'right') and sequence.finish_reason == 'stop'
        assert sequence.reasoning in (THOUGHT, 'Hm. H')
        behind = switched.encode('</think>\n\n')
        end = sequence.request.prompt_tokens + sequence.request.thought
        assert sequence.tokens[end - len(behind):end] == behind


def test_without_reasoning_a_format_begins_at_once(switched, opened):
    for engine in (switched, opened):
        sequence = begun(engine, SAYS, OFF, 16, choice('left', 'right'))
        assert engine.encode('</think>\n\n') == sequence.tokens[-len(engine.encode(
            '</think>\n\n')):]
        assert sequence.request.max_tokens == 16
        finish(engine, sequence)
        assert sequence.text in ('left', 'right') and not sequence.reasoning


def test_a_model_may_think_before_a_format_where_nobody_says(tmp_path):
    engine = thinker(tmp_path, SWITCHED)
    for wanted in (choice('left', 'right'), regex('(left|right)')):
        thought = begun(engine, SAYS, wanted=wanted)
        finish(engine, thought)
        assert thought.reasoning == THOUGHT and thought.text in ('left', 'right')
        plain = begun(engine, 'left', wanted=wanted)
        finish(engine, plain)
        assert (plain.reasoning, plain.text, plain.request.max_tokens) == ('', 'left', 100)


def test_a_format_that_the_context_cuts_in_the_thought_says_so(opened):
    sequence = begun(opened, 'Hm. ' * 100, ON, 20, choice('left', 'right'))
    sequence.limit = 10
    output = finish(opened, sequence)[-1]
    assert output.error.code is ErrorCode.FORMAT_INCOMPLETE and output.finish_reason == 'error'
    free = begun(opened, 'Hm. ' * 100, ON, 20)
    free.limit = 10
    assert finish(opened, free)[-1].finish_reason == 'length'


def test_thoughts_have_what_the_context_leaves(opened):
    long = [('user', 'x' * 150)]
    sequence = begun(opened, 'Hm. ' * 100, ON, 40, asked=long)
    assert sequence.request.max_tokens <= 256 - sequence.request.prompt_tokens
    finish(opened, sequence)
    assert len(sequence.tokens) <= 256 and len(sequence.text) == 40
    full = begun(opened, 'Hm. ' * 100, ON, 80, asked=[('user', 'x' * 160)])
    finish(opened, full)
    assert not full.reasoning and full.text


def test_prompts_say_whether_there_is_a_thought(tmp_path_factory, switched, opened):
    silent = thinker(tmp_path_factory.mktemp('silent'), SILENT)

    for engine, on, default, off in (
            (switched, '<think>\n', '', '<think>\n\n</think>\n\n'),
            (opened, '<think>\n', '<think>\n', '<think>\n\n</think>\n\n'),
            (silent, '<think>\n', '', '<think>\n\n</think>\n\n')):
        prompt = '<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n'
        for options, end in ((ON, on), (ChatOptions(), default), (OFF, off)):
            assert engine.encode_chat([('user', 'x')], (), options) == engine.encode(prompt + end)


def test_a_caller_opens_and_ends_no_thought(tmp_path):
    engine = thinker(tmp_path, "{{ messages[-1].content }}{{ '<|im_start|>' }}{# <think> #}")
    for text in ('x<think>', 'x</think>'):
        sequence = begun(engine, SAYS, asked=[('user', text)])
        finish(engine, sequence)
        assert (sequence.reasoning, sequence.text) == (THOUGHT, ANSWER)


def test_tools_are_called_behind_the_thought(opened):
    wanted = ResponseFormat(tools=(Tool('stop'),), tool_choice='required')
    sequence = begun(opened, SAYS.partition('\n')[2], ON, 60, wanted)
    finish(opened, sequence)
    assert sequence.reasoning == THOUGHT and not sequence.text
    assert sequence.tool_calls[0][1:] == ('stop', '{}')


def test_preambles_are_rendered_as_their_class_asks(switched):
    preamble = [('system', 'Be brief.')]
    for options in (ON, OFF):
        prefix = prefix_of(switched, preamble, options)
        whole = switched.encode_chat([*preamble, ('user', 'Hi')], (), options)
        assert len(prefix) > 20 and whole[:len(prefix)] == prefix


def test_reports_count_the_thought_and_time_the_answer(opened):
    options = ChatOptions('on', 6)
    tokens = opened.encode_chat(ASKED, (), options)
    request = Request('r', SloClass('test'), 0.0, len(tokens), 4)
    sequence = opened.open(tokens, 4, GREEDY, (), None, request, '', (), options)
    room = opened.thought_tokens(tokens, 4, options)
    assert request.max_tokens == 4 + room
    finish(opened, sequence)
    report = request.report()
    assert report.reasoning_tokens == request.thought > 0
    assert report.output_tokens == request.generated <= 4 + room
    assert report.ttft < report.answer <= report.completion


def test_a_thought_may_be_evicted(opened):
    undisturbed = begun(opened, options=ON, max_tokens=8)
    finish(opened, undisturbed)
    sequence, turn = begun(opened, options=ON, max_tokens=8), 0
    while not sequence.finish_reason:
        opened.step([(sequence, sequence.pending)])
        turn += 1
        if turn % 9 == 4:
            opened.evict(sequence)
    opened.close(sequence)
    assert sequence.tokens == undisturbed.tokens


def test_a_turn_follows_the_answer_without_its_thought(switched):
    sequence = begun(switched, SAYS)
    finish(switched, sequence)
    whole = [('user', 'Is there a wall?'), ('assistant', sequence.text)]
    tokens = switched.extend_chat(sequence.tokens, sequence.prompt_tokens, whole,
                                  [('user', 'Sure?')])
    assert tokens == switched.encode_chat([*whole, ('user', 'Sure?')])


def test_a_token_with_more_than_the_end_of_a_tag_is_parted(tmp_path):
    """Tags are no tokens of the embedded model: its vocabulary has one that begins with their end.

    What follows is sampled again, so that a format sees all of the answer.
    """
    (tmp_path / 'turns.jinja').write_text(OPENED)
    engine = load_engine(EngineConfig(chat_template=str(tmp_path / 'turns.jinja'), slots=2,
                                      max_context=256, threads=1))
    fused = next(token for token in sorted(engine._encoder._tokenizer.get_vocab())
                 if token[0] == '>' and token[1:].isascii() and token[1:])
    for wanted in (ResponseFormat(), choice('left', 'right')):
        sequence = begun(engine, 'Hm.', wanted=wanted)
        sequence.sampler._next = deque([
            *engine.encode('Hm.</think'), *engine.encode(fused), *engine.encode('left'), *[2] * 9])
        finish(engine, sequence)
        assert (sequence.reasoning, sequence.text) == ('Hm.', 'left')
        assert sequence.tokens[sequence.prompt_tokens:][:len(engine.encode('Hm.</think>'))] == (
            engine.encode('Hm.</think>'))
