# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What is learnt of answer lengths, and what may be said before anything is."""

from math import ceil, inf
from statistics import fmean

from hypothesis import given, strategies as st
import pytest
from slice_ros.errors import ErrorCode
from slice_ros.request import Request, State
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.lengths import (
    AnswerLengths, ClassLengths, ENOUGH, KEEP, KnownLength, PRIOR_SHARE)
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import SloClass

LATENCY = LatencyModel('even', ((1, 10), (16, 20)), prefill_token_ms=.1)
LENGTHS = st.lists(st.integers(1, 200), max_size=2 * KEEP)


def learnt(lengths):
    answers = AnswerLengths()
    for tokens in lengths:
        answers.learn(tokens)
    return answers


def expected(answers, generated, max_tokens, reach=inf):
    return answers.estimate(generated, max_tokens, reach)[1]


def test_before_anything_is_known_a_share_of_max_tokens_is_expected():
    assert expected(AnswerLengths(), 0, 100) == pytest.approx(100 * PRIOR_SHARE)


def test_the_mean_of_many_answers_outweighs_the_prior():
    assert expected(learnt([20] * 100), 0, 160) == pytest.approx(20, abs=4)


def test_only_answers_that_outgrew_what_there_is_count():
    answers = learnt([10] * 50 + [100] * 50)
    assert expected(answers, 0, 160) == pytest.approx(55, abs=3)
    assert expected(answers, 10, 160) == pytest.approx(100, abs=3)


def test_old_habits_are_forgotten():
    assert expected(learnt([150] * KEEP + [10] * KEEP), 0, 160) == pytest.approx(10, abs=4)
    assert len(learnt([1] * 3 * KEEP)) == KEEP


def test_one_in_ten_is_shorter_than_the_short_and_longer_than_the_long_length():
    answers = learnt(range(10, 110))
    assert answers.estimate(0, 200)[::2] == (20, 100)    # ten of the hundred are shorter, longer
    assert answers.estimate(50, 200)[::2] == (56, 104)   # of 59 longer than 50, 5 (51 to 55) are
    assert answers.estimate(0, 64)[2] == 64              # none is longer than its limit
    assert answers.estimate(70, 64)[::2] == (71, 71)     # nor shorter than one more token


def test_of_less_than_ten_answers_none_is_shorter_than_a_share_of_the_expected_length():
    for answers in (AnswerLengths(), learnt([9] * 9)):
        short, mean, long = answers.estimate(3, 200)
        assert (short, long) == (int(PRIOR_SHARE * mean), ceil(mean)) and mean > 9
        short, mean, _ = answers.estimate(8, 9)
        assert short == mean == 9
    assert learnt([9] * 10).estimate(3, 200)[::2] == (9, 9)
    short, mean, long = learnt(range(10, 110)).estimate(500, 600)  # longer than any before
    assert (short, long) == (501, ceil(mean))


def test_before_anything_is_known_no_more_is_expected_than_the_deadline_leaves_room_for():
    assert expected(AnswerLengths(), 0, 1024, 20.0) == pytest.approx(20)
    assert expected(AnswerLengths(), 0, 25, 100.0) == pytest.approx(25 * PRIOR_SHARE)
    # The assumption weighs as much as one answer: (10 + 20) / 2.
    assert expected(learnt([10]), 0, 1024, 20.0) == pytest.approx(15)
    # What has been learnt does not shrink to what the deadline leaves room for.
    assert expected(learnt([300] * 100), 0, 1024, 20.0) == pytest.approx(300, abs=15)


def test_an_answer_that_outgrew_all_is_assumed_to_have_its_share_behind_it():
    for answers in (AnswerLengths(), learnt([20] * 50)):
        assert expected(answers, 30, 1024, 20.0) == pytest.approx(30 / PRIOR_SHARE)
        assert expected(answers, 200, 1024, 20.0) == pytest.approx(200 / PRIOR_SHARE)
    # Close to its limit it ends half way there: (91 + 100) / 2.
    assert expected(AnswerLengths(), 90, 100, 20.0) == pytest.approx(95.5)


def test_a_known_length_is_what_is_expected_and_every_quantile():
    known = KnownLength(40)
    assert known.estimate(7, 1024, 5.0) == (40, 40, 40)
    assert known.estimate(40, 1024) == (41, 41, 41)


