# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Objectives of a class, and whether they were attained."""

from dataclasses import replace
import math

import pytest
from slice_ros.slo import DEFAULT_CLASSES, SloClass, SloReport

CONTROL = DEFAULT_CLASSES[0]
KEPT = SloReport('r', CONTROL, served=True, prompt_tokens=8, output_tokens=20,
                 ttft=.5, tpot=.05, completion=1.5, max_gap=.06, elapsed=1.5)


def test_default_classes_are_the_three_rates_of_the_paper():
    figures = [(c.name, c.ttft_ms, c.tpot_ms, c.deadline_ms, c.utility) for c in DEFAULT_CLASSES]
    assert figures == [('control', 500, 50, 1500, 100), ('navigation', 1000, 100, 6000, 10),
                       ('dialogue', 1500, 250, 0, 1)]


def test_objectives_are_seconds_and_zero_means_none():
    assert (CONTROL.ttft, CONTROL.tpot, CONTROL.deadline) == (.5, .05, 1.5)
    free = SloClass('free')
    assert free.ttft == free.tpot == free.deadline == math.inf


@pytest.mark.parametrize('field', ['ttft_ms', 'tpot_ms', 'deadline_ms', 'utility'])
@pytest.mark.parametrize('value', [-1, math.nan, math.inf, '50', None, True])
def test_bad_objective_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f'control.{field}'):
        SloClass('control', **{field: value})


def test_utility_is_above_zero():
    with pytest.raises(ValueError, match='control.utility must be above 0'):
        SloClass('control', utility=0)


@pytest.mark.parametrize('name', ['', '1st', 'a b', 'a/b', 'a\n', 'ä', 'x' * 64, None, 7])
def test_a_name_that_cannot_be_a_topic_is_refused(name):
    with pytest.raises(ValueError, match='class name'):
        SloClass(name)


def test_attained_takes_every_objective_at_its_bound():
    assert KEPT.attained


@pytest.mark.parametrize('change', [
    {'ttft': .501}, {'tpot': .0501}, {'completion': 1.501}, {'served': False},
    {'ttft': math.nan}, {'tpot': math.nan}, {'completion': math.nan}])
def test_one_miss_is_enough(change):
    assert not replace(KEPT, **change).attained


def test_without_objectives_serving_is_attaining():
    late = replace(KEPT, slo=SloClass('free'), ttft=1e6, tpot=1e6, completion=1e7)
    assert late.attained
    assert not replace(late, served=False).attained
