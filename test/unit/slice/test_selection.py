# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Phase 1, selection: against an exhaustive search where one is possible."""

from itertools import combinations
import math

from hypothesis import given, strategies as st
import pytest
from slice_ros.scheduling.slice.demand import Demand
from slice_ros.scheduling.slice.selection import select


def demand(work, due, utility=1.0, prefill=0.0, first_due=math.inf):
    return Demand(None, None, None, prefill=prefill, work=work, first_due=first_due,
                  finish_due=due, density=utility / work)


def chosen(demands, now=0.0):
    select(now, demands)
    return [d.selected for d in demands]


def feasible(demands):
    total = 0.0
    for d in sorted(demands, key=lambda d: d.finish_due):
        total += d.work
        if total > d.finish_due + 1e-9:
            return False
    return True


JOBS = st.lists(st.builds(demand, st.integers(1, 9), st.integers(1, 30)), max_size=8)


@given(JOBS)
def test_as_many_equals_as_can_be_done_at_all(demands):
    chosen(demands)
    selected = [d for d in demands if d.selected]
    assert feasible(selected)
    most = next(n for n in range(len(demands), -1, -1)
                if any(feasible(group) for group in combinations(demands, n)))
    assert len(selected) == most


@given(st.lists(st.builds(demand, st.floats(.01, 9), st.floats(.1, 30), st.floats(.1, 100)),
                max_size=30))
def test_what_is_selected_fits_and_what_fits_is_selected(demands):
    chosen(demands)
    total = 0.0
    for d in sorted((d for d in demands if d.selected), key=lambda d: d.finish_due):
        total += d.work
        assert total <= d.finish_due + 1e-6
    if sum(d.work for d in demands) <= min((d.finish_due for d in demands), default=0):
        assert all(d.selected for d in demands)


def test_the_least_utility_density_is_removed_first():
    cheap, dear, long = demand(2, 5, 1), demand(2, 5, 100), demand(4, 5, 10)
    assert chosen([cheap, dear, long]) == [False, True, False]  # both go before the work fits
    assert chosen([cheap, dear]) == [True, True]
    assert chosen([demand(3, 4, 1), demand(3, 4, 2)]) == [False, True]


def test_selection_goes_on_past_one_that_does_not_fit():
    # The published rule stops at the first; the last of these would be removed with it.
    assert chosen([demand(1, 10, 50), demand(20, 10, 100), demand(5, 10, 1)]) == [
        True, False, True]


def test_a_prefill_must_be_done_by_the_first_token():
    late = demand(2.0, 10, prefill=1.0, first_due=.5)
    assert chosen([late]) == [False]
    assert chosen([demand(2.0, 10, prefill=.4, first_due=.5)]) == [True]


def test_one_that_cannot_be_late_is_always_selected():
    assert chosen([demand(1e6, math.inf)]) == [True]


def test_it_returns_what_the_selected_ones_can_spare():
    # By 4 there is 1 to do, by 10 there are 6; the one that is removed counts nowhere.
    demands = [demand(1, 4, 10), demand(5, 10, 5), demand(20, 12, 1)]
    assert select(0.0, demands) == pytest.approx(3)
    assert select(2.0, demands) == pytest.approx(1)
    # A prefill of 2 within 2.5 is the tightest of all.
    assert select(0.0, demands[:2] + [
        demand(3, 9, 2, prefill=2, first_due=2.5)]) == pytest.approx(.5)
    assert select(0.0, []) == math.inf


@pytest.mark.parametrize('now', [0.0, 1e6])
def test_times_are_relative_to_now(now):
    assert chosen([demand(3, now + 4), demand(3, now + 4)], now) .count(True) == 1
