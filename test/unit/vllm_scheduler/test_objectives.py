# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What callers and the operator of vLLM set; vLLM itself is not needed."""

import math

import pytest
from slice_ros.slo import DEFAULT_CLASSES, SloClass
from slice_ros.vllm.objectives import Objectives
from slice_ros.vllm.vllm_options import read_options

CONTROL, NAVIGATION, DIALOGUE = DEFAULT_CLASSES


@pytest.fixture
def objectives():
    return Objectives(DEFAULT_CLASSES, DIALOGUE)


@pytest.mark.parametrize('arguments, expected', [
    (None, DIALOGUE),
    ({}, DIALOGUE),
    ({'kv_transfer_params': {'do_remote_prefill': True}}, DIALOGUE),
    ({'slo_class': 'control'}, CONTROL),
    ({'slo_class': 'control', 'ttft_ms': 0, 'tpot_ms': 0.0}, CONTROL),
    ({'slo_class': 'control', 'ttft_ms': '250'}, SloClass('control', 250, 50, 1500, 100)),
    ({'slo_class': 'control', 'deadline_ms': 'inf'}, SloClass('control', 500, 50, 0, 100)),
    ({'tpot_ms': 80}, SloClass('dialogue', 1500, 80, 0, 1))])
def test_objectives_of_a_request(objectives, caplog, arguments, expected):
    assert objectives.of(arguments) == expected
    assert not caplog.records


@pytest.mark.parametrize('arguments', [
    {'slo_class': 'urgent'}, {'slo_class': ['control']}, {'slo_class': 7},
    {'slo_class': 'x' * 100_000}, {'slo_class': 'control', 'ttft_ms': -1},
    {'slo_class': 'control', 'ttft_ms': math.nan}, {'slo_class': 'control', 'ttft_ms': 'soon'},
    {'slo_class': 'control', 'ttft_ms': [5]}, {'slo_class': 'control', 'tpot_ms': True},
    {'slo_class': 'control', 'tpot_ms': None}, {'deadline_ms': 10 ** 400}])
def test_hostile_arguments_are_the_default_class_with_one_short_warning(
        objectives, caplog, arguments):
    for _ in range(3):
        assert objectives.of(arguments) == DIALOGUE
    (record,) = caplog.records
    assert record.levelname == 'WARNING' and len(record.getMessage()) < 300


def test_options():
    options = read_options({'other': 1, 'slice': {
        'classes': {'fast': {'ttft_ms': 100, 'utility': 5}, 'slow': {}}, 'policy': 'edf',
        'profile': {'name': 'mine', 'decode_ms': [[1, 10]]}, 'max_batch': 8}})
    assert options.classes == (SloClass('fast', 100, utility=5), SloClass('slow'))
    assert (options.default.name, options.policy, options.max_batch) == ('slow', 'edf', 8)
    assert options.profile.decode(1) == 0.01
    assert read_options({}).default == DIALOGUE == read_options(object()).default


@pytest.mark.parametrize('values, named', [
    ({'clases': {}}, 'clases'), ({'classes': {}}, 'classes'), ([], 'slice'),
    ({'classes': {'a': {'speed': 1}}}, 'speed'), ({'classes': {'a': {'ttft_ms': -1}}}, 'ttft_ms'),
    ({'default_class': 'none'}, 'default_class'), ({'max_batch': -1}, 'max_batch'),
    ({'prefill_chunk': True}, 'prefill_chunk'), ({'policy_options': 3}, 'policy_options'),
    ({'profile': {'decode': 1}}, 'profile'), ({'profile': '/no/such/file'}, '/no/such/file')])
def test_wrong_options_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        read_options({'slice': values})
