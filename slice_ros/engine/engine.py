# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The engine: requests open, take part in steps, and close."""

from collections.abc import Callable, Iterable
import time

from slice_ros.engine.config import (
    EngineConfig, EngineInfo, MAX_STOP_BYTES, MAX_STOPS, no_progress, Progress, ResponseFormat,
    Sampling)
from slice_ros.engine.kv.slots import PAGE_TOKENS, Slots
from slice_ros.engine.profile import load_or_measure
from slice_ros.engine.runners.fetch import fetch
from slice_ros.engine.runners.runner import Runner, Segment
from slice_ros.engine.sequence import append_token, Collected, Launched, Output, TokenSequence
from slice_ros.engine.text.choice import choose_tokens
from slice_ros.engine.text.detokenizer import Detokenizer
from slice_ros.engine.text.grammar import Grammars
from slice_ros.engine.text.sampling import Sampler
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.slo import SloClass

_NO_OBJECTIVES = SloClass('none')


class Engine:
    """A loaded model. Made by `load_engine`.

    `encode`, `encode_chat`, `extend_chat` and `open` may be called from any thread; `adopt`,
    `launch`, `collect`, `step`, `evict`, `close`, `pinned`, `unpin` and `profile` from one thread
    only, the one that runs the loop.
    """

    def __init__(self, info: EngineInfo, runner: Runner, encoder: PromptEncoder,
                 grammars: Grammars, slots: Slots, stop_tokens: frozenset[int],
                 config: EngineConfig) -> None:
        self.info = info
        self.config = config
        self._encoder = encoder
        self.encode = encoder.encode
        self.encode_chat = encoder.encode_chat
        self.extend_chat = encoder.extend_chat
        self.special_texts = encoder.special_texts   # those of special tokens
        self.pinned, self.unpin = slots.pinned, slots.unpin
        self._check_tokens = encoder.check_tokens
        self._runner = runner
        self._slots = slots
        self._live: dict[int, TokenSequence] = {}  # by slot
        self._stop_tokens = stop_tokens
        self._grammars = grammars

    def open(self, tokens: list[int], max_tokens: int, sampling: Sampling,
             stop: Iterable[str] = (), response_format: ResponseFormat | None = None,
             request: Request | None = None) -> TokenSequence:
        """Return a sequence that continues `tokens`; it takes no KV cache before its first step.

        Its progress is counted in `request`, or in one of its own where none is given. Raises
        ``RequestError``: INVALID_REQUEST when there is no token, a token is not of the
        vocabulary, `max_tokens` is below 1, a stop string or the response format is unusable, or
        both are given; PROMPT_TOO_LONG. Raises ``ValueError`` when `request` has another number
        of prompt tokens.
        """
        tokens = list(self._check_tokens(tokens))
        if min(tokens) < 0 or max(tokens) >= self.info.vocab_size:
            raise _invalid(f'token ids must be from 0 to {self.info.vocab_size - 1}')
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise _invalid(
                f'max_tokens must be a whole number of at least 1, not {max_tokens!r:.80}')
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if len(stop) > MAX_STOPS:
            raise _invalid(f'{len(stop)} stop texts are too many: give {MAX_STOPS} at most')
        for number, text in enumerate(stop):
            if (not isinstance(text, str)
                    or not 0 < len(text.encode(errors='replace')) <= MAX_STOP_BYTES):
                raise _invalid(f'stop[{number}] must have 1 to {MAX_STOP_BYTES} bytes')
        constraint = self._grammars.compile(response_format or ResponseFormat())
        if constraint is not None and stop:
            raise _invalid('stop strings could cut an answer out of its response_format: leave '
                           'either out')
        detokenizer = Detokenizer(self._encoder.vocabulary, stop)
        if request is None:
            request = Request('', _NO_OBJECTIVES, 0.0, len(tokens), max_tokens)
        elif request.prompt_tokens != len(tokens):
            raise ValueError(f'request {request.id} counts {request.prompt_tokens} prompt tokens, '
                             f'not {len(tokens)}')
        return TokenSequence(request, tokens, max_tokens, Sampler(sampling, tokens), detokenizer,
                             constraint)

    def adopt(self, sequence: TokenSequence) -> int:
        """Take over the keys and values of a prefix that a live or recent request has computed.

        Return how many tokens of a sequence without a slot are cached now. The last token never
        is, because the next one is sampled from its logits. The following logits are those that
        feeding these tokens would give. Return 0 when there is no common prefix of at least a
        page, no room, or a runner that cannot share.
        """
        if (sequence.slot is not None or sequence.closed
                or not self._runner.info.shares_prefixes):
            return 0
        source, tokens = self._slots.longest_prefix(sequence.tokens, (
            (slot, s.tokens, s.cached) for slot, s in self._live.items()))
        cached = sum(s.cached for s in self._live.values())
        if not tokens or cached + tokens > self.info.kv_tokens:
            return 0
        slot = self._slots.share(source, tokens)
        self._forget_dropped()
        if slot is None:
            return 0
        self._runner.share(source, slot, tokens)
        self._live[slot] = sequence
        sequence.slot = slot
        sequence.request.adopt(tokens)
        return tokens

    def step(self, work: Iterable[tuple[TokenSequence, int]]) -> list[Output]:
        """Run one forward pass: `launch`, and `collect` at once. Raises as they do."""
        return self.collect(self.launch(work)).outputs

    def launch(self, work: Iterable[tuple[TokenSequence, int]]) -> Launched:
        """Begin a forward pass that feeds n pending tokens of each (sequence, n) in `work`.

        A GPU computes by itself from here on; on CPU the pass is over when this returns. The
        next launch must wait until this one is collected, or has failed. Raises ``ValueError``
        for work that cannot be done (nothing has changed then), ``MemoryError`` when the KV cache
        has too few pages, and lets errors of the forward pass through. No request advances here.
        """
        work = list(work)
        self._check(work)
        segments, lengths, sampled, greedy = [], [], [], True
        for sequence, n in work:
            if sequence.slot is None:
                sequence.slot = self._slots.take()
                self._live[sequence.slot] = sequence
            start, tokens = sequence.request.cached, sequence.tokens
            end = start + n
            last = end == len(tokens)
            segments.append(Segment(sequence.slot, start, tokens[start:end], last))
            lengths.append((sequence.slot, end))
            if last:
                sampled.append(sequence)
                greedy = greedy and sequence.plain_greedy
        self._slots.reserve(lengths)
        self._forget_dropped()
        if sampled and greedy:
            tokens = self._runner.greedy(segments)  # the logits stay on the device
        else:
            tokens = self._sample(segments, sampled)
        return Launched(work, sampled, tokens)

    def collect(self, launched: Launched,
                clock: Callable[[], float] = time.monotonic) -> Collected:
        """Wait for a forward pass, and advance its requests.

        `clock` is read once, when the device is done; each request is stamped with that time. An
        output is returned for each sequence whose last pending token was fed, in order. Lets
        errors of the device through; no request has advanced then. A fault in turning a token
        into text passes through as well, when all requests of the step have advanced.
        """
        tokens = launched.tokens()
        at = clock()
        for sequence, n in launched.work:
            sequence.request.advance(n, at)
        stops, room = self._stop_tokens, self.info.max_context
        return Collected(at, [append_token(sequence, token, stops, room)
                              for sequence, token in zip(launched.sampled, tokens)])

    @property
    def least_prefix(self) -> int:
        """Tokens of the shortest prefix that is kept for `adopt`; 0 where none is."""
        return PAGE_TOKENS if self._runner.info.shares_prefixes else 0

    def evict(self, sequence: TokenSequence, pin: bool = False) -> None:
        """Give up the slot of a sequence; its next step feeds all its tokens again.

        Its keys and values are kept for `adopt` until the room is needed, with `pin` longest. A
        sequence whose request has ended gives up its slot too; its counts stay then.
        """
        slot = sequence.slot
        if slot is None:
            return
        del self._live[slot]
        if self._runner.info.shares_prefixes:
            self._slots.keep(slot, sequence.tokens[:sequence.cached],
                             sequence.request.slo.name, pin)
        else:
            self._slots.give(slot)
        self._forget_dropped()
        sequence.slot = None
        sequence.request.evict()

    def close(self, sequence: TokenSequence, pin: bool = False) -> None:
        """Release everything of a sequence, as `evict` does. Closing twice does nothing."""
        self.evict(sequence, pin)
        sequence.closed = True

    def profile(self, progress: Progress = no_progress) -> LatencyModel:
        """Return the latency model of this engine on this machine, from disk or measured now.

        Measuring takes seconds and needs free slots: call it before the first request. Raises
        ``ValueError`` when too few slots are free.
        """
        return load_or_measure(self, progress)

    def _sample(self, segments: list[Segment], sampled: list[TokenSequence]
                ) -> Callable[[], list[int]]:
        constraints = {row: s.constraint for row, s in enumerate(sampled)
                       if s.constraint is not None}
        masks = self._grammars.prepare(tuple(constraints.values()))
        try:
            logits = self._runner.forward(segments)
        finally:
            if masks is not None:
                masks.result()
        if not sampled:
            return fetch(logits)  # empty: it only waits until the device is done
        forbidden = {row: constraint.forbidden for row, constraint in constraints.items()}
        return choose_tokens(logits, [s.sampler for s in sampled], forbidden)

    def _forget_dropped(self) -> None:
        dropped = self._slots.dropped
        while dropped:
            self._runner.forget(dropped.pop())

    def _check(self, work: list[tuple[TokenSequence, int]]) -> None:
        if len(dict(work)) < len(work):
            raise ValueError('a sequence is twice in one step')
        new = 0
        for sequence, n in work:
            request = sequence.request
            if sequence.closed or sequence.finish_reason or request.ended:
                raise ValueError('a sequence that has ended cannot take part in a step')
            if not 1 <= n <= request.pending:
                raise ValueError(f'a sequence has {request.pending} tokens pending, not {n}')
            new += sequence.slot is None
        if new > self._slots.free:
            raise ValueError(f'all {self._slots.count} slots are taken: evict a sequence first')


def _invalid(message: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, message)
