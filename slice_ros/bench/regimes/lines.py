# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Lines that hold or fail, and figures of paired runs: the same requests under two policies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
from statistics import fmean, stdev

EXACT = 1e-9   # by which sums of floats may differ where they should be equal


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is required, what was measured, and whether it holds."""

    what: str     # the requirement: lines of the same one are counted together
    where: str    # the case
    figure: str   # what was measured
    holds: bool


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the command: calls to run in any order, and lines from what they return."""

    name: str
    calls: Sequence[tuple[Callable, object]]    # (function of a module, argument)
    judge: Callable[[Sequence], Sequence[Line]]


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Return the mean of the differences of pairs, and its standard error (0 of one pair)."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return fmean(differences), error


def points(difference: float, error: float) -> str:
    """Format a difference of shares in percentage points."""
    return f'{100 * difference:+.1f} ± {100 * error:.1f} points'
