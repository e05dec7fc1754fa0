# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The engine: requests open, take part in steps, and close."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.appending import append_confirmed, append_forced, append_lead, append_token
from slice_ros.engine.config import EngineConfig, EngineInfo, no_progress, Progress
from slice_ros.engine.drafting.draft_model import DraftModel
from slice_ros.engine.drafting.lookups import looked_up
from slice_ros.engine.kv.slots import PAGE_TOKENS, Slots
from slice_ros.engine.kv.stored_prefixes import StoredPrefixes
from slice_ros.engine.opening import Opener
from slice_ros.engine.pooling import pool
from slice_ros.engine.profile import load_or_measure
from slice_ros.engine.runners.fetch import fetch
from slice_ros.engine.runners.runner import Runner, Segment
from slice_ros.engine.sequence import (
    check_work, Collected, embedded, Launched, Output, ranked_rows, rows_of, segment_of,
    TokenSequence)
from slice_ros.engine.text.choice import choose_tokens, rank
from slice_ros.engine.text.grammar import Grammars
from slice_ros.engine.text.sampling import Ranked
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.engine.vision.image_tokens import whole_chunk
from slice_ros.scheduling.latency import LatencyModel

if TYPE_CHECKING:
    from slice_ros.engine.vision.vision_encoder import VisionEncoder

Row = tuple[int, Ranked | None]   # a chosen token, ranked where its request wants that
NO_DRAFTS: Mapping[TokenSequence, Sequence[int]] = MappingProxyType({})


