# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One request: its state machine, its progress through the model, and its timestamps.

This is the only record of progress: policies, the simulator, the server and the engine's
`TokenSequence` read it, and only the engine (or the simulator in its place) advances it. A request
has counts, never token ids. Latencies are properties of the timestamps, so that they cannot
disagree with them. Times are seconds on one monotonic clock.
"""

from dataclasses import dataclass
from enum import Enum
import math

from slice_ros.errors import ErrorCode
from slice_ros.slo import SloClass, SloReport

MAX_FORCED = 16   # tokens that a request jumps at once: the rows that it adds to the next step


class State(Enum):
    """``WAITING -> PREFILL -> RUNNING <-> PAUSED -> FINISHED / CANCELLED / FAILED / REJECTED``."""

    WAITING = 'waiting'      # nothing of it is in the KV cache
    PREFILL = 'prefill'      # part of its prompt is in the KV cache
    RUNNING = 'running'      # takes part in the current step
    PAUSED = 'paused'        # keeps its KV cache but takes no part in the current step
    FINISHED = 'finished'    # ran to its own end: a stop, or max_tokens
    CANCELLED = 'cancelled'  # ended by its caller
    FAILED = 'failed'        # ended by the server, with an error code
    REJECTED = 'rejected'    # never started, with an error code


ENDED = (State.FINISHED, State.CANCELLED, State.FAILED, State.REJECTED)


@dataclass(eq=False, slots=True)
class Request:
    """A prompt and its generation, as the scheduler sees them.

    ``cached`` counts the tokens whose keys and values are in the cache, ``generated`` the tokens
    sampled so far. What still has to be fed before the next token can be sampled is ``pending``:
    the rest of the prompt and the ``lead`` of its answer during prefill, the last sampled token
    and those ``forced`` behind it while decoding, and the whole context again after an eviction.
    Feeding the last pending token samples a new one.
    """

    id: str
    slo: SloClass
    arrival: float
    prompt_tokens: int
    max_tokens: int
    state: State = State.WAITING
    cached: int = 0
    reused: int = 0  # of the prompt, found in the KV cache on arrival
    generated: int = 0
    lead: int = 0    # forced tokens that its answer begins with, until they count as generated
    forced: int = 0  # of the pending tokens, those that the response format left no choice of
    jumped: int = 0  # of those generated, forced or guessed: they came without a step of their own
    drafted: int = 0  # guesses of its next tokens that were fed
    guesses: int = 0  # of these, those that were looked at, none behind a wrong one
    right: int = 0    # of these
    thought: int = 0  # of those generated, the first: they are no part of the answer
    first_token_at: float = math.nan
    last_token_at: float = math.nan
    answer_at: float = math.nan   # first token behind a thought
    ended_at: float = math.nan
    max_gap: float = 0.0
    error: ErrorCode = ErrorCode.NONE
    gated: bool = False  # its next token is not due by rate control: it must not be decoded
    pace: float = 0.0   # seconds between its tokens by rate control; 0 = no rate control
    session_id: str = ''  # session it belongs to; empty = none
    caller: str = ''      # client that sent it; empty = not known

    @property
    def context(self) -> int:
        """Tokens so far, prompt, lead and generated together."""
        return self.prompt_tokens + self.lead + self.generated

    @property
    def pending(self) -> int:
        """Tokens to feed before the next one can be sampled (decoding: 1, and forced ones)."""
        return self.context - self.cached

    @property
    def decoding(self) -> bool:
        """Whether the next step of this request is a decode (else a prefill)."""
        return self.generated > 0 and self.pending == 1 + self.forced

    @property
    def ready(self) -> bool:
        """Whether the next step may decode it."""
        return not self.gated and self.decoding

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def advance(self, tokens: int, now: float) -> bool:
        """Record that `tokens` pending tokens were fed in a step that ended at `now`.

        Returns whether that sampled a new token: then the lead of its answer counts as generated
        too. Raises ``ValueError`` when the request has ended or `tokens` is not between 1 and
        ``pending``.
        """
        if self.ended:
            raise ValueError(
                f'request {self.id} has ended ({self.state.value}): it cannot advance')
        left = self.pending - tokens
        if tokens < 1 or left < 0:
            raise ValueError(f'request {self.id} has {self.pending} tokens pending, not {tokens}')
        self.cached += tokens
        if left:
            self.state = State.PREFILL
            return False
        if self.generated == 0:
            self.first_token_at = now
        else:
            self.max_gap = max(self.max_gap, now - self.last_token_at)
        self.generated += 1 + self.lead
        self.jumped += self.lead
        self.lead = self.forced = 0
        self.last_token_at = now
        self.state = State.RUNNING
        return True

    def jump(self) -> None:
        """Record that the token behind the last one is known without a step: it is forced.

        Raises ``ValueError`` when the request has ended, or is not decoding.
        """
        if self.ended or not self.decoding:
            raise ValueError(f'request {self.id} ({self.state.value}, {self.pending} tokens '
                             'pending) has no last token: none can be forced behind it')
        self.generated += 1
        self.forced += 1
        self.jumped += 1

    def look_at(self, right: bool) -> None:
        """Record a guess of the last token. A right one was fed, and the next token is sampled.

        Raises ``ValueError`` when the request has ended, or is not decoding one token a step.
        """
        if self.ended or not self.decoding or self.forced:
            raise ValueError(f'request {self.id} ({self.state.value}, {self.pending} tokens '
                             'pending) has no last token that a step can have guessed')
        self.guesses += 1
        if right:
            self.right += 1
            self.cached += 1
            self.generated += 1
            self.jumped += 1

    def think(self) -> None:
        """Record that all tokens so far are those of a thought."""
        self.thought = self.generated

    def answer(self) -> None:
        """Record that the last token is the answer's."""
        if self.thought and math.isnan(self.answer_at):
            self.answer_at = self.last_token_at

    def adopt(self, tokens: int) -> None:
        """Record that the first `tokens` were found in the KV cache and need not be fed.

        Raises ``ValueError`` when the request has ended, has tokens in the cache already, or would
        have nothing left to feed.
        """
        if self.ended or self.cached or not 1 <= tokens < self.pending:
            raise ValueError(f'request {self.id} ({self.state.value}, {self.cached} of '
                             f'{self.context} tokens cached) cannot adopt {tokens}')
        self.cached = tokens
        if not self.generated:
            self.reused = min(tokens, self.prompt_tokens)
        self.state = State.PREFILL

    def pause(self) -> None:
        """Take no part in the next step, keeping the KV cache."""
        if self.state is State.RUNNING:
            self.state = State.PAUSED

    def evict(self) -> None:
        """Give up the KV cache; the context is prefilled again when the request next runs."""
        if not self.ended:
            self.cached = 0
            self.state = State.WAITING

    def end(self, state: State, now: float, error: ErrorCode = ErrorCode.NONE) -> None:
        """Enter a final state. Raises ``ValueError`` when it is not final, or one was entered."""
        if state not in ENDED or self.ended:
            raise ValueError(
                f'request {self.id} cannot go from {self.state.value} to {state.value}')
        self.state, self.ended_at, self.error = state, now, error

    @property
    def ttft(self) -> float:
        """Arrival to first token; NaN before it."""
        return self.first_token_at - self.arrival

    @property
    def tpot(self) -> float:
        """Mean time per token after the first; 0 for one token, NaN for none."""
        if self.generated == 0:
            return math.nan
        return (self.last_token_at - self.first_token_at) / max(self.generated - 1, 1)

    @property
    def completion(self) -> float:
        """Arrival to the last token so far; NaN before the first."""
        return self.last_token_at - self.arrival

    def report(self) -> SloReport:
        """Return the objectives and what was measured."""
        return SloReport(
            request_id=self.id, slo=self.slo, served=self.state is State.FINISHED,
            prompt_tokens=self.prompt_tokens, output_tokens=self.generated, ttft=self.ttft,
            tpot=self.tpot, completion=self.completion, max_gap=self.max_gap,
            elapsed=self.ended_at - self.arrival, reused_tokens=self.reused,
            session_id=self.session_id, reasoning_tokens=self.thought,
            answer=(self.answer_at if self.thought else self.first_token_at) - self.arrival)
