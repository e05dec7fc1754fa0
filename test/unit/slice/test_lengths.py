# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What is learnt of answer lengths, and what may be said before anything is."""

from statistics import fmean

from hypothesis import given, strategies as st
import pytest
from slice_ros.scheduling.lengths import AnswerLengths, KEEP, PRIOR_SHARE

LENGTHS = st.lists(st.integers(1, 200), max_size=2 * KEEP)


def learnt(lengths):
    answers = AnswerLengths()
    for tokens in lengths:
        answers.learn(tokens)
    return answers


def test_before_anything_is_known_a_share_of_max_tokens_is_expected():
    assert AnswerLengths().expected(0, 100) == pytest.approx(100 * PRIOR_SHARE)


def test_the_mean_of_many_answers_outweighs_the_prior():
    assert learnt([20] * 100).expected(0, 160) == pytest.approx(20, abs=4)


def test_only_answers_that_outgrew_what_there_is_count():
    answers = learnt([10] * 50 + [100] * 50)
    assert answers.expected(0, 160) == pytest.approx(55, abs=3)
    assert answers.expected(10, 160) == pytest.approx(100, abs=3)


def test_old_habits_are_forgotten():
    assert learnt([150] * KEEP + [10] * KEEP).expected(0, 160) == pytest.approx(10, abs=4)
    assert len(learnt([1] * 3 * KEEP)) == KEEP


def test_the_least_length_is_one_that_nearly_all_reach():
    answers = learnt(range(10, 110))
    assert answers.least(0, 200, .05) == 15
    assert answers.least(50, 200, .05) == 53
    assert answers.least(500, 600, .05) == 501  # longer than any before: it may end at once
    assert learnt([9] * 3).least(0, 200, .05) == 1  # three answers are too few for a quantile


@given(LENGTHS, st.integers(0, 250), st.integers(1, 200))
def test_expectations_lie_between_one_more_token_and_max_tokens(lengths, generated, max_tokens):
    answers = learnt(lengths)
    expected = answers.expected(generated, max_tokens)
    assert generated + 1 <= expected <= max(max_tokens, generated + 1)
    assert generated + 1 <= answers.least(generated, max_tokens, .05) <= max(
        max_tokens, generated + 1)


@given(st.lists(st.integers(1, 200), min_size=KEEP, max_size=KEEP))
def test_a_full_memory_expects_its_mean(lengths):
    assert learnt(lengths).expected(0, 200) == pytest.approx(fmean(lengths), abs=5)