class Engine:
    """A loaded model. Made by `load_engine`.

    `encode`, `encode_chat`, `extend_chat`, `thought_tokens`, `open` and `open_embedding` may be
    called from any thread; `adopt`, `launch`, `collect`, `step`, `evict`, `close`, `pinned`,
    `pin`, `unpin` and `profile` from one thread only, the one that runs the loop.
    """

    def __init__(self, info: EngineInfo, runner: Runner, encoder: PromptEncoder,
                 grammars: Grammars, slots: Slots, stop_tokens: frozenset[int],
                 config: EngineConfig, vision: 'VisionEncoder | None' = None,
                 stored: StoredPrefixes | None = None) -> None:
        self.info = info
        self.config = config
        self.vision = vision   # None for a model that does not see
        self._encoder = encoder
        self.encode = encoder.encode
        self.encode_chat = encoder.encode_chat
        self.extend_chat = encoder.extend_chat
        self.special_texts = encoder.special_texts   # those of special tokens
        self.pinned, self.pin, self.unpin = slots.pinned, slots.pin, slots.unpin
        self.stored = stored   # prefixes on disk; None for none
        self.opener = opener = Opener(encoder, grammars, info, runner.info.verifies)
        self.open, self.open_embedding = opener.open, opener.open_embedding
        self.thought_tokens = opener.thought_tokens
        self.draft = partial(looked_up, info)   # (sequence, most): guesses of its next tokens
        self.draft_model: DraftModel | None = None   # that guesses too, where one was named
        self._runner = runner
        self._slots = slots
        self._live: dict[int, TokenSequence] = {}  # by slot
        self._stop_tokens = stop_tokens
        self._grammars = grammars

    def adopt(self, sequence: TokenSequence) -> int:
        """Take over the keys and values of a prefix that a live or recent request has computed.

        It had the same adapter: another gives the same tokens other keys and values. Return how
        many tokens of a sequence without a slot are cached now. The last token never is, because
        the next one is sampled from its logits. The following logits are those that feeding these
        tokens would give. Return 0 when there is no common prefix of at least a page, no room, or
        a runner that cannot share.
        """
        if (sequence.slot is not None or sequence.closed or sequence.pooling is not None
                or not self._runner.info.shares_prefixes):
            return 0
        adapter = sequence.adapter
        source, tokens = self._slots.longest_prefix(sequence.tokens, (
            (slot, s.tokens, s.cached) for slot, s in self._live.items()
            if s.adapter == adapter), adapter, self._runner.info.whole_prefixes)
        if sequence.joined and whole_chunk(sequence.joined, 0, tokens) != tokens:
            tokens = next(begin for begin, end in sequence.joined if begin < tokens < end)
            tokens = tokens if tokens >= PAGE_TOKENS else 0
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

    def launch(self, work: Iterable[tuple[TokenSequence, int]],
               drafts: Mapping[TokenSequence, Sequence[int]] = NO_DRAFTS) -> Launched:
        """Begin a forward pass that feeds n pending tokens of each (sequence, n) in `work`.

        `drafts` are what `draft` or `draft_model` has returned, for sequences that decode. Those
        tokens are fed as well; as many as the model would choose become part of the answer
        (speculative decoding). A GPU computes by itself from here on; on CPU the pass is over when
        this returns. The next launch must wait until this one is collected, or has failed. Raises
        ``ValueError`` for work that cannot be done (nothing has changed then), ``MemoryError``
        when the KV cache has too few pages, and lets errors of the forward pass through. No
        request advances here.
        """
        work = list(work)
        if check_work(work) > self._slots.free:
            raise ValueError(f'all {self._slots.count} slots are taken: evict a sequence first')
        for sequence, _ in work:
            if sequence.slot is None:
                sequence.slot = self._slots.take()
                self._live[sequence.slot] = sequence
        segments = [segment_of(sequence, n, drafts.get(sequence, ())) for sequence, n in work]
        last = [sequence for sequence, n in work if n == sequence.pending]
        sampled = [sequence for sequence in last if sequence.pooling is None]
        self._slots.reserve([(s.slot, s.cached + n) for s, n in work])
        self._forget_dropped()
        try:
            rows = self._compute(work, segments, sampled, drafts)
        except BaseException:
            if self._runner.info.whole_prefixes:   # states may have advanced, and cannot go back
                for sequence, _ in work:
                    self._leave(sequence)
            raise
        pooled = [sequence for sequence in last if sequence.pooling is not None]
        return Launched(work, sampled, pooled, rows, drafts)

    def _compute(self, work: list[tuple[TokenSequence, int]], segments: list[Segment],
                 sampled: list[TokenSequence], drafts: Mapping[TokenSequence, Sequence[int]]
                 ) -> Callable[[], Iterable[Row]]:
        if any([sequence.pooling is not None for sequence, _ in work]):
            states = np.empty((sum([len(s.ids) for s in segments]), self.info.hidden), np.float32)
            rows = self._sample(segments, sampled, drafts, states)
            pool([sequence.pooling for sequence, _ in work], segments, states)
            return rows
        if sampled and all([sequence.plain_greedy for sequence in sampled]):
            tokens = self._runner.greedy(segments)  # the logits stay on the device
            return lambda: zip(tokens(), repeat(None))
        return self._sample(segments, sampled, drafts)

    def collect(self, launched: Launched,
                clock: Callable[[], float] = time.monotonic) -> Collected:
        """Wait for a forward pass, and advance its requests.

        `clock` is read once, when the device is done; each request is stamped with that time. An
        output is returned for each sequence whose last pending token was fed, in order, and one
        for each token that a right guess or its response format adds. Lets errors of the device
        through; no request has advanced then. A fault in turning a token into text passes through
        as well, when all requests of the step have advanced.
        """
        rows = iter(launched.rows())
        at = clock()
        for sequence, n in launched.work:
            sequence.request.advance(n, at)
        stops, room = self._stop_tokens, self.info.max_context
        outputs = []
        for sequence in launched.sampled:
            draft = launched.drafts.get(sequence, ())
            outputs += append_lead(sequence)
            outputs.append(append_token(sequence, next(rows), stops, room))
            chosen = [next(rows) for _ in draft]
            outputs += append_confirmed(sequence, draft, chosen, stops, room)
            outputs += append_forced(sequence, stops, room)
        return Collected(at, [*outputs, *map(embedded, launched.pooled)])

    @property
    def least_prefix(self) -> int:
        """Tokens of the shortest prefix that is kept for `adopt`; 0 where none is."""
        return PAGE_TOKENS if self._runner.info.shares_prefixes else 0

    def evict(self, sequence: TokenSequence, pin: bool = False) -> None:
        """Give up the slot of a sequence; its next step feeds all its tokens again.

        Its keys and values are kept for `adopt` until the room is needed, with `pin` longest. A
        sequence whose request has ended gives up its slot too; its counts stay then.
        """
        if sequence.slot is None:
            return
        if self._runner.info.shares_prefixes and sequence.pooling is None:
            del self._live[sequence.slot]
            self._slots.keep(sequence.slot, sequence.tokens[:sequence.cached],
                             sequence.request.slo.name, pin, sequence.adapter)
            self._forget_dropped()
            sequence.slot = None
            sequence.request.evict()
        else:
            self._leave(sequence)

    def _leave(self, sequence: TokenSequence) -> None:
        """Evict a sequence that leaves nothing for others."""
        del self._live[sequence.slot]
        self._slots.give(sequence.slot)
        self._forget_dropped()
        sequence.slot = None
        sequence.request.evict()

    def close(self, sequence: TokenSequence, pin: bool = False) -> None:
        """Release everything of a sequence, as `evict` does. Closing twice does nothing."""
        self.evict(sequence, pin)
        sequence.closed = True
        if self.draft_model is not None:
            self.draft_model.release(sequence)

    def profile(self, progress: Progress = no_progress) -> LatencyModel:
        """Return the latency model of this engine on this machine, from disk or measured now.

        Measuring takes seconds and needs free slots: call it before the first request. Raises
        ``ValueError`` when too few slots are free.
        """
        latency = load_or_measure(self, progress)
        if self.draft_model is not None:
            self.draft_model.profile(progress)
        return latency

    def _sample(self, segments: list[Segment], sampled: list[TokenSequence],
                drafts: Mapping[TokenSequence, Sequence[int]], states: np.ndarray | None = None
                ) -> Callable[[], Iterable[Row]]:
        chosen_by = rows_of(sampled, drafts)
        masks = self._grammars.prepare(tuple(chosen_by.constraints.values()))
        try:
            logits = self._runner.forward(segments, states)
        finally:
            if masks is not None:
                masks.result()
        if not sampled:
            arrived = fetch(logits)  # empty: it only waits until the device is done
            return lambda: zip(arrived(), ())
        chosen = choose_tokens(logits, chosen_by.samplers, chosen_by.forbidden(),
                               chosen_by.guesses)
        ranked = rank(logits, ranked_rows(sampled, drafts))

        def rows() -> list[Row]:
            tokens = chosen()
            found = ranked(tokens)
            return [(token, found.get(row)) for row, token in enumerate(tokens)]
        return rows

    def _forget_dropped(self) -> None:
        dropped = self._slots.dropped
        while dropped:
            self._runner.forget(dropped.pop())
