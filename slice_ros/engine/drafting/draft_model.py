# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A smaller model that reads along with some sequences, and guesses what follows in them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
import logging
import time

from slice_ros.engine.config import EngineInfo, no_progress, Progress
from slice_ros.engine.drafting.lookups import in_format, room_for_guesses
from slice_ros.engine.profile import load_or_measure
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.sequence import TokenSequence
from slice_ros.request import Request
from slice_ros.scheduling.draft_trials import (
    Ask, FEW, ModelGuesses, NOTHING, Offer, Spent)
from slice_ros.scheduling.latency import LatencyModel

logger = logging.getLogger('slice_ros.engine')


@dataclass(slots=True)
class Lane:
    """A sequence in the KV cache of a draft model."""

    sequence: TokenSequence
    slot: int
    cached: int    # of the tokens of the sequence, the first: they have keys and values
    known: int = 0   # of these tokens, the first that were found in the vocabulary
    # Guesses behind them that have keys and values too: if they were right, they are cached.
    ahead: list[int] = field(default_factory=list)

    def settle(self) -> None:
        """Count the guesses that have become tokens of the sequence."""
        tokens = self.sequence.tokens
        for guess in self.ahead:
            if self.cached >= len(tokens) - 1 or tokens[self.cached] != guess:
                break
            self.cached += 1
        self.ahead = []


