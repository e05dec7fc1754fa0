# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of an answer: those of a token come with the text that it releases.

They are the model's own, before biases, penalties, temperature and formats.
"""

from collections import deque
from functools import lru_cache
from typing import NamedTuple

from slice_ros.engine.text.sampling import Ranked
from slice_ros.engine.text.vocabulary import Vocabulary

_KEPT = 1 << 12      # texts of tokens
_LETTERS = 1 << 10   # tokens among which one with a letter is sought


class Entry(NamedTuple):
    """A token at one place of an answer.

    `text` is what it stands for: whole characters, or bytes that make one with those of its
    neighbours. That of a `special` token is its name, which no answer has in it.
    """

    token: int
    logprob: float   # natural logarithm
    text: bytes
    special: bool


# The entry of a token of the answer, then those of the likeliest ones at its place, in order.
Entries = tuple[Entry, ...]


class TokenTexts:
    """What single tokens stand for inside a text. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.of = lru_cache(_KEPT)(self._of)
        self._letter = lru_cache(1)(self._find_letter)

    def _of(self, token: int) -> tuple[bytes, bool]:
        """Return the bytes of a token, and whether it is a special one."""
        name = self._vocabulary.special.get(token)
        if name is not None:
            return name.encode(), True
        piece = self._vocabulary.piece(token)
        if piece is None:   # behind another token: a blank that it begins with is left out alone
            before = self._letter()
            text = self._vocabulary.decode([*before, token])
            piece = text[len(self._vocabulary.decode(before)):]
        return (piece.encode() if isinstance(piece, str) else piece), False

    def _find_letter(self) -> list[int]:
        """Return a token with the text of a letter, none where there is none."""
        return next(([token] for token in range(_LETTERS)
                     if self._vocabulary.alone(token).isalpha()), [])


class AnswerLogprobs:
    """The log-probabilities of one answer, on their way to its caller.

    `expect` takes those of each token that is sampled, `push` tells what text it released, `take`
    returns what the text so far has. A token whose text is kept back, as the possible beginning of
    a stop text or a part of a character, waits for it.
    """

    __slots__ = ('top', '_texts', '_expected', '_waiting', '_released', '_decoded')

    def __init__(self, top: int, texts: TokenTexts) -> None:
        self.top = top                               # likeliest tokens beside each
        self._texts = texts
        self._expected: deque[Ranked] = deque()      # sampled, and not pushed
        self._waiting: deque[tuple[int, Ranked]] = deque()   # where their text begins
        self._released = self._decoded = 0           # characters

    def expect(self, ranked: Ranked | None) -> None:
        """Add those of a sampled token; None where none was sampled."""
        if ranked is not None:
            self._expected.append(ranked)

    def forget(self) -> None:
        """Drop those of the tokens that are not pushed: they are no part of the answer."""
        self._expected.clear()

    def push(self, released: int = 0, withheld: int = 0) -> None:
        """Take the next expected token into the answer.

        It released so many characters, and left so many withheld.
        """
        if self._expected:
            self._waiting.append((self._decoded, self._expected.popleft()))
        self._released += released
        self._decoded = self._released + withheld

    def take(self, cut: bool = False, ended: bool = False) -> tuple[Entries, ...]:
        """Return those of the tokens whose text has begun to be released; all that has `ended`.

        Where a stop text `cut` the answer, tokens behind its end are dropped.
        """
        taken = []
        while self._waiting and (self._waiting[0][0] < self._released or ended and not cut):
            taken.append(self._entries(self._waiting.popleft()[1]))
        if cut or ended:
            self._waiting.clear()
            self._expected.clear()
        return tuple(taken)

    def _entries(self, ranked: Ranked) -> Entries:
        return tuple(Entry(token, logprob, *self._texts.of(token))
                     for token, logprob in zip(ranked.tokens, ranked.logprobs))
