# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Answers keep to their response format, also where the model prefers other tokens."""

import json
import re
import time

from formats import answer, choice, GREEDY, regex, schema
import numpy as np
import pytest
from slice_ros.engine import EngineConfig, load_engine, ResponseFormat, Sampling
from slice_ros.engine.text.grammar import Grammars
from slice_ros.errors import ErrorCode, RequestError
import tiny

HOT = [Sampling(temperature=2.0, seed=seed) for seed in range(6)]
GOAL = {
    'type': 'object', 'additionalProperties': False, 'required': ['frame', 'at', 'tags', 'n'],
    'properties': {
        'frame': {'enum': ['map', 'odom', 'dépôt 🚪']},
        'at': {'type': 'object', 'additionalProperties': False, 'required': ['x', 'y'],
               'properties': {'x': {'type': 'number', 'minimum': -10, 'maximum': 10},
                              'y': {'type': 'number', 'minimum': 0.5, 'maximum': 7.25}}},
        'tags': {'type': 'array', 'items': {'enum': ['a', 'b']}, 'maxItems': 3},
        'n': {'type': 'integer', 'minimum': 0, 'maximum': 99},
        'note': {'type': 'string', 'maxLength': 8}}}


@pytest.fixture(scope='module')
def byte_engine(tiny_directory):
    """Return an engine for which a character takes up to four tokens."""
    return load_engine(EngineConfig(str(tiny_directory), weights='fp32', slots=8))


@pytest.fixture(scope='module')
def word_engine():
    """Return the embedded model, on whichever kernels are best here."""
    return load_engine(EngineConfig(weights='fp16', max_context=512, slots=8, threads=2))


@pytest.fixture(params=['byte_engine', 'word_engine'])
def engine(request):
    return request.getfixturevalue(request.param)


def check_goal(text):
    value = json.loads(text)
    assert set(value) - {'note'} == set(GOAL['required'])
    assert value['frame'] in GOAL['properties']['frame']['enum']
    assert set(value['at']) == {'x', 'y'}
    assert -10 <= value['at']['x'] <= 10 and 0.5 <= value['at']['y'] <= 7.25
    assert len(value['tags']) <= 3 and set(value['tags']) <= {'a', 'b'}
    assert isinstance(value['n'], int) and 0 <= value['n'] <= 99
    assert len(value.get('note', '')) <= 8


@pytest.mark.parametrize('sampling', [GREEDY, *HOT[:3]], ids=['greedy', '0', '1', '2'])
def test_a_schema_with_nested_parts_is_kept(engine, sampling):
    sequence, output = answer(engine, schema(GOAL), sampling=sampling)
    assert output.finish_reason == sequence.finish_reason == 'stop' and output.error is None
    check_goal(sequence.text)


def test_filters_and_penalties_choose_among_what_is_allowed(engine):
    for settings in ({'top_k': 1}, {'top_k': 40, 'top_p': 0.5}, {'min_p': 0.9},
                     {'repetition_penalty': 5.0}, {'temperature': 1e-40}):
        sampling = Sampling(**{'temperature': 1.5, 'seed': 3, **settings})
        check_goal(answer(engine, schema(GOAL), sampling=sampling)[0].text)


@pytest.mark.parametrize('expression', [
    r'[A-Z]{3}-\d{4}', '(left|right) by (90|45)°', 'жук+🐞', r'^[^a-z]{1,9}: "(yes|no)/\n"$'])
def test_a_regular_expression_is_matched_as_a_whole(engine, expression):
    for sampling in HOT[:3]:
        sequence, _ = answer(engine, regex(expression), 200, sampling)
        if sequence.finish_reason != 'error':  # a hot model may write a word without end
            assert re.fullmatch(expression, sequence.text, re.ASCII if 'd{' in expression else 0)
    assert sequence.finish_reason in ('stop', 'length', 'error')


CHOICES = ('STOP', 'GO', 'go', 'go left', 'go left now', 'ガンバレ', 'a"\\\x7f\n', '<|im_end|>')


def test_an_answer_is_one_of_the_choices_word_for_word(engine):
    seen = set()
    for seed in range(24):
        sequence, _ = answer(engine, choice(*CHOICES), 40, Sampling(temperature=5.0, seed=seed))
        assert sequence.finish_reason == 'stop' and sequence.text in CHOICES
        seen.add(sequence.text)
    assert len(seen) >= 4


def test_a_choice_ends_as_soon_as_it_is_unambiguous(byte_engine):
    sequence, _ = answer(byte_engine, choice('abcdef', 'xyz'))
    assert sequence.text in ('abcdef', 'xyz') and sequence.generated == 1
    sequence, _ = answer(byte_engine, choice('go left', 'go right'))
    assert sequence.text in ('go left', 'go right') and sequence.generated == 4
    sequence, _ = answer(byte_engine, choice('日本', '日没'))  # they part within a character
    assert sequence.text in ('日本', '日没') and sequence.generated == 5
    assert answer(byte_engine, choice('one', 'one'))[0].generated == 1


