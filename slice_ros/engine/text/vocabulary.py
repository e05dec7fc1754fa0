# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What tokens stand for: text, or bytes of which several tokens may make one character."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
import json
import re

_KEPT = 1 << 14  # cached pieces of single tokens
_BYTE = re.compile('<0x([0-9A-Fa-f]{2})>')  # a token of one byte, with byte fallback


class Vocabulary:
    """The tokens of a Hugging Face tokenizer. Thread-safe.

    `decode` turns ids into text, without special tokens; `alone` is that of one id. `special` has
    the special tokens by id. `piece` says what a single token stands for: bytes, or a text of
    whole characters; None where that depends on its neighbours. If it is `additive`, `piece` is
    never None, and the text of ids is that of their bytes in a row, in which bytes that are no
    UTF-8 become U+FFFD.
    """

    def __init__(self, tokenizer) -> None:
        backend = getattr(tokenizer, 'backend_tokenizer', None)
        self.ids: Callable[[], dict[str, int]] = tokenizer.get_vocab   # by name
        self.decode: Callable[[Sequence[int]], str]
        if backend is None:
            self.special = {i: t for i, t in zip(
                tokenizer.all_special_ids, tokenizer.all_special_tokens) if t}
            self.decode = partial(tokenizer.decode, skip_special_tokens=True,
                                  clean_up_tokenization_spaces=False)
            token_of, steps = tokenizer.convert_ids_to_tokens, ['ByteFallback']
        else:
            added = backend.get_added_tokens_decoder()
            self.special = {i: t.content for i, t in added.items() if t.special}
            self.decode = backend.decode  # leaves special tokens out
            token_of, steps = backend.id_to_token, _decoding_steps(backend)
        self.additive = steps == ['ByteLevel']
        bytes_of = next((_BYTES_OF[step] for step in steps if step in _BYTES_OF), None)
        hidden = frozenset(self.special.values())

        @lru_cache(_KEPT)
        def piece(token: int) -> str | bytes | None:
            name = token_of(token)
            if name is None or name in hidden:
                return ''
            data = None if bytes_of is None else bytes_of(name)
            if data is None or not self.additive:
                return data
            try:
                return data.decode()
            except UnicodeDecodeError:
                return data
        self.piece = piece
        self.alone = lru_cache(_KEPT)(lambda token: self.decode([token]))


def _decoding_steps(backend) -> list[str]:
    """Return the names of what a tokenizer does to decode, one after the other."""
    if backend.decoder is None:
        return []
    decoder = json.loads(backend.decoder.__getstate__())
    steps = [step['type'] for step in decoder.get('decoders', [decoder])]
    return [step for step in steps if step != 'Fuse' or 'ByteLevel' not in steps]


def _byte_level_alphabet() -> dict[str, int]:
    """Return the bytes that characters of byte-level tokens stand for, as in GPT-2."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return ({chr(byte): byte for byte in printable}
            | {chr(256 + number): byte for number, byte in enumerate(others)})


_ALPHABET = _byte_level_alphabet()


def _byte_level(name: str) -> bytes:
    try:
        return bytes([_ALPHABET[character] for character in name])
    except KeyError:
        return name.encode()  # an added token: it is text


def _byte_fallback(name: str) -> bytes | None:
    found = _BYTE.fullmatch(name)
    return bytes([int(found[1], 16)]) if found else None


_BYTES_OF = {'ByteLevel': _byte_level, 'ByteFallback': _byte_fallback}
