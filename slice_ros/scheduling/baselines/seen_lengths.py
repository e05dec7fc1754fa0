# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How long the answers of a class have been so far: what the rivals know of a length.

Until answers of a class have ended, an answer is expected to use its ``max_tokens``.
"""

from bisect import bisect_right
from collections import deque
from itertools import accumulate

from slice_ros.request import Request, State

KEEP = 128   # answers of a class remembered: some minutes of a load, so that a change is noticed
NONE = ([], [0])


class SeenLengths:
    """The lengths, in tokens, of the last `KEEP` answers of each class that ran to their end."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[int]] = {}
        # By class, the lengths sorted, and the sums of those from each index on.
        self._known: dict[str, tuple[list[int], list[int]]] = {}

    def learn(self, request: Request) -> None:
        """Remember the length of a request that has ended, if it ran to its own end."""
        if request.state is not State.FINISHED:
            return
        recent = self._recent.setdefault(request.slo.name, deque(maxlen=KEEP))
        recent.append(request.generated)
        lengths = sorted(recent)
        tails = list(accumulate(reversed(lengths), initial=0))[::-1]
        self._known[request.slo.name] = lengths, tails

    def mean(self, request: Request) -> float:
        """Return the mean length of the answers that were longer than this one is now."""
        lengths, tails = self._known.get(request.slo.name, NONE)
        first = bisect_right(lengths, request.generated)
        return _within(request, tails[first] / (len(lengths) - first)
                       if first < len(lengths) else request.max_tokens)

    def upper(self, request: Request, quantile: float) -> float:
        """Return the length that a `quantile` of the answers longer than this one did not pass."""
        lengths, _ = self._known.get(request.slo.name, NONE)
        first = bisect_right(lengths, request.generated)
        longer = len(lengths) - first
        return _within(request, lengths[first + min(int(quantile * longer), longer - 1)]
                       if longer else request.max_tokens)


def _within(request: Request, length: float) -> float:
    return max(min(length, request.max_tokens), request.generated + 1)