@pytest.mark.parametrize('seed', range(6))
def test_a_choice_that_begins_another_can_be_the_answer(byte_engine, seed):
    sampling = Sampling(temperature=30.0, seed=seed)
    sequence, _ = answer(byte_engine, choice('go', 'go left'), sampling=sampling)
    assert (sequence.text, sequence.generated) in (('go', 3), ('go left', 3))


def test_max_tokens_before_the_end_is_an_error_with_the_partial_text(engine):
    sequence, output = answer(engine, schema(GOAL), 6)
    assert output.finish_reason == 'error' and sequence.generated == 6
    assert output.error.code is ErrorCode.FORMAT_INCOMPLETE
    assert 'max_tokens' in output.error.message
    assert sequence.text.startswith('{"frame"'[:len(sequence.text)]) and sequence.text


def test_max_tokens_where_the_answer_has_its_form_is_its_length(engine):
    sequence, output = answer(engine, regex('[ab]+'), 5, HOT[0])
    assert re.fullmatch('[ab]+', sequence.text) and output.error is None


def test_numbers_and_blanks_come_to_an_end(word_engine):
    free = {'type': 'object', 'required': ['a'], 'properties': {'a': {'type': 'number'}},
            'additionalProperties': False}
    for sampling in (GREEDY, *HOT):
        sequence, output = answer(word_engine, schema(free), 60, sampling)
        if output.error is None:
            assert re.fullmatch(r'{"a": -?\d+(\.\d{1,6})?}', sequence.text)
        assert not re.search(r'\s\s|\.\d{7}', sequence.text)


def test_neighbours_are_the_same_bits_and_eviction_changes_nothing(engine):
    prompt = engine.encode('Tell me about wheels.')
    kinds = [(Sampling(), None), (Sampling(temperature=1.0, seed=4), None),
             (Sampling(), schema(GOAL)), (HOT[1], schema(GOAL)), (HOT[2], regex('[a-z ]{30}'))]

    def run(rows, evict=False):
        live = [engine.open(prompt, 40, sampling, (), wanted) for sampling, wanted in rows]
        at = 0
        while todo := [(s, s.pending) for s in live if not s.finish_reason]:
            engine.step(todo)
            at += 1
            if evict and at % 7 == 0:
                engine.evict(todo[at % len(todo)][0])
        for sequence in live:
            engine.close(sequence)
        return [s.tokens for s in live]
    together = run(kinds)
    assert together == [run([row])[0] for row in kinds]
    if engine.info.weights == 'fp16':
        assert run(kinds, evict=True) == together


def test_a_step_that_fails_leaves_the_answer_where_it_was(byte_engine, monkeypatch):
    undisturbed, _ = answer(byte_engine, schema(GOAL))
    sequence = byte_engine.open(undisturbed.tokens[:undisturbed.prompt_tokens], 250, GREEDY, (),
                                schema(GOAL))

    def fault(*step):
        raise RuntimeError('out of luck')
    while not sequence.finish_reason:
        if sequence.generated in (0, 9):
            with monkeypatch.context() as patch, pytest.raises(RuntimeError):
                patch.setattr(byte_engine._runner, 'forward', fault)
                byte_engine.step([(sequence, sequence.pending)])
        byte_engine.step([(sequence, sequence.pending)])
    assert sequence.tokens == undisturbed.tokens


@pytest.mark.parametrize('wanted, word', [
    (ResponseFormat('xml'), 'xml'), (ResponseFormat(choices=('a',)), 'set the type to choice'),
    (ResponseFormat(grammar='a'), 'set the type'), (choice(), '1 to 256'),
    (choice('a', ''), 'empty'), (choice(*map(str, range(257))), '257'),
    (choice('x' * 20000), '16384'), (choice('a\ud800'), 'Unicode'),
    (regex(''), 'empty'), (regex('(('), 'unclosed group'),
    (regex('(?=a)b'), 'look-around'), (regex(r'(a)\1'), 'backreferences'), (regex('a^b'), 'look'),
    (regex('x' * 5000), '4096'), (regex('a{1000000}'), 'repeated'),
    (regex('(?x)(a{30}#)\\n){30}'), 'flag x'),
    (regex('((((a{100}){100}){100}){100})'), 'repeated'), (regex(r'[^\s\S]'), 'no answer'),
    (regex('(' * 2000 + 'a' + ')' * 2000), 'nest'),
    (ResponseFormat('json_schema', grammar='{a'), 'double quotes'),
    (ResponseFormat('json_schema', grammar='[' * 20000), 'nested'),
    (ResponseFormat('json_schema', grammar='true'), 'object'),
    (ResponseFormat('json_schema', grammar='{"a": "' + 'x' * 40000 + '"}'), '32768'),
    (ResponseFormat('json_schema', grammar='{"items":' * 100 + '{}' + '}' * 100), 'nested'),
    (schema({'$ref': 'http://127.0.0.1:9/x.json'}), 'http'), (schema({'$ref': '#'}), 'no answer'),
    (schema({'type': 'robot'}), 'robot'), (schema({'not': {}}), 'not'),
    (schema({'type': 'integer', 'minimum': 5, 'maximum': 4}), 'greater than maximum'),
    (schema({'enum': list(range(1001))}), '1001'), (schema({'x-guidance': {}}), 'x-guidance'),
    (schema({'type': 'integer', 'multipleOf': 99999989}), 'multipleOf'),
    (schema({'properties': {f'p{i}': {} for i in range(201)}}), '200'),
    (schema({'type': 'string', 'pattern': 'a{1000000}'}), 'repeated'),
    (schema({'type': 'string', 'allOf': [{'pattern': f'[ab]*a[ab]{{{i}}}$'}
                                         for i in range(50)]}), 'patterns')])
