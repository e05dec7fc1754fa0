# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The lines of `slice_bench regimes` on made-up figures: each holds, and each fails."""

import pytest
from slice_ros.bench.regimes.grid import LONG, place_lines, REQUESTS, standing, TARDINESS, UTILITY
from slice_ros.bench.regimes.lines import paired
from slice_ros.bench.regimes.loose_limits import loose_lines
from slice_ros.bench.regimes.published_setting import (
    BOUND, bound_lines, COMPLETION, gain_lines, OF_BOUND, PEAK, RATES)
from slice_ros.bench.regimes.special_cases import (
    burst_lines, first_token_lines, plan_lines, starvation_lines)

SEEDS = range(4)


def test_paired_differences_have_their_standard_error():
    mean, error = paired([.9, .8, .7], [.7, .7, .7])
    assert mean == pytest.approx(.1)
    assert error == pytest.approx(.1 / 3 ** .5)    # of 0.2, 0.1, 0.0
    assert paired([.5], [.4]) == (pytest.approx(.1), 0.0)
    with pytest.raises(ValueError):
        paired([.5], [])


def rows(policy, utility, requests=.5, late=1.0):
    """Return a row for each seed; a figure may be a list of one for each."""
    def of(figure, seed):
        return figure[seed] if isinstance(figure, list) else figure
    return [{'seed': s, 'policy': policy, 'utility_attainment': of(utility, s),
             'attainment': of(requests, s),
             'classes': {'control': {'tardiness_p99': of(late, s)}}} for s in SEEDS]


def outcome(mine, rival, alike=False, long_prompts=False):
    """Return whether each requirement holds, by its text."""
    at = {'slice': rows('slice', **mine), 'rival': rows('rival', **rival)}
    return {line.what: line.holds
            for line in place_lines('here', at, 'slice', alike, long_prompts)}


@pytest.mark.parametrize('ours, holds', [
    (.8, True), (.9, True), (.799, False),
    ([.78, .82, .78, .81], True),     # -0.25 +- 1.03 points
    ([.78, .80, .78, .80], False),    # -1.0 +- 0.58
])
def test_utility_is_compared_within_one_standard_error(ours, holds):
    assert outcome({'utility': ours}, {'utility': .8})[UTILITY] is holds


@pytest.mark.parametrize('requests, holds', [(.5, True), (.491, True), (.489, False)])
def test_requests_count_where_utilities_are_alike(requests, holds):
    mine, rival = {'utility': .8, 'requests': requests}, {'utility': .8, 'requests': .5}
    assert outcome(mine, rival, alike=True)[REQUESTS] is holds
    assert REQUESTS not in outcome(mine, rival)


@pytest.mark.parametrize('utility, requests, holds', [
    (.795, .495, True), (.789, .5, False), (.8, .489, False)])
def test_long_prompts_are_within_a_point_of_the_best(utility, requests, holds):
    mine, rival = {'utility': utility, 'requests': requests}, {'utility': .8, 'requests': .5}
    assert outcome(mine, rival, long_prompts=True)[LONG] is holds
    assert LONG not in outcome(mine, rival)


@pytest.mark.parametrize('late, utility, expected', [
    (.9, .8, True), (1.1, .8, False), ([.9, 1.2, .9, 1.1], .8, True),
    (9.0, .77, None),     # a rival that attains less may be quicker
    (9.0, .79, False)])   # ... but not one that attains within 2 points as much
def test_tardiness_is_compared_with_policies_as_useful(late, utility, expected):
    assert outcome({'utility': .8, 'late': late}, {'utility': utility}).get(TARDINESS) is expected


def test_a_class_that_is_not_there_has_no_tardiness():
    assert TARDINESS not in outcome({'utility': .8, 'late': None}, {'utility': .8})


def test_the_best_rival_is_named():
    at = {'slice': rows('slice', .8), 'a': rows('a', .7), 'b': rows('b', .85)}
    assert standing(at, 'slice') == (pytest.approx(.8), 'b', pytest.approx(-.05),
                                     pytest.approx(0, abs=1e-9))


def published(completion=1.0, theirs=4.0, utility=.9, rival=.01):
    found = {}
    for rate in RATES:
        for policy, end, share in (('slice', completion, utility), ('orca', theirs, rival),
                                   ('fastserve', theirs + 1, rival / 2)):
            found['published', rate, policy] = [
                {'requests': 400, 'attainment': share / 2, 'utility_attainment': share,
                 'classes': {'control': {'completion_mean': end}}}]
    return found


@pytest.mark.parametrize('what, figures, holds', [
    (COMPLETION, {'theirs': 3.5}, True),
    (COMPLETION, {'theirs': 3.3}, False),                 # of the better of the two
    (PEAK, {'utility': .9, 'rival': .02}, True),          # 45x
    (PEAK, {'utility': .9, 'rival': .03}, False),         # 30x
    (PEAK, {'utility': .3, 'rival': 0.0}, True),          # 120 requests to none
    (PEAK, {'utility': .05, 'rival': 0.0}, False),        # 20 requests to none
])
def test_gains_over_the_published_rivals(what, figures, holds):
    lines = [line for line in gain_lines(published(**figures), 'slice') if line.what == what]
    assert {line.holds for line in lines} == {holds}
    assert len(lines) == (5 if what == COMPLETION else 1)


def test_shares_of_the_bound():
    found = {}
    for (workload, name), bars in OF_BOUND.items():
        for rate, bar in bars.items():
            found.setdefault((workload, rate, 'slice'), [{}])[0][
                {'utility': 'utility_bound_share', 'requests': 'bound_share'}[name]] = bar
    lines = bound_lines(found, 'slice')
    assert len(lines) == 10 and all(line.holds and line.what == BOUND for line in lines)
    found['published', 4.0, 'slice'][0]['bound_share'] -= .001
    assert [line.where for line in bound_lines(found, 'slice') if not line.holds] == [
        'requests of published at 4 req/s']


@pytest.mark.parametrize('early, later, holds', [
    ([(.9, 1.0)], [(.95, .97)], [True, True]),
    ([(.89, 1.0)], [(.95, .96)], [True, False]),
    ([(1.0, 1.0)], [(.94, .97)], [False, True]),
    ([(.7, 1.0), (1.2, 1.0)], [(.90, .95), (.96, .93)], [True, True]),   # means over seeds
])
def test_loose_limits(early, later, holds):
    assert [line.holds for line in loose_lines('all', early, later)] == holds


def test_the_other_cases():
    assert [line.holds for line in burst_lines([(90, 100, 100), (1, 1, 1.1)])] == [True] * 2
    assert [line.holds for line in burst_lines([(89, 100, 100), (99, 99, 100)])] == [False, True]
    assert [line.holds for line in burst_lines([(89, 89, 100)])] == [False]
    assert [line.holds for line in first_token_lines([(-.1, -.2), (0.0, .001)])] == [True, False]
    assert starvation_lines([(.0046, 5), (.0045, 5)])[0].holds
    assert not starvation_lines([(.0046, 5), (.0045, 4)])[0].holds
    assert not starvation_lines([(.0040, 5), (.0045, 5)])[0].holds
    times = {16: 80, 256: 250, 1024: 900, 4096: 5000}
    assert [line.holds for line in plan_lines(times)] == [True] * 3
    assert [line.holds for line in plan_lines(times | {16: 81})] == [False, True, True]
    assert [line.holds for line in plan_lines(times | {256: 251})] == [True, False, True]
    assert [line.holds for line in plan_lines(times | {4096: 14000})] == [True, True, False]
