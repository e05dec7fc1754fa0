# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How long answers turn out to be, learnt per class from those that ended.

The length of an answer is not known in advance. It is estimated from ``max_tokens`` and from the
last answers of the same class: for an answer that has k tokens, those longer than k count.
"""

from bisect import bisect_right
from collections import deque

# The prior: an answer uses this share of its ``max_tokens``. It weighs as much as this many
# finished answers.
PRIOR_SHARE = 0.65
PRIOR_WEIGHT = 4
KEEP = 128        # answers remembered; the oldest makes room for a new one
LEAST = 8         # answers needed before a lower quantile is used


class AnswerLengths:
    """The last `KEEP` lengths of one class, in tokens."""

    __slots__ = ('_recent', '_known')

    def __init__(self) -> None:
        self._recent: deque[int] = deque()
        # The lengths, sorted, and tails[i] = sum of lengths[i:]. One assignment replaces both, so
        # that other threads may read them meanwhile.
        self._known: tuple[list[int], list[int]] = ([], [0])

    def __len__(self) -> int:
        return len(self._recent)

    def learn(self, tokens: int) -> None:
        """Remember the length of an answer that ran to its own end."""
        self._recent.append(tokens)
        if len(self._recent) > KEEP:
            self._recent.popleft()
        lengths, tails = sorted(self._recent), [0]
        for length in reversed(lengths):
            tails.append(tails[-1] + length)
        self._known = lengths, tails[::-1]

    def expected(self, generated: int, max_tokens: int) -> float:
        """Return the expected length, in tokens, of an answer that has `generated` so far.

        The mean of the remembered lengths above `generated` and of the prior; at least one more
        than `generated`, at most `max_tokens`.
        """
        lengths, tails = self._known
        first = bisect_right(lengths, generated)
        longer = len(lengths) - first
        prior = max(PRIOR_SHARE * max_tokens, (generated + 1 + max_tokens) / 2)
        # The prior counts in the same proportion as the remembered answers that are longer.
        weight = PRIOR_WEIGHT * (longer + 1) / (len(lengths) + 1)
        mean = (tails[first] + weight * prior) / (longer + weight)
        return max(min(mean, max_tokens), generated + 1)

    def least(self, generated: int, max_tokens: int, quantile: float) -> int:
        """Return the length, in tokens, that all but a `quantile` of such answers reach."""
        lengths, _ = self._known
        first = bisect_right(lengths, generated)
        longer = len(lengths) - first
        if longer == 0 or len(lengths) < LEAST:
            return generated + 1
        return min(lengths[first + int(quantile * longer)], max(max_tokens, generated + 1))
