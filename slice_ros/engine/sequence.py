# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A request inside the engine: its token ids, its place in the KV cache, its sampler and text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from slice_ros.engine.config import ToolCall
from slice_ros.engine.logprobs import AnswerLogprobs, Entries
from slice_ros.engine.pooling import Pooling
from slice_ros.engine.runners.runner import NO_ADAPTER, Segment
from slice_ros.engine.text.choice import NO_GUESS, NO_TOKEN
from slice_ros.engine.text.constraint import Constraint
from slice_ros.engine.text.detokenizer import Detokenizer
from slice_ros.engine.text.prompt_lookup import PromptLookup
from slice_ros.engine.text.reasoning.thought import Thought
from slice_ros.engine.text.sampling import Ranked, Sampler
from slice_ros.engine.vision.image_tokens import (
    inputs_at, last_seen, PlacedImage, rope_positions, SeenImage, whole_chunk)
from slice_ros.errors import RequestError
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
    constraint: Constraint | None = None  # keeps the answer in its format, once it has begun
    lookup: PromptLookup | None = None    # guesses its next tokens; None = nothing does
    pooling: Pooling | None = None        # makes an embedding of it, in place of an answer
    adapter: int = NO_ADAPTER             # index in `EngineInfo.adapters`
    images: Mapping[int, SeenImage] = field(default_factory=dict)   # by key
    placed: Sequence[PlacedImage] = ()    # those that are laid out in grids
    joined: Sequence[tuple[int, int]] = ()   # tokens [begin, end) that are fed in one step
    thought: Thought | None = None        # before the answer, or that may come before it
    logprobs: AnswerLogprobs | None = None   # of the tokens of its answer, where it wants them
    lead: Sequence[tuple[int, str]] = ()  # its first tokens and their text, until its first step
    jumps: bool = True                    # whether forced tokens take no step of their own
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
        """Tokens to feed before the next one can be sampled (decoding: 1, and forced ones)."""
        return self.request.pending

    def chunk(self, tokens: int) -> int:
        """Return how many pending tokens to feed, about so many: images that are joined whole."""
        return whole_chunk(self.joined, self.cached, tokens)

    @property
    def text(self) -> str:
        """The answer so far, without tool calls."""
        return ''.join(self.pieces)

    @property
    def reasoning(self) -> str:
        """The thought so far."""
        return ''.join(self.thought.pieces) if self.thought else ''

    def forced(self) -> int | None:
        """Return the next token, where it is the only one possible, and needs no logits."""
        if self.thought is not None and not self.thought.over:
            return self.thought.forced
        if self.constraint is None or self.logprobs is not None:
            return None
        return self.constraint.forced()

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The whole tool calls that the answer ends with."""
        return self.constraint.calls if self.constraint else ()

    @property
    def plain_greedy(self) -> bool:
        """Whether all that is wanted is the token of the largest logit, whatever the others."""
        return (self.constraint is None and self.sampler.plain_greedy
                and self.logprobs is None)


class Output(NamedTuple):
    """One token, sampled or forced, and the text that it released.

    ``number`` counts the tokens of its answer, from 1. An embedding has one, ``NO_TOKEN``.
    ``text`` is what became printable with this token: whole characters, never part of a stop
    string, possibly empty. ``finish_reason`` is None until the last token, then ``'stop'`` (a
    stop token, a stop string, or an answer that is complete in its format), ``'length'``
    (``max_tokens``, or the context is full) or ``'error'``, with the ``error``. ``reasoning`` is
    newly printable text of the thought, which comes before all ``text``. ``logprobs`` are those of
    the tokens whose text begins in ``text``, where the request wants them.
    """

    sequence: TokenSequence
    token: int
    number: int
    text: str
    finish_reason: str | None
    error: RequestError | None = None
    reasoning: str = ''
    logprobs: tuple[Entries, ...] = ()


class Launched(NamedTuple):
    """A forward pass that has begun."""

    work: list[tuple[TokenSequence, int]]  # and how many tokens of each are fed
    sampled: list[TokenSequence]           # those whose last pending token is fed, for a next one
    pooled: list[TokenSequence]            # those whose last pending token is fed, for embeddings
    # Waits for the device; the next token of each, and of its drafts, ranked where that is wanted.
    rows: Callable[[], Iterable[tuple[int, Ranked | None]]]
    drafts: Mapping[TokenSequence, Sequence[int]]


class Collected(NamedTuple):
    """What a forward pass gave."""

    at: float              # when the device was done, on the caller's clock
    outputs: list[Output]  # of each sequence whose last pending token was fed, in order


def check_work(work: list[tuple[TokenSequence, int]]) -> int:
    """Return how many slots the work of a step needs. Raises ``ValueError`` where it is none."""
    if len(dict(work)) < len(work):
        raise ValueError('a sequence is twice in one step')
    for sequence, n in work:
        request = sequence.request
        if sequence.closed or sequence.finish_reason or request.ended:
            raise ValueError('a sequence that has ended cannot take part in a step')
        if not 1 <= n <= request.pending:
            raise ValueError(f'a sequence has {request.pending} tokens pending, not {n}')
        if sequence.joined and sequence.chunk(n) != n:
            raise ValueError('a step cannot feed a part of an image whose rows attend to each '
                             'other')
    return sum([sequence.slot is None for sequence, _ in work])


def segment_of(sequence: TokenSequence, n: int, draft: Sequence[int] = ()) -> Segment:
    """Return n pending tokens of a sequence, and guesses behind them, as a runner takes them."""
    start, tokens = sequence.cached, sequence.tokens
    wants = start + n == len(tokens) and sequence.pooling is None
    fed, inputs = tokens[start:start + n], ()
    if sequence.images:
        fed, inputs = inputs_at(fed, sequence.images)
    turned = rope_positions(sequence.placed, start, n + len(draft)) if sequence.placed else None
    seen = last_seen(sequence.joined, start, n + len(draft)) if sequence.joined else None
    return Segment(sequence.slot, start, [*fed, *draft], wants, len(draft), sequence.adapter,
                   inputs, turned, seen)


class Rows(NamedTuple):
    """The rows of a step's logits."""

    samplers: list[Sampler]
    # Of each answer that has a format: its first row, and the guesses whose rows follow.
    constraints: dict[int, tuple[Constraint, Sequence[int]]]
    guesses: dict[int, int]   # by row: what the row before must choose for it to count

    def forbidden(self) -> dict[int, np.ndarray]:
        """Return, by row, the tokens that formats forbid, bool [vocab], when that is computed.

        A row for which it is not known does not count, whatever the row before chooses.
        """
        found = {}
        for first, (constraint, _) in self.constraints.items():
            found[first] = constraint.forbidden
            for row, forbidden in enumerate(constraint.ahead, first + 1):
                if forbidden is None:
                    self.guesses[row] = NO_GUESS
                else:
                    found[row] = forbidden
        return found


