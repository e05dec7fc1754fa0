# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How long answers turn out to be, learnt per class and per caller from those that ended.

The length of an answer is not known in advance. It is estimated from the last answers of the same
class: for an answer that has k tokens, those longer than k count. A caller with enough answers is
judged by its own, so that one whose answers are of another length harms only itself. Until enough
have ended, a share of ``max_tokens`` is assumed, and no more than the deadline leaves room for: a
caller who asks for far more tokens than it will use is given the benefit of the doubt.
"""

from bisect import bisect_right
from collections import deque
import math

PRIOR_SHARE = 0.65   # of what an answer may have, that it is assumed to use while none is known
UNLIKELY = 0.1       # share of the answers that are shorter, or longer, than is planned for
ENOUGH = round(1 / UNLIKELY)   # answers that show what is unlikely
KEEP = ENOUGH ** 2   # answers, classes or callers remembered: `ENOUGH` of them are unlikely


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
        """Remember the length of an answer."""
        self._recent.append(tokens)
        if len(self._recent) > KEEP:
            self._recent.popleft()
        lengths, tails = sorted(self._recent), [0]
        for length in reversed(lengths):
            tails.append(tails[-1] + length)
        self._known = lengths, tails[::-1]

    def estimate(self, generated: int, max_tokens: int, reach: float = math.inf
                 ) -> tuple[int, float, int]:
        """Return a short, the expected and a long length of an answer that has `generated` so far.

        In tokens, at least one more than `generated`. Expected is the mean of the remembered
        lengths above `generated` and of the assumed one, which is no longer than `reach`; at most
        `max_tokens`. A share of `UNLIKELY` of these are shorter than the short length, and longer
        than the long one; of fewer than `ENOUGH`, these are `PRIOR_SHARE` of the expected
        length, and the expected length.
        """
        lengths, tails = self._known
        first, soonest = bisect_right(lengths, generated), generated + 1
        longer = len(lengths) - first
        assumed = max(min(PRIOR_SHARE * max_tokens, reach),
                      min((soonest + max_tokens) / 2, generated / PRIOR_SHARE))
        # It counts as one answer, in the same proportion as the remembered ones that are longer.
        weight = (longer + 1) / (len(lengths) + 1)
        mean = (tails[first] + weight * assumed) / (longer + weight)
        expected = max(min(mean, max_tokens), soonest)
        if not longer or len(lengths) < ENOUGH:
            return max(soonest, int(PRIOR_SHARE * expected)), expected, math.ceil(expected)
        most = max(max_tokens, soonest)
        short, long = (lengths[first + int(share * longer)]
                       for share in (UNLIKELY, 1 - UNLIKELY))
        return min(short, most), expected, min(long, most)


class ClassLengths:
    """The lengths of the answers of one class, and of each of its last `KEEP` callers."""

    __slots__ = ('all', '_callers')

    def __init__(self) -> None:
        self.all = AnswerLengths()
        self._callers: dict[str, AnswerLengths] = {}   # whose last answer is oldest first

    def of(self, caller: str) -> AnswerLengths:
        """Return what is known of a caller's answers: the class's, until it has `ENOUGH`."""
        own = self._callers.get(caller)
        return self.all if own is None or len(own) < ENOUGH else own

    def learn(self, caller: str, tokens: int) -> None:
        """Remember the length of an answer to `caller`, who may be unknown: ``''``."""
        self.all.learn(tokens)
        if not caller:
            return
        own = self._callers.pop(caller, None)
        if own is None:
            own = AnswerLengths()
            if len(self._callers) >= KEEP:
                del self._callers[next(iter(self._callers))]
        own.learn(tokens)
        self._callers[caller] = own


class KnownLength:
    """The length of one answer that is known in advance, in the form of `AnswerLengths`."""

    __slots__ = ('_tokens',)

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def estimate(self, generated: int, max_tokens: int, reach: float = math.inf
                 ) -> tuple[int, int, int]:
        return (max(self._tokens, generated + 1),) * 3