def test_what_cannot_be_kept_is_refused_at_once_in_a_sentence(byte_engine, wanted, word):
    began = time.process_time()
    with pytest.raises(RequestError) as caught:
        byte_engine.open([1], 5, GREEDY, (), wanted)
    assert time.process_time() - began < 5   # of milliseconds; some would take minutes
    error = caught.value
    assert error.code is ErrorCode.INVALID_REQUEST and word in error.message
    assert len(error.message) < 300 and '\n' not in error.message


def test_references_may_multiply_and_recur(byte_engine):
    bomb = {f'd{i}': {'type': 'object', 'required': ['a', 'b'], 'properties': dict.fromkeys(
        'ab', {'$ref': f'#/$defs/d{i + 1}'})} for i in range(30)}
    wanted = schema({'$defs': {**bomb, 'd30': {'type': 'integer'}}, '$ref': '#/$defs/d0'})
    assert answer(byte_engine, wanted, 20)[1].error.code is ErrorCode.FORMAT_INCOMPLETE
    tree = {'$defs': {'n': {'anyOf': [{'type': 'null'}, {'type': 'array', 'maxItems': 2, 'items': {
        '$ref': '#/$defs/n'}}]}}, '$ref': '#/$defs/n'}
    sequence, output = answer(byte_engine, schema(tree), 100, HOT[1])
    assert output.error or json.loads(sequence.text) is None or isinstance(
        json.loads(sequence.text), list)


def test_a_grammar_that_grows_too_complex_ends_its_own_answer_alone(byte_engine):
    neighbour = byte_engine.open([1, 2, 3], 8, GREEDY)
    hostile = byte_engine.open([1, 2, 3], 400, GREEDY, (), regex('(a?){200}a{200}'))
    outputs = []
    while todo := [(s, s.pending) for s in (hostile, neighbour) if not s.finish_reason]:
        outputs += byte_engine.step(todo)
    for sequence in (hostile, neighbour):
        byte_engine.close(sequence)
    assert neighbour.finish_reason == 'length'
    last = [o for o in outputs if o.sequence is hostile][-1]
    assert last.error is None or last.error.code in (
        ErrorCode.INVALID_REQUEST, ErrorCode.FORMAT_INCOMPLETE)
    assert set(hostile.text) <= {'a'}


def test_stop_strings_and_a_format_are_not_combined(byte_engine):
    with pytest.raises(RequestError, match='stop'):
        byte_engine.open([1], 5, GREEDY, ['x'], choice('a', 'b'))


@pytest.mark.parametrize('make', [tiny.llama3_rope, tiny.qwen2, tiny.mistral, tiny.gpt2])
def test_every_family_keeps_to_a_format(tmp_path, make):
    tiny.save(tmp_path, make())
    engine = load_engine(EngineConfig(str(tmp_path), max_context=64, slots=2))
    assert answer(engine, choice('STOP', 'GO'))[0].text in ('STOP', 'GO')


def test_a_model_without_an_end_token_says_so(byte_engine, monkeypatch):
    from slice_ros.engine.text.grammar import Grammars
    grammars = Grammars(tiny.tokenizer(), 320, frozenset())
    assert grammars.compile(ResponseFormat()) is None
    with pytest.raises(RequestError, match='ends an answer'):
        grammars.compile(choice('a'))


def test_added_tokens_that_the_model_has_no_logits_for_do_not_matter():
    made = tiny.tokenizer()
    made.add_tokens(['<pad>', 'beyond'])
    grammars = Grammars(made, 259, frozenset([258]))
    constraint = grammars.compile(choice('go', 'stop'))
    assert sorted(np.flatnonzero(~constraint.forbidden)) == sorted(
        made.convert_tokens_to_ids(['g', 's']))
