# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Schemas and regular expressions are bounded, in linear time, before they are compiled."""

import json
import time

import pytest
from slice_ros.engine import ResponseFormat
from slice_ros.engine.text.grammar import Grammars
from slice_ros.engine.text.schema_limits import check_repeats, read_schema
from slice_ros.errors import ErrorCode, RequestError
import tiny


@pytest.fixture(scope='module')
def grammars():
    return Grammars(tiny.tokenizer(), 320, frozenset([256]))


@pytest.fixture
def compiled(grammars):
    """Return a function that compiles the text of a schema."""
    return lambda text: grammars.compile(ResponseFormat('json_schema', grammar=text))


LONG = 20000
GROWING = {
    'class': '[', 'escape': '[\\', 'group': '(', 'end': ')', 'repeat': '{', 'digits': '{1',
    'blank': '{ ', 'comma': '{,', 'hexadecimal': r'\x{', 'flag': '(?i', 'negated': '[^]', 'a': 'a'}


@pytest.mark.parametrize('part', GROWING.values(), ids=GROWING)
def test_reading_a_regular_expression_takes_linear_time(part):
    def spent(count):
        return min(seconds(check_repeats, part * count) for _ in range(3))
    # 8 times the text: 8 times the time if it is linear, 64 times if it is quadratic.
    assert spent(8 * LONG // len(part)) < 24 * spent(LONG // len(part)) + 0.01


def seconds(call, *args):
    began = time.thread_time()
    call(*args)
    return time.thread_time() - began


def nested(value, depth):
    return value if not depth else [nested(value, depth - 1)]


@pytest.mark.parametrize('value, word', [
    ({'pattern': '[' * 32700}, '4096 bytes'), ({'pattern': '[' * 4000}, 'unclosed'),
    ({'pattern': 'é' * 2100}, '4096 bytes'), ({'patternProperties': {'x' * 5000: {}}}, '4096'),
    ({'enum': [nested(i, 5) for i in range(1000)]}, '500 values'),
    ({'enum': [[i] for i in range(251)]}, '500 values'),
    ({'const': {f'a{i}': i for i in range(501)}}, '500 values'),
    ({'properties': {f'p{i}': {'enum': [[j, j] for j in range(100)]} for i in range(25)}},
     '500 values'),
    ({'const': nested(1, 65)}, 'nested'), ({'default': nested(1, 400)}, 'nested')])
def test_a_schema_that_takes_long_to_compile_is_refused_before(compiled, value, word):
    with pytest.raises(RequestError, match=word) as caught:
        compiled(json.dumps(value))
    assert caught.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize('value', [
    {'enum': [f'place {i}' for i in range(1000)]}, {'enum': [[i] for i in range(250)]},
    {'const': {f'a{i}': i for i in range(500)}}, {'const': nested(1, 60)}])
def test_values_within_the_limits_are_kept_to(compiled, value):
    assert compiled(json.dumps(value)).error == ''


@pytest.mark.parametrize('text', [
    '{"type":"number","minimum":-1' + '0' * 400 + ',"maximum":1.5}',
    '{"type":"number","minimum":-1.5,"exclusiveMaximum":1' + '0' * 400 + '}',
    '{"multipleOf":1' + '0' * 400 + '}', '{"maxLength":1' + '0' * 5000 + '}',
    '{"type":"number","minimum":-1e999,"maximum":1e999}', '{"enum":[1e400]}'])
def test_numbers_that_nothing_can_hold_are_refused_in_a_sentence(compiled, text):
    with pytest.raises(RequestError, match='number .*(digits|too large)') as caught:
        compiled(text)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_a_type_of_megabytes_is_printed_in_part(grammars):
    with pytest.raises(RequestError) as caught:
        grammars.compile(ResponseFormat('x' * 10 ** 7))
    assert len(caught.value.message) < 300


def test_only_numbers_without_an_end_are_given_one():
    number = {'type': 'number'}
    assert read_schema(json.dumps({'items': number}))['items']['multipleOf'] == 1e-6
    for other in ({'type': 'integer'}, {'type': 'number', 'enum': [1.23456789]},
                  {'type': 'number', 'multipleOf': 0.5},
                  {'type': 'number', 'minimum': 0, 'maximum': 1e-7},
                  {'properties': {'type': {'const': 'number'}}}):
        assert read_schema(json.dumps(other)) == other
    both = {'allOf': [number, {'enum': [1.23456789]}]}
    assert read_schema(json.dumps(both)) == both


@pytest.mark.parametrize('expression', [
    'a{ 500 }', r'\x{1F600}\u{9999}', '[[a]{900}]', 'a{500}', r'(a{20}b){20}', r'\{900\}',
    '[{900}]', 'a{2}b{400}c{400}', '{', 'a{,}', ')('])
def test_few_repeats_pass(expression):
    check_repeats(expression)


@pytest.mark.parametrize('expression', [
    'a{ 501 }', 'a{ 1 , 501 }', 'a{000000000501}', '([[a])]x{30}){30}', r'(\[x{30}){30}',
    'a{501}', '(a{23}){23}', 'a{0,99999999999999}', '[]a]{501}', '((x)(y{30})z){20}', 'a{600,}'])
def test_many_repeats_do_not(expression):
    with pytest.raises(ValueError, match='repeated'):
        check_repeats(expression)
