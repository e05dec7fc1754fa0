# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One answer in its grammar: which tokens may come next, and whether it is complete."""

import codecs
from collections.abc import Sequence
import re
import time

from llguidance import LLMatcher, LLTokenizer
import numpy as np
from slice_ros.engine.config import ToolCall
from slice_ros.engine.text.tools.call_reader import CallReader

_MASK_S = 0.05   # processor time that one mask may take
_AHEAD_S = 5e-3  # that guesses may take in a step; a format that needs more has no guesses


class Constraint:
    """The state of one answer in its grammar.

    `forbidden`, bool [vocab], has the tokens that must not come next; `prepare` sets it, and in
    `ahead` the same behind each of some guesses, None where that is not known. `over` is
    True when nothing can follow. `error` is empty, or the reason why the answer cannot go on.
    `reader` takes tool calls out of the text, where the answer may have any.
    """

    def __init__(self, matcher: LLMatcher, tokenizer: LLTokenizer, not_stops: np.ndarray,
                 vocab_size: int, endings: tuple[bytes, ...], reader: CallReader | None) -> None:
        self._matcher, self._tokenizer, self._not_stops = matcher, tokenizer, not_stops
        self._allowed = np.zeros(len(not_stops) // 32, np.int32)
        self._endings = endings      # the rest of each choice that is still possible
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
        self._vocab_size = vocab_size
        self._prepared = self.over = self._slow = False
        self.forbidden: np.ndarray | None = None
        self.ahead: list[np.ndarray | None] = []
        self.error = ''
        self.reader = reader
        self.form = 'response_format' if reader is None else 'tool call'   # for sentences

    @property
    def complete(self) -> bool:
        """Whether the answer has its format as it is now."""
        return self.over or self._matcher.is_accepting()

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The whole tool calls so far."""
        return () if self.reader is None else self.reader.calls

    def flush(self) -> str:
        """Return the text that only a tool call could have kept back, at the end of the answer."""
        return '' if self.reader is None else self.reader.flush()

    def prepare(self, guesses: Sequence[int] = ()) -> None:
        """Compute `forbidden` for the next token, unless it is computed already, and `ahead`."""
        self.ahead = [None] * len(guesses)
        if self.error:
            return
        if not self._prepared:
            self._prepared = True
            self.forbidden, reason = self._mask(self._matcher)
            if reason:
                self._fail(reason)
        self._look_ahead(guesses)

    def possible(self, guesses: Sequence[int]) -> int:
        """Return how many guesses may follow one after the other, none behind a stop token."""
        if self.error or self.over or self._slow or not guesses:
            return 0
        began = time.thread_time()
        try:
            return self._matcher.deep_copy().validate_tokens(list(guesses))
        except Exception:   # a limit of llguidance: the answer itself may never reach it
            self._slow = True
            return 0
        finally:
            self._slow |= time.thread_time() - began > _AHEAD_S

    def _look_ahead(self, guesses: Sequence[int]) -> None:
        """Compute `ahead` on a copy: what is found behind wrong guesses is no error here."""
        matcher = self._matcher.deep_copy() if guesses and not self.error else None
        began = time.thread_time()
        for n, guess in enumerate(guesses if matcher else ()):
            self._slow |= time.thread_time() - began > _AHEAD_S
            if self._slow or not matcher.consume_token(guess) or matcher.is_stopped():
                return
            forbidden, reason = self._mask(matcher)
            if reason:
                return
            self.ahead[n] = forbidden

    def _mask(self, matcher: LLMatcher) -> tuple[np.ndarray, str]:
        """Return what must not come next, bool [vocab], and why nothing can, '' if it can."""
        began = time.thread_time()
        matcher.unsafe_compute_mask_ptr(self._allowed.ctypes.data, self._allowed.nbytes)
        spent = time.thread_time() - began
        allowed = np.unpackbits(self._allowed.view(np.uint8), bitorder='little')
        if not matcher.is_accepting():
            allowed &= self._not_stops  # the stop token of some models is also text
        reason = ''
        if matcher.is_error() or not allowed.any():
            reason = matcher.get_error() or 'NoExtension'
        elif spent > _MASK_S:
            reason = 'it takes too long to follow'
        return allowed[:self._vocab_size] == 0, reason

    def allow(self, token: int, allowed: bool) -> bool:
        """Allow or forbid a token in the mask that is computed; return whether it was allowed."""
        before = not self.forbidden[token]
        self.forbidden[token] = not allowed
        return before

    def forced(self) -> int | None:
        """Return the next token, if its mask allows one alone.

        This is much quicker than the mask. llguidance allows one token alone where the next bytes
        can only be these: the first of their tokens.
        """
        if self.error or self.over:
            return None
        began = time.thread_time()
        tokens = self._matcher.compute_ff_tokens()
        if time.thread_time() - began > _MASK_S:
            self._fail('it takes too long to follow')
        token = tokens[0] if tokens and not self.error else None
        if token is None or not self._not_stops[token] and not self._matcher.is_accepting():
            return None
        return token

    def lead(self, most: int, seconds: float) -> list[tuple[int, str]]:
        """Return the tokens that the answer must begin with, at most `most`, each with its text.

        They are consumed, in about `seconds` of processor time. None of them ends the answer: the
        only choice has none, as its first token would bring all of its rest.
        """
        found: list[tuple[int, str]] = []
        if len(self._endings) == 1:
            return found
        ahead, began = self._matcher.deep_copy(), time.thread_time()
        while len(found) < most and time.thread_time() - began < seconds:
            token = self.forced()
            if (token is None or not self._not_stops[token] or not ahead.consume_token(token)
                    or ahead.is_stopped()):
                break
            found.append((token, self.accept(token)))
        return found

    def accept(self, token: int) -> str:
        """Consume a sampled token; return the text that becomes printable with it.

        When only one choice is left, this is all of its rest. Text of tool calls is left out.
        """
        self._prepared = False
        if self.error or not self._matcher.consume_token(token):
            self._fail(self._matcher.get_error())
            return ''
        new = self._tokenizer.decode_bytes([token])
        if self._endings:
            self._endings = tuple(ending[len(new):] for ending in self._endings
                                  if ending.startswith(new))
            if len(self._endings) == 1:
                new += self._endings[0]
                self.over = True
        self.over = self.over or self._matcher.is_stopped()
        text = self._decoder.decode(new)
        return text if self.reader is None else self.reader.push(text)

    def _fail(self, reason: str) -> None:
        self.error = self.error or gist_of(reason)


def gist_of(message: str) -> str:
    """Return the main point of an error of llguidance, in one short line."""
    if 'NoExtension' in message:
        return 'no answer can have it'
    found = re.search(r'^error: (.*)$', message, re.MULTILINE)
    gist = found[1] if found else message.rpartition('(in regex): ')[2].partition('\n')[0]
    return ' '.join(gist.split())[:160].rstrip('. ')
