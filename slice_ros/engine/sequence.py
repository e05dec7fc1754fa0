# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A request inside the engine: its token ids, its place in the KV cache, its sampler and text."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from slice_ros.engine.text.detokenizer import Detokenizer
from slice_ros.engine.text.grammar import Constraint
from slice_ros.engine.text.sampling import Sampler
from slice_ros.errors import RequestError


@dataclass(eq=False, slots=True)
class TokenSequence:
    """Tokens of one request, prompt and generated together.

    The first ``cached`` of ``tokens`` have keys and values in slot ``slot``; the rest is pending.
    Only `Engine.launch`, `collect`, `adopt`, `evict` and `close` change a sequence.
    """

    tokens: list[int]
    prompt_tokens: int
    max_tokens: int
    sampler: Sampler
    detokenizer: Detokenizer
    constraint: Constraint | None = None  # what holds the answer to its format
    slot: int | None = None
    cached: int = 0
    reused: int = 0  # of them, taken over from another request and never fed
    closed: bool = False
    finish_reason: str | None = None
    pieces: list[str] = field(default_factory=list)  # what each sampled token let out

    @property
    def text(self) -> str:
        """The answer so far."""
        return ''.join(self.pieces)

    @property
    def plain_greedy(self) -> bool:
        """Whether the next token is that of the largest logit, whatever it is."""
        return self.constraint is None and self.sampler.plain_greedy

    @property
    def generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def pending(self) -> int:
        """Tokens that have to be fed before the next one can be sampled (1 while decoding)."""
        return len(self.tokens) - self.cached


class Output(NamedTuple):
    """One sampled token and what it let out.

    ``text`` is what became printable with this token: whole characters, never part of a stop
    string, possibly empty. ``finish_reason`` is None until the last token, then ``'stop'`` (a
    stop token, stop string, or an answer that has its format and can have no more),
    ``'length'`` (``max_tokens``, or the context is full) or ``'error'``, with the ``error``.
    """

    sequence: TokenSequence
    token: int
    text: str
    finish_reason: str | None
    error: RequestError | None = None


class Launched(NamedTuple):
    """A forward pass that has begun."""

    work: list[tuple[TokenSequence, int]]
    sampled: list[TokenSequence]           # those whose pending tokens are all fed
    tokens: Callable[[], list[int]]   # waits for the next token of each
