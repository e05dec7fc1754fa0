# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Sentences from text as it streams, for whoever speaks them."""

from itertools import accumulate, pairwise
import logging
import re

import sentencex

log = logging.getLogger('slice_ros.serving')

LONGEST = 500   # characters; what goes on longer is cut at a word

# Text up to where a sentence may turn out to have ended: behind a white space, or behind any
# character of the scripts that put none between sentences.
_STEP = re.compile('[^\\s\u2e80-\U0010ffff]*[\\s\u2e80-\U0010ffff]')
_BREAKS = frozenset('\n\r\v\f\x85\u2028\u2029')
_SPACE = re.compile(r'\s')
_MARKER = re.compile(r'\s*(\(?(\d{1,3}|[A-Za-z])[.)]|[-*•])\s*')   # of a list item
_CLOSING = re.compile('["\'”’»)\\]*_]+(?=\\s)')


class SentenceSplitter:
    """Splits one text that comes in pieces; where they are cut makes no difference.

    A sentence is let out when the next one has begun, at a line break, or when it is `LONGEST`
    characters long. White space around sentences is dropped, all other text is kept.
    """

    __slots__ = ('_language', '_rest')

    def __init__(self, language: str = 'en') -> None:
        """`language` is an ISO 639 code; one the library does not know is split as English."""
        self._language = language
        self._rest = ''   # of the current line, not yet let out

    def push(self, text: str) -> list[str]:
        """Add text; return the sentences that are finished with it."""
        said, at = [], 0
        while match := _STEP.match(text, at):
            at = match.end()
            said += self._grow(match[0])
            if text[at - 1] in _BREAKS:
                said += self.flush()
            else:
                *finished, last = self._parts()
                if finished and any(c.isalnum() for c in last):
                    said += finished
                    self._rest = last
        return _stripped(said + self._grow(text[at:]))

    def flush(self) -> list[str]:
        """Return what is left, at the end of the text."""
        parts, self._rest = self._parts(), ''
        return _stripped(parts)

    def _grow(self, text: str) -> list[str]:
        """Add text without a place to end; return what is cut off because it became too long."""
        rest, cut = (self._rest + text).lstrip(), []
        while len(rest) > LONGEST:
            end = max((m.start() for m in _SPACE.finditer(rest, 0, LONGEST + 1)), default=LONGEST)
            cut.append(rest[:end])
            rest = rest[end:].lstrip()
        self._rest = rest
        return cut

    def _parts(self) -> list[str]:
        """Return the rest, cut at the ends of sentences in it."""
        parts = ['']
        for part in self._segments():
            closing = _CLOSING.match(part)   # '**' behind 'Stop.' belongs to it
            if closing:
                parts[-1] += closing[0]
                part = part[closing.end():]
            before = parts[-1]
            # A full stop with no space behind is in the middle of a name: 'node.Spin'.
            if before and (before[-1].isspace() or part[:1].isspace() or not before[-1].isascii()
                           ) and not _MARKER.fullmatch(before):
                parts.append(part)
            else:
                parts[-1] += part
        return parts

    def _segments(self) -> list[str]:
        text = self._rest
        # Some of its languages take a white space for one byte.
        plain = _SPACE.sub(' ', text)
        try:
            parts = sentencex.segment(self._language, plain)
        except BaseException as fault:   # a panic of the library is no Exception
            if not isinstance(fault, Exception) and type(fault).__name__ != 'PanicException':
                raise
            log.debug('no sentences in %r: %s', text, fault)
            return [text]
        ends = list(accumulate(map(len, parts), initial=0))
        if ends[-1] != len(text):
            return [text]
        return [text[a:b] for a, b in pairwise(ends)]


def _stripped(parts: list[str]) -> list[str]:
    return [part.strip() for part in parts if not part.isspace() and part]
