# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How long answers turn out, learnt per class from those that ended.

Nobody knows the length of an answer in advance. What may be used is ``max_tokens`` and what the
last answers of the same class came to: given that an answer already has k tokens, only those
that outgrew k say anything about it.
"""

from bisect import bisect_right
from collections import deque

# Before anything is known an answer is expected to use this share of its ``max_tokens``, an
# opinion that weighs as much as this many finished answers.
PRIOR_SHARE = 0.65
PRIOR_WEIGHT = 4
KEEP = 128        # answers remembered; older ones make room, so that habits may change
LEAST = 8         # answers it takes before a lower quantile means anything


class AnswerLengths:
    """The last `KEEP` lengths of one class, in tokens."""

    __slots__ = ('_recent', '_known')

    def __init__(self) -> None:
        self._recent: deque[int] = deque()
        # The lengths, sorted, and tails[i] = sum of lengths[i:]. Replaced as one, so that other
        # threads may ask while the one that plans learns.
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
        """Return the tokens that an answer with `generated` so far will come to.

        The mean of those remembered that outgrew `generated`, and of the prior; at least one
        more than `generated`.
        """
        lengths, tails = self._known
        first = bisect_right(lengths, generated)
        longer = len(lengths) - first
        prior = max(PRIOR_SHARE * max_tokens, (generated + 1 + max_tokens) / 2)
        # As few of the prior's imagined answers outgrow `generated` as of the real ones.
        weight = PRIOR_WEIGHT * (longer + 1) / (len(lengths) + 1)
        mean = (tails[first] + weight * prior) / (longer + weight)
        return max(min(mean, max_tokens), generated + 1)

    def least(self, generated: int, max_tokens: int, quantile: float) -> int:
        """Return the length that all but a `quantile` of such answers reach, in tokens."""
        lengths, _ = self._known
        first = bisect_right(lengths, generated)
        longer = len(lengths) - first
        if longer == 0 or len(lengths) < LEAST:
            return generated + 1
        return min(lengths[first + int(quantile * longer)], max(max_tokens, generated + 1))