def taught(on_end):
    """Return what a policy has learnt from an answer of 10 tokens that ended by `on_end`."""
    policy, request = make_policy('slice'), Request('r', SloClass('free'), 0.0, 8, 100)
    policy.plan(0.0, (request,), LATENCY)
    request.advance(8, .1)
    for _ in range(9):
        request.advance(1, .2)
    on_end(request)
    policy.finished(request)
    return policy._classes._records['free'].lengths.all._known[0]


def test_an_answer_that_was_dropped_teaches_how_long_it_would_have_been():
    # Nothing was known: 65 of 100 tokens were expected, and 10 had come.
    assert taught(lambda r: r.end(State.FAILED, 1.0, ErrorCode.DEADLINE_MISSED)) == [65]
    assert taught(lambda r: r.end(State.FINISHED, 1.0)) == [10]
    # Its caller ended it, or the engine: neither says how long it would have been.
    assert taught(lambda r: r.end(State.CANCELLED, 1.0)) == []
    assert taught(lambda r: r.end(State.FAILED, 1.0, ErrorCode.ENGINE_FAILURE)) == []


@given(LENGTHS, st.integers(0, 250), st.integers(1, 200))
def test_expectations_lie_between_one_more_token_and_max_tokens(lengths, generated, max_tokens):
    answers = learnt(lengths)
    short, mean, long = answers.estimate(generated, max_tokens)
    assert generated + 1 <= min(short, mean) and short <= long
    assert max(mean, long) <= max(max_tokens, generated + 1)


@given(st.lists(st.integers(1, 200), min_size=KEEP, max_size=KEEP))
def test_a_full_memory_expects_its_mean(lengths):
    assert expected(learnt(lengths), 0, 200) == pytest.approx(fmean(lengths), abs=5)


def test_a_caller_is_judged_by_its_own_answers_once_there_are_enough():
    lengths = ClassLengths()
    for n in range(int(ENOUGH)):
        assert lengths.of('brief') is lengths.of('long') is lengths.of('') is lengths.all
        lengths.learn('brief', 10)
        lengths.learn('long', 500)
    assert expected(lengths.of('brief'), 0, 1024) < 110
    assert expected(lengths.of('long'), 0, 1024) > 400
    assert lengths.of('').estimate(0, 1024)[::2] == (10, 500)


def test_a_caller_of_other_lengths_harms_only_itself():
    lengths = ClassLengths()
    for _ in range(int(ENOUGH)):
        lengths.learn('honest', 20)
    before = lengths.of('honest').estimate(0, 1024)
    for _ in range(10 * KEEP):
        lengths.learn('liar', 1024)
    assert lengths.of('honest').estimate(0, 1024) == before


def test_callers_are_forgotten_whose_last_answer_is_oldest():
    lengths = ClassLengths()
    for caller in ('first', 'second', *map(str, range(KEEP - 2))):
        for _ in range(int(ENOUGH)):
            lengths.learn(caller, 20)
    lengths.learn('first', 20)
    lengths.learn('another', 20)
    assert lengths.of('second') is lengths.all is not lengths.of('first')
    assert len(lengths._callers) == KEEP


def lengths_planned_for(caller):
    """Return what the policy plans with for a request of `caller`, after answers of two others."""
    policy = make_policy('slice')
    for i in range(2 * int(ENOUGH)):
        name, tokens = (('brief', 5), ('long', 60))[i % 2]
        request = Request(str(i), SloClass('free'), 0.0, 8, 100, caller=name)
        policy.plan(0.0, (request,), LATENCY)
        request.advance(8, .1)
        for _ in range(tokens - 1):
            request.advance(1, .2)
        request.end(State.FINISHED, 1.0)
        policy.finished(request)
    request = Request('r', SloClass('free'), 2.0, 8, 100, caller=caller)
    policy.plan(2.0, (request,), LATENCY)
    return policy._demands[request].lengths


def test_the_policy_plans_with_the_lengths_of_the_caller():
    assert [set(lengths_planned_for(name)._known[0]) for name in ('brief', 'long', '', 'new')] == [
        {5}, {60}, {5, 60}, {5, 60}]
