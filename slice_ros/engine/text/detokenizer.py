# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""From token ids to streamed text: whole characters only, and no part of a stop string.

What is withheld is decided by the bytes of the tokens: a UTF-8 sequence that more bytes can still
complete. U+FFFD in the text says nothing, because a model may write it.
"""

import codecs
from collections.abc import Iterable

from slice_ros.engine.config import MAX_STOP_BYTES, MAX_STOPS
from slice_ros.engine.text.vocabulary import Vocabulary
from slice_ros.errors import ErrorCode, RequestError

_UTF8 = codecs.getincrementaldecoder('utf-8')
# So many tokens without a text may wait for one that shows it, as a blank at the beginning does.
_MAX_SILENT = 8


def checked_stops(stop: Iterable[str]) -> tuple[str, ...]:
    """Return the stop texts of a request. Raises ``RequestError`` INVALID_REQUEST."""
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    if len(stop) > MAX_STOPS:
        raise RequestError(ErrorCode.INVALID_REQUEST, f'{len(stop)} stop texts are too many: give '
                           f'{MAX_STOPS} at most')
    for number, text in enumerate(stop):
        if (not isinstance(text, str)
                or not 0 < len(text.encode(errors='replace')) <= MAX_STOP_BYTES):
            raise RequestError(ErrorCode.INVALID_REQUEST,
                               f'stop[{number}] must have 1 to {MAX_STOP_BYTES} bytes')
    return stop


class Detokenizer:
    """Incremental decoding of one request's tokens."""

    __slots__ = ('_decoder', '_next', '_stop', '_withheld', '_longest')

    def __init__(self, vocabulary: Vocabulary, stop: tuple[str, ...] = ()) -> None:
        self._decoder = (_Bytes if vocabulary.additive else _Window)(vocabulary)
        self._next = self._decoder.next
        self._stop = stop
        self._longest = max(map(len, stop), default=0)
        self._withheld = ''        # decoded, but it may be the start of a stop string

    @property
    def withheld(self) -> int:
        """Characters that may be the start of a stop text."""
        return len(self._withheld)

    def push(self, token: int) -> tuple[str, bool]:
        """Add a token; return (text to deliver now, whether a stop string was completed)."""
        text = self._next(token)
        return self._release(text) if self._stop and text else (text, False)

    def flush(self) -> str:
        """End the text; return what was withheld. An unfinished character is dropped."""
        text, _ = self._release(self._decoder.rest())
        text, self._withheld = text + self._withheld, ''
        return text

    def _release(self, new: str) -> tuple[str, bool]:
        if not self._stop:
            return new, False
        text = self._withheld + new
        found = [at for at in map(text.find, self._stop) if at >= 0]
        if found:
            self._withheld = ''
            return text[:min(found)], True
        keep = next((n for n in range(min(self._longest - 1, len(text)), 0, -1)
                     if any(s.startswith(text[-n:]) for s in self._stop)), 0)
        self._withheld = text[len(text) - keep:]
        return text[:len(text) - keep], False


class _Bytes:
    """For vocabularies that are additive: a token of whole characters costs a look-up."""

    __slots__ = ('_piece', '_utf8', '_open')

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._piece = vocabulary.piece
        self._utf8 = _UTF8('replace')
        self._open = False  # whether the bytes so far end within a character

    def next(self, token: int) -> str:  # noqa: A003
        piece = self._piece(token)
        if not self._open and type(piece) is str:
            return piece
        text = self._utf8.decode(piece.encode() if type(piece) is str else piece)
        self._open = bool(self._utf8.getstate()[0])
        return text

    def rest(self) -> str:
        self._utf8.reset()
        self._open = False
        return ''


class _Window:
    """For the others: the text of a token may depend on the tokens before it.

    The tokens of the last piece are decoded again in front of the new ones, and the difference is
    the new text (as in vLLM and TGI).
    """

    __slots__ = ('_decode', '_alone', '_piece', '_utf8', '_ids', '_prefix', '_read')

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._decode, self._alone = vocabulary.decode, vocabulary.alone
        self._piece = vocabulary.piece
        self._utf8 = _UTF8('replace')
        self._ids: list[int] = []  # older ids are dropped
        self._prefix = ''          # text of the first _read of them
        self._read = 0

    def next(self, token: int) -> str:  # noqa: A003
        piece = self._piece(token)
        if piece == '':
            return ''  # a special token
        self._ids.append(token)
        if piece is None:
            self._utf8.reset()  # text ends a row of bytes
        else:
            self._utf8.decode(piece)
            if self._utf8.getstate()[0]:
                return ''
        text = self._decode(self._ids)
        if len(text) <= len(self._prefix) and len(self._ids) - self._read < _MAX_SILENT:
            return ''
        new = text[len(self._prefix):]
        # The tokens just read are the next window's context.
        del self._ids[:self._read]
        self._read = len(self._ids)
        self._prefix = self._alone(token) if self._read == 1 else self._decode(self._ids)
        return new

    def rest(self) -> str:
        unfinished = len(self._utf8.getstate()[0])
        while unfinished > 0:
            unfinished -= len(self._piece(self._ids.pop()))
        text = self._decode(self._ids)[len(self._prefix):]
        self._utf8.reset()
        self._ids, self._prefix, self._read = [], '', 0
        return text
