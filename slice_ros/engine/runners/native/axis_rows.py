# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of the rotary tables for positions of three numbers (see `Rope.axes`)."""

from collections.abc import Sequence

import numpy as np


class AxisRows:
    """Writes rows at the end of the tables, `count` of them, which each pass uses anew.

    `cos` and `sin` [positions + count, rotary_dim / 2] are read by the kernels.
    """

    def __init__(self, cos: np.ndarray, sin: np.ndarray, axes: Sequence[int], count: int) -> None:
        self._tables = cos, sin
        self._axes, self._first = np.array(axes, np.intp), len(cos) - count

    def rows(self, positions: np.ndarray, tokens: int) -> np.ndarray:
        """Return the row of the tables for each of int32 [tokens, 3] positions.

        Raises ``ValueError`` for positions that the tables do not have.
        """
        if not len(self._axes) or positions.shape != (tokens, 3) or not (
                (0 <= positions) & (positions < self._first)).all():
            raise ValueError(f'{tokens} tokens with rope positions of the shape '
                             f'{positions.shape}, or outside the tables')
        rows = np.ascontiguousarray(positions[:, 0], np.int32)
        apart, = (positions != positions[:, :1]).any(1).nonzero()
        for table in self._tables:
            table[self._first:self._first + len(apart)] = np.take_along_axis(
                table[:self._first], positions[apart][:, self._axes], 0)
        rows[apart] = range(self._first, self._first + len(apart))
        return rows