class DraftModel:
    """Guesses for the sequences of an engine of `info`, whose answers `ends` stop. For one thread.

    `engine` is that of the draft model: its runner and its slots are used, nothing else of it.
    Each sequence has a slot of its own from its first offer to its release, as long as there are
    any; what was read of its beginning is shared with later ones, as in the engine itself. Until
    `profile` has measured it, and from its first fault on, it offers nothing.
    """

    def __init__(self, engine, info: EngineInfo, ends: frozenset[int]) -> None:
        # `load_or_measure` takes this for an engine.
        self.info, self.config = engine.info, engine.config
        self._runner, self._slots = engine._runner, engine._slots
        self._served, self._ends = info, ends
        self._lanes: dict[Request, Lane] = {}
        self._without: set[Request] = set()   # for which there was no room, or a token unknown
        self._spent = NOTHING
        self.latency: LatencyModel | None = None
        self.failed = False

    def profile(self, progress: Progress = no_progress) -> None:
        """Learn how long steps take, as `Engine.profile`."""
        self.latency = load_or_measure(self, progress)

    def guesses_for(self, sequence_of: Callable[[Request], TokenSequence], most: int
                    ) -> ModelGuesses | None:
        """Return what makes at most `most` guesses a request; None where nothing can."""
        if self.failed or self.latency is None:
            return None
        return ModelGuesses(lambda request: self.offer(sequence_of(request), most), self.guess,
                            self.latency)

    def offer(self, sequence: TokenSequence, most: int) -> Offer | None:
        """Return how far a sequence that decodes was read, and how many guesses it may have."""
        if self.failed or sequence.request in self._without or sequence.images:
            return None
        try:
            return self._offer(sequence, most)
        except Exception as error:
            self._switch_off(error)
            return None

    def guess(self, asked: Mapping[Request, Ask]) -> dict[Request, list[int]]:
        """Read and guess what is asked for, of requests with an offer of this step.

        A request has fewer guesses than it asked for where an answer would end. A fault switches
        the draft model off, and nothing is guessed.
        """
        try:
            return self._guess(asked)
        except Exception as error:
            self._switch_off(error)
            return {}

    def take_spent(self) -> Spent:
        """Return the time of the last `guess`, once."""
        spent, self._spent = self._spent, NOTHING
        return spent

    def release(self, sequence: TokenSequence) -> None:
        """Give up the slot of a sequence; what was read of it is kept for later ones."""
        self._without.discard(sequence.request)
        lane = self._lanes.pop(sequence.request, None)
        if lane is not None:
            self._slots.keep(lane.slot, sequence.tokens[:lane.cached],
                             sequence.request.slo.name)
            self._forget_dropped()

    def _offer(self, sequence: TokenSequence, most: int) -> Offer | None:
        most = room_for_guesses(self._served, sequence, min(
            most, self.info.max_context - len(sequence.tokens)))
        if most < 1:
            return None
        lane = self._lanes.get(sequence.request) or self._begun(sequence)
        if lane is None:
            return None
        if max(sequence.tokens[lane.known:], default=0) >= self.info.vocab_size:
            self._give(lane)
            return None
        lane.known = len(sequence.tokens)
        lane.settle()
        return Offer(lane.cached, len(sequence.tokens) - lane.cached, most)

    def _begun(self, sequence: TokenSequence) -> Lane | None:
        """Return the lane of a sequence, which begins with what is read of its tokens."""
        source, tokens = self._slots.longest_prefix(sequence.tokens, (
            (lane.slot, lane.sequence.tokens, lane.cached) for lane in self._lanes.values()))
        slot = self._slots.share(source, tokens) if tokens else None
        if slot is not None:
            self._runner.share(source, slot, tokens)
        elif self._slots.free:
            slot, tokens = self._slots.take(), 0
        self._forget_dropped()
        if slot is None:
            return None
        lane = self._lanes[sequence.request] = Lane(sequence, slot, tokens)
        return lane

    def _guess(self, asked: Mapping[Request, Ask]) -> dict[Request, list[int]]:
        lanes = {r: self._lanes[r] for r, ask in asked.items() if self._has_room(r, ask)}
        found: dict[Request, list[int]] = {r: [] for r in lanes if asked[r].guesses}
        segments, reading, few = [], [], 0
        for request, lane in lanes.items():
            ask, at = asked[request], lane.cached
            fed = lane.sequence.tokens[at:at + ask.feed]
            segments.append(Segment(lane.slot, at, fed, ask.guesses > 0))
            if ask.guesses and ask.feed <= FEW:
                few += ask.feed - 1
            else:
                reading.append((ask.feed, at))
        if segments:
            self._step(segments, found.values(), reading, few)
        for request, lane in lanes.items():
            lane.cached += asked[request].feed
        while going := {r: tokens for r, tokens in found.items()
                        if len(tokens) < asked[r].guesses and self._goes_on(tokens[-1])}:
            self._step([Segment(lanes[r].slot, lanes[r].cached + len(tokens) - 1, tokens[-1:],
                                True) for r, tokens in going.items()], going.values())
        for request, tokens in found.items():
            lanes[request].ahead = tokens[:-1]   # the last was not fed
        # The last alone may be one that the other model has not.
        return {r: in_format(lanes[r].sequence, [
            token for token in tokens if token < self._served.vocab_size])
            for r, tokens in found.items()}

    def _step(self, segments: Sequence[Segment], found: Iterable[list[int]],
              reading: Sequence[tuple[int, int]] = (), few: int = 0) -> None:
        """Run one step, append its tokens to `found`, and learn how long it took."""
        context = sum([s.start for s in segments]) - sum([at for _, at in reading])
        started = time.perf_counter()
        tokens = self._runner.greedy(segments)()
        took = time.perf_counter() - started
        for guesses, token in zip(found, tokens, strict=True):
            guesses.append(token)
        predicted = self.latency.observe(
            took, len(segments) - len(reading), context, reading, few)
        self._spent = Spent(self._spent.took + took, self._spent.predicted + predicted)

    def _goes_on(self, token: int) -> bool:
        return token not in self._ends and token < self._served.vocab_size

    def _has_room(self, request: Request, ask: Ask) -> bool:
        """Reserve the pages that a request needs; where there are none, give up its slot."""
        lane = self._lanes[request]
        try:
            self._slots.reserve([(lane.slot, lane.cached + ask.feed + max(ask.guesses - 1, 0))])
            return True
        except MemoryError:
            self._give(lane)
            return False
        finally:
            self._forget_dropped()

    def _give(self, lane: Lane) -> None:
        self._slots.give(lane.slot)
        del self._lanes[lane.sequence.request]
        self._without.add(lane.sequence.request)
        self._forget_dropped()

    def _forget_dropped(self) -> None:
        dropped = self._slots.dropped
        while dropped:
            self._runner.forget(dropped.pop())

    def _switch_off(self, error: Exception) -> None:
        logger.error('the draft model %s failed (%s: %s): answers go on without its guesses until '
                     'the model is loaded again', self.info.model, type(error).__name__, error,
                     exc_info=error)
        self.failed = True
        self._lanes.clear()
        self._runner = None   # its memory
