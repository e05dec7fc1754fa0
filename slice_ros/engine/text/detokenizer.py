# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""From token ids to streamed text: whole characters only, and no part of a stop string."""

from collections.abc import Callable, Sequence

# A character has at most 4 bytes, so at most 4 byte-level tokens. If more of them still decode to
# a replacement character, they are no incomplete character.
_MAX_UNFINISHED = 4
_REPLACEMENT = '\ufffd'


class Detokenizer:
    """Incremental decoding of one request's tokens.

    `decode` turns ids into text. The text of ids may depend on the ids before them, so the tokens
    of the last piece are decoded again in front of the new ones, and the difference is the new
    text (as in vLLM and TGI). `alone` is `decode` of one id, for example with a cache. With
    `additive`, the text of ids is the concatenation of their single texts: then a token of whole
    characters is decoded alone.
    """

    __slots__ = ('_decode', '_alone', '_additive', '_stop', '_ids', '_prefix', '_read',
                 '_withheld', '_longest')

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...] = (),
                 alone: Callable[[int], str] | None = None, additive: bool = False) -> None:
        self._decode = decode
        self._alone = alone or (lambda token: decode([token]))
        self._additive = additive
        self._stop = stop
        self._longest = max(map(len, stop), default=0)
        self._ids: list[int] = []  # a window: older ids are dropped
        self._prefix = ''          # text of the first _read ids of the window
        self._read = 0
        self._withheld = ''        # decoded, but it may be the start of a stop string

    def push(self, token: int) -> tuple[str, bool]:
        """Add a token; return (text to deliver now, whether a stop string was completed)."""
        if self._additive and len(self._ids) == self._read:
            text = self._alone(token)
            if _REPLACEMENT not in text:
                return self._release(text) if self._stop else (text, False)
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(_REPLACEMENT) and len(self._ids) - self._read < _MAX_UNFINISHED:
            return '', False
        if len(text) <= len(self._prefix):
            self._ids.pop()  # a special token: it has no text
            return '', False
        new = text[len(self._prefix):]
        # The tokens just read are the next window's context.
        del self._ids[:self._read]
        self._read = len(self._ids)
        self._prefix = self._alone(token) if self._read == 1 else self._decode(self._ids)
        return self._release(new)

    def flush(self) -> str:
        """End the text; return what was withheld. An incomplete character is dropped."""
        new = self._decode(self._ids)[len(self._prefix):].rstrip(_REPLACEMENT)
        self._read, self._ids, self._prefix = 0, [], ''
        text, _ = self._release(new)
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
