# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Limits of JSON schemas and regular expressions."""

import json

import pytest
from slice_ros.engine.text.schema_limits import check_repeats, read_schema


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
    'a{500}', r'(a{20}b){20}', r'\{900\}', '[{900}]', 'a{2}b{400}c{400}', '{', 'a{,}', ')('])
def test_few_repeats_pass(expression):
    check_repeats(expression)


@pytest.mark.parametrize('expression', [
    'a{501}', '(a{23}){23}', 'a{0,99999999999999}', '[]a]{501}', '((x)(y{30})z){20}', 'a{600,}'])
def test_many_repeats_do_not(expression):
    with pytest.raises(ValueError, match='repeated'):
        check_repeats(expression)