def rows_of(sampled: Iterable[TokenSequence], drafts: Mapping[TokenSequence, Sequence[int]]
            ) -> Rows:
    """Return the rows of a step: one of each sequence, and one of each of its guesses."""
    rows = Rows([], {}, {})
    for sequence in sampled:
        draft, first = drafts.get(sequence, ()), len(rows.samplers)
        if sequence.constraint is not None:
            rows.constraints[first] = sequence.constraint, draft
        rows.samplers.extend([sequence.sampler] * (1 + len(draft)))
        rows.guesses.update(enumerate(draft, first + 1))
    return rows


def ranked_rows(sampled: Iterable[TokenSequence],
                drafts: Mapping[TokenSequence, Sequence[int]]) -> dict[int, int]:
    """Return, by row of a step's logits, how many likeliest tokens its request wants to know."""
    wanted, row = {}, 0
    for sequence in sampled:
        rows = 1 + len(drafts.get(sequence, ()))
        if sequence.logprobs is not None:
            wanted |= dict.fromkeys(range(row, row + rows), sequence.logprobs.top)
        row += rows
    return wanted


def embedded(sequence: TokenSequence) -> Output:
    """Return the end of a text whose embedding is complete."""
    sequence.finish_reason = 'stop'
    return Output(sequence, NO_TOKEN, sequence.generated, '', 'stop')
