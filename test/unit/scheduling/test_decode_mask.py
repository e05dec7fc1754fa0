# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The published arithmetic: the cycle-time formula and the decode-mask matrix."""

from hypothesis import given, strategies as st
import pytest
from slice_ros.scheduling.decode_mask import (
    columns_of, cycle_time, decode_rate, left_justified, spread)

PUBLISHED = {1: .014, 2: .027, 3: .038, 4: .050, 5: .060, 6: .072, 7: .083, 8: .095}
RATES = st.lists(st.integers(1, 40), max_size=16)


def cost(batch):
    """Stand in for l(b): convex, so that a wrong column sum cannot cancel out."""
    return 0.01 * batch + 0.001 * batch ** 2


@pytest.mark.parametrize('tpot, rate', [(.05, 20), (.1, 10), (.25, 4), (.3, 4), (2.0, 1)])
def test_rate_is_tokens_per_cycle_rounded_up(tpot, rate):
    assert decode_rate(tpot, 1.0) == rate


def test_rate_is_not_rounded_up_by_float_error():
    assert decode_rate(0.1, 0.3) == 3


@pytest.mark.parametrize('rates, seconds', [
    ([], 0.0),
    ([20], 20 * .014),                                    # alone
    ([4, 20, 10], 4 * .038 + 6 * .027 + 10 * .014),       # 0.454 s: all rates differ
    ([20, 20, 4], 4 * .038 + 16 * .027),                  # two equal rates: no l(1) at all
    ([10, 10, 10, 10], 10 * .050),
])
def test_cycle_time_on_hand_worked_examples(rates, seconds):
    assert cycle_time(rates, PUBLISHED.__getitem__) == pytest.approx(seconds, abs=1e-12)


def test_matrix_for_rates_20_10_4():
    mask = left_justified([20, 10, 4])
    assert mask == ((1,) * 20, (1,) * 10 + (0,) * 10, (1,) * 4 + (0,) * 16)
    assert columns_of(mask) == ((0, 1, 2),) * 4 + ((0, 1),) * 6 + ((0,),) * 10


def test_spread_matrix_for_rates_20_10_4():
    mask = spread([20, 10, 4])
    assert [c for c, one in enumerate(mask[1]) if one] == list(range(0, 20, 2))
    assert [c for c, one in enumerate(mask[2]) if one] == [0, 4, 10, 14]


@given(RATES)
def test_column_sums_reproduce_the_formula_and_both_masks_cost_the_same(rates):
    for mask in (left_justified(rates), spread(rates)):
        assert [sum(row) for row in mask] == rates
        total = sum(cost(len(rows)) for rows in columns_of(mask))
        assert total == pytest.approx(cycle_time(rates, cost))


@given(RATES.filter(bool))
def test_spread_rows_leave_no_gap_much_wider_than_even(rates):
    width, steps = max(rates), len(set(rates))
    for row in spread(rates):
        ones = [c for c, one in enumerate(row) if one]
        gaps = [b - a for a, b in zip(ones, ones[1:] + [ones[0] + width])]
        # Each coarser pick can widen a gap by at most twice over an even one.
        assert max(gaps) <= 2 ** steps * width / len(ones)
