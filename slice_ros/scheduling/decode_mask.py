# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The decode mask of one cycle: which request takes part in which decode step.

Rows are requests, columns decode steps; row i has ``rates[i]`` ones (SLICE, arXiv 2510.18544). A
column costs one batched decode step of the rows that have a 1 in it, so a cycle costs the sum of
``l(column sum)`` over its columns.
"""

from collections.abc import Callable, Sequence
import math

Mask = tuple[tuple[int, ...], ...]


def decode_rate(tpot: float, cycle: float) -> int:
    """Return the tokens per cycle that a TPOT (seconds) asks for, ``ceil(cycle / TPOT)``, >= 1."""
    # The tolerance keeps rounding errors, such as 0.3 / 0.1 = 2.9999999999999996, from costing
    # a column.
    return max(1, math.ceil(cycle / tpot - 1e-9))


def cycle_time(rates: Sequence[int], decode: Callable[[int], float]) -> float:
    """Return the seconds that one cycle over `rates` lasts; ``decode(b)`` is l(b) in seconds.

    With ``v_1 >= ... >= v_n``: ``T = v_n l(n) + (v_{n-1} - v_n) l(n-1) + ... + (v_1 - v_2) l(1)``
    (SLICE, arXiv 2510.18544).
    """
    total, below = 0.0, 0
    for batch, rate in zip(range(len(rates), 0, -1), sorted(rates)):
        if rate > below:
            total += (rate - below) * decode(batch)
            below = rate
    return total


def left_justified(rates: Sequence[int]) -> Mask:
    """Return the mask as published: row i has its ones in its first ``rates[i]`` columns."""
    width = max(rates, default=0)
    return tuple((1,) * rate + (0,) * (width - rate) for rate in rates)


def spread(rates: Sequence[int]) -> Mask:
    """Return the mask with each row's ones spread as evenly as its cost allows.

    The columns of a lower rate are picked evenly out of those of the next higher rate, so the
    columns are a permutation of `left_justified`'s and the cycle costs exactly the same.
    """
    width = max(rates, default=0)
    columns = list(range(width))
    chosen = {}
    for rate in sorted(set(rates), reverse=True):
        columns = [columns[k * len(columns) // rate] for k in range(rate)]
        chosen[rate] = frozenset(columns)
    return tuple(tuple(int(c in chosen[rate]) for c in range(width)) for rate in rates)


def columns_of(mask: Mask) -> tuple[tuple[int, ...], ...]:
    """Return, for each decode step of the cycle, the rows that take part in it."""
    return tuple(tuple(row for row, one in enumerate(column) if one) for column in zip(*mask))
