# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A request inside the engine: its token ids, its place in the KV cache, its sampler and text."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from slice_ros.engine.text.detokenizer import Detokenizer
from slice_ros.engine.text.grammar import Constraint
from slice_ros.engine.text.sampling import Sampler
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request


@dataclass(eq=False, slots=True)
class TokenSequence:
    """Tokens of one request, prompt and generated together.

    Progress is counted in `request` alone. The first ``cached`` of ``tokens`` have keys and
    values in slot ``slot``; the rest is pending. Only `Engine.launch`, `collect`, `adopt`, `evict`
    and `close` change a sequence, and only `adopt`, `collect` and `evict` its request.
    """

    request: Request
    tokens: list[int]
    limit: int             # tokens sampled at most; a workload may script less than max_tokens
    sampler: Sampler
    detokenizer: Detokenizer
    constraint: Constraint | None = None  # keeps the answer in its response format
    slot: int | None = None
    closed: bool = False
    finish_reason: str | None = None
    pieces: list[str] = field(default_factory=list)  # text released by each sampled token

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self.request.prompt_tokens

    @property
    def max_tokens(self) -> int:
        """Tokens that the request may sample."""
        return self.request.max_tokens

    @property
    def cached(self) -> int:
        """Tokens whose keys and values are in the slot."""
        return self.request.cached

    @property
    def reused(self) -> int:
        """Tokens of the prompt that were found in the cache and never fed."""
        return self.request.reused

    @property
    def generated(self) -> int:
        """Tokens sampled so far."""
        return self.request.generated

    @property
    def pending(self) -> int:
        """Tokens that have to be fed before the next one can be sampled (1 while decoding)."""
        return self.request.pending

    @property
    def text(self) -> str:
        """The answer so far."""
        return ''.join(self.pieces)

    @property
    def plain_greedy(self) -> bool:
        """Whether the next token is that of the largest logit, unchanged by any option."""
        return self.constraint is None and self.sampler.plain_greedy


class Output(NamedTuple):
    """One sampled token and the text that it released.

    ``text`` is what became printable with this token: whole characters, never part of a stop
    string, possibly empty. ``finish_reason`` is None until the last token, then ``'stop'`` (a
    stop token, a stop string, or an answer that is complete in its format), ``'length'``
    (``max_tokens``, or the context is full) or ``'error'``, with the ``error``.
    """

    sequence: TokenSequence
    token: int
    text: str
    finish_reason: str | None
    error: RequestError | None = None


class Launched(NamedTuple):
    """A forward pass that has begun."""

    work: list[tuple[TokenSequence, int]]  # and how many tokens of each are fed
    sampled: list[TokenSequence]           # those whose last pending token is fed
    tokens: Callable[[], list[int]]        # waits for the device; the next token of each


class Collected(NamedTuple):
    """What a forward pass gave."""

    at: float              # when the device was done, on the caller's clock
    outputs: list[Output]  # one for each sequence whose last pending token was fed, in order


def append_token(sequence: TokenSequence, token: int, stop_tokens: frozenset[int],
                 max_context: int) -> Output:
    """Add a sampled token, which the request counts already; return the text that it releases."""
    sequence.tokens.append(token)
    sequence.sampler.accept(token)
    stopped = token in stop_tokens
    ended = (len(sequence.tokens) >= max_context
             or sequence.request.generated >= sequence.limit)
    if sequence.constraint is not None:
        return _append_constrained(sequence, token, stopped, ended)
    text = ''
    if not stopped:
        text, found = sequence.detokenizer.push(token)
        if found:
            sequence.finish_reason = 'stop'
            sequence.pieces.append(text)
            return Output(sequence, token, text, 'stop')
    if stopped or ended:
        sequence.finish_reason = 'stop' if stopped else 'length'
        text += sequence.detokenizer.flush()
    sequence.pieces.append(text)
    return Output(sequence, token, text, sequence.finish_reason)


def _append_constrained(sequence: TokenSequence, token: int, stopped: bool, ended: bool) -> Output:
    answer, text, error = sequence.constraint, '', None
    stopped = stopped and not answer.error
    if not stopped:
        text = answer.accept(token)
    if answer.error:
        sequence.finish_reason = 'error'
        error = RequestError(
            ErrorCode.INVALID_REQUEST,
            f'response_format: the answer cannot go on in it: {answer.error}')
    elif stopped or answer.over:
        sequence.finish_reason = 'stop'
    elif ended:
        sequence.finish_reason = 'length' if answer.complete else 'error'
        if not answer.complete:
            error = RequestError(
                ErrorCode.FORMAT_INCOMPLETE,
                f'the answer was not whole in its response_format after {sequence.generated} '
                'tokens: raise max_tokens, or ask for less')
    sequence.pieces.append(text)
    return Output(sequence, token, text, sequence.finish_reason, error)
