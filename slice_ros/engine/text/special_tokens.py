# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Special tokens in texts: which are there, and how a text is encoded without any."""

from functools import cached_property
import re
import unicodedata

from slice_ros.engine.text.vocabulary import Vocabulary
from tokenizers import models, Tokenizer


class SpecialTokens:
    """Finds the special tokens of a tokenizer in texts. Thread-safe.

    `backend` is the tokenizer of the Rust library, None for one in Python.
    """

    def __init__(self, vocabulary: Vocabulary, backend: Tokenizer | None) -> None:
        self.texts = [text for text in vocabulary.special.values() if text]
        self.ids, self._texts = frozenset(vocabulary.special), vocabulary.special
        self._backend = backend
        first = {_folded(text)[0] for text in self.texts}
        self._first = re.compile(f'[{re.escape("".join(sorted(first)))}]') if first else None
        added = [] if backend is None else backend.get_added_tokens_decoder().values()
        self._normalized = any(token.special and token.normalized for token in added)

    def may_be_in(self, text: str) -> bool:
        """Return whether a text has a character that a special token begins with.

        Without one, no change of case, cut, turn or joint makes a special token of it.
        """
        if self._first is None:
            return False
        if self._normalized and self._backend.normalizer is not None:
            text += self._backend.normalizer.normalize_str(text)
        return self._first.search(_folded(text)) is not None

    def begins(self, text: str, token: int) -> bool:
        """Return whether a text begins with the special token of an id."""
        return text.startswith(self._texts.get(token) or '\0')

    def found_in(self, text: str) -> list[int]:
        """Return the numbers of the special tokens that encoding a text would find, in order."""
        if self._backend is None:
            places = re.finditer('|'.join(map(re.escape, self.texts)) or '(?!)', text)
            return [self.texts.index(place[0]) for place in places]
        scanner, special = self._scanner
        return [i for i in scanner.encode(text, add_special_tokens=False).ids if i in special]

    def plain_ids(self, text: str) -> list[int] | None:
        """Return the tokens of a text in which special tokens are text; None if it cannot be."""
        if self._backend is None:
            return None
        ids = self._plain.encode_batch([text], add_special_tokens=False)[0].ids
        return ids if self.ids.isdisjoint(ids) else None

    @cached_property
    def _scanner(self) -> tuple[Tokenizer, frozenset[int]]:
        """A tokenizer that knows the added tokens alone; it takes linear time, as the whole does.

        The frozen set has its ids of special tokens.
        """
        scanner = Tokenizer(models.WordLevel({'?': 0}, unk_token='?'))
        if self._backend.normalizer is not None:
            scanner.normalizer = self._backend.normalizer
        for token in self._backend.get_added_tokens_decoder().values():
            (scanner.add_special_tokens if token.special else scanner.add_tokens)([token])
        special = (i for i, t in scanner.get_added_tokens_decoder().items() if t.special)
        return scanner, frozenset(special)

    @cached_property
    def _plain(self) -> Tokenizer:
        """A copy that encodes special tokens as text. Made on first use: it takes tens of MB."""
        copy = type(self._backend).from_str(self._backend.to_str())
        copy.encode_special_tokens = True
        return copy


def _folded(text: str) -> str:
    text = text.casefold()
    return text if text.isascii() else unicodedata.normalize('NFKC', text).casefold()
