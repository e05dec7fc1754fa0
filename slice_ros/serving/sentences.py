# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Splits streamed text into sentences, for speech output."""

from itertools import accumulate, pairwise
import logging
import re

import sentencex

log = logging.getLogger('slice_ros.serving')

LONGEST = 500   # characters; a longer sentence is cut between words

# Text up to a place where a sentence may end: after white space, or after any character of a
# script that puts no space between sentences.
_STEP = re.compile('[^\\s\u2e80-\U0010ffff]*[\\s\u2e80-\U0010ffff]')
_BREAKS = frozenset('\n\r\v\f\x85\u2028\u2029')
_SPACE = re.compile(r'\s')
_MARKER = re.compile(r'\s*(\(?(\d{1,3}|[A-Za-z])[.)]|[-*•])\s*')   # of a list item
_CLOSING = re.compile('["\'”’»)\\]*_]+(?=\\s)')


class SentenceSplitter:
    """Splits one text that arrives in pieces; the result does not depend on the pieces.

    A sentence is returned when the next one has begun, at a line break, or when it has `LONGEST`
    characters. White space around sentences is removed, all other text is kept.
    """

    __slots__ = ('_language', '_rest')

    def __init__(self, language: str = 'en') -> None:
        """`language` is an ISO 639 code; an unknown one is split as English."""
        self._language = language
        self._rest = ''   # of the current line, not returned yet

    def push(self, text: str) -> list[str]:
        """Add text; return the sentences that it completes."""
        sentences, at = [], 0
        while match := _STEP.match(text, at):
            at = match.end()
            sentences += self._grow(match[0])
            if text[at - 1] in _BREAKS:
                sentences += self.flush()
            else:
                *finished, last = self._parts()
                if finished and any(c.isalnum() for c in last):
                    sentences += finished
                    self._rest = last
        return _stripped(sentences + self._grow(text[at:]))

    def flush(self) -> list[str]:
        """Return the rest, at the end of the text."""
        parts, self._rest = self._parts(), ''
        return _stripped(parts)

    def _grow(self, text: str) -> list[str]:
        """Add text in which no sentence ends; return what is cut off because it is too long."""
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
            closing = _CLOSING.match(part)   # '**' after 'Stop.' belongs to it
            if closing:
                parts[-1] += closing[0]
                part = part[closing.end():]
            before = parts[-1]
            # A full stop without a space after it is part of a name: 'node.Spin'.
            if before and (before[-1].isspace() or part[:1].isspace() or not before[-1].isascii()
                           ) and not _MARKER.fullmatch(before):
                parts.append(part)
            else:
                parts[-1] += part
        return parts

    def _segments(self) -> list[str]:
        text = self._rest
        # The library assumes one byte for a white space in some languages.
        plain = _SPACE.sub(' ', text)
        try:
            parts = sentencex.segment(self._language, plain)
        except BaseException as fault:   # a panic of the library is not an Exception
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
