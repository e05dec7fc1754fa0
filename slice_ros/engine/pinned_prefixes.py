# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Beginnings of prompts that stay in the KV cache, computed while no request is live."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
import logging
import threading
import time

from slice_ros.engine.config import Sampling
from slice_ros.engine.engine import Engine
from slice_ros.engine.kv.stored_prefixes import Work

log = logging.getLogger('slice_ros.engine')

PATIENCE_S = 3.0   # that a file may take; so long a prefix is neither read nor computed


@dataclass(eq=False, slots=True)
class _Prefix:
    tokens: list[int]
    stored: bool   # it may be on disk: it is looked for there before it is computed
    fresh: bool = False   # it was computed, and is to be stored


@dataclass(eq=False, slots=True)
class _Under:
    """What is under way with the disk for a prefix."""

    prefix: _Prefix
    work: Work
    restores: bool
    since: float
    waits_for: Future | None = None
    timer: threading.Timer | None = None   # ends the wait


class PinnedPrefixes:
    """Keeps `prefixes` (token ids) in the KV cache of `engine`, as long as requests leave room.

    Requests need no room less than without: a pinned prefix is dropped when they need its slot or
    its pages, after all others, and brought back when no request is live: from the disk where the
    engine keeps prefixes there, else computed anew, and stored. Prefixes that are too short to be
    shared are left out. Any thread may make one; the first `compute`, which belongs to the thread
    that runs the engine, gives up what was kept before. `wake` is called when `compute` may have
    more to do than when it returned False.
    """

    def __init__(self, engine: Engine, prefixes: Iterable[list[int]] = ()) -> None:
        least = engine.least_prefix
        self.wake: Callable[[], None] = lambda: None
        self._engine = engine
        self._prefixes = [
            _Prefix(p, engine.stored is not None and len(p) < engine.info.max_context)
            for p in prefixes if least and len(p) >= least]
        self._chunk = max(least, 1)
        self._begun = False
        self._under: _Under | None = None
        self._writing: Future | None = None
        self._counts = {'disk': 0, 'steps': 0}      # tokens since the last line of the log
        self._seconds = {'disk': 0.0, 'steps': 0.0}

    def __len__(self) -> int:
        """Return how many are kept or are to be computed."""
        return len(self._prefixes)

    def compute(self, tokens: int) -> bool:
        """Compute at most about `tokens` of what is missing, or copy a piece of a stored prefix.

        Return False if there is nothing to do now.
        """
        if not self._begun:
            self._begun = True
            self._engine.unpin()
        if self._under is not None:
            return self._go_on(self._under)
        for prefix in self._prefixes:
            if not self._engine.pinned(prefix.tokens) and not self._engine.pin(prefix.tokens):
                return self._bring(prefix, tokens)
        self._report()
        if self._writing is None or self._writing.done():
            for prefix in self._prefixes:
                if prefix.fresh:
                    return self._begin(prefix, restores=False)
        return False

    def wait_for_disk(self, seconds: float) -> bool:
        """Wait so long at most; return False where `compute` waits for no file."""
        if self._under is None or self._under.waits_for is None:
            return False
        wait([self._under.waits_for], seconds)
        return True

    def _bring(self, prefix: _Prefix, tokens: int) -> bool:
        if prefix.stored:
            return self._begin(prefix, restores=True)
        began = time.monotonic()
        try:
            self._count('steps', self._compute(prefix.tokens, max(tokens, self._chunk)), began)
        except BaseException:   # serving does not depend on it
            log.exception('a preamble of %d tokens cannot be kept', len(prefix.tokens))
            self._prefixes.remove(prefix)
        prefix.fresh = self._engine.stored is not None
        return True

    def _compute(self, prefix: list[int], most: int) -> int:
        """Compute one chunk; what is left continues from it, as any later request would."""
        sequence = self._engine.open(prefix, 1, Sampling())
        try:
            self._engine.adopt(sequence)
            fed = min(sequence.pending, most)
            self._engine.step([(sequence, fed)])
            return fed
        finally:
            self._engine.close(sequence, pin=sequence.generated > 0)

    # -- the disk ----------------------------------------------------------------------------

    def _begin(self, prefix: _Prefix, restores: bool) -> bool:
        prefix.stored = prefix.fresh = False
        stored = self._engine.stored
        work = (stored.restore if restores else stored.store)(prefix.tokens)
        self._under = _Under(prefix, work, restores, time.monotonic())
        return self._go_on(self._under)

    def _go_on(self, under: _Under) -> bool:
        """Do one piece; return False while the disk has to be waited for."""
        waits_for = under.waits_for
        if waits_for is not None and not waits_for.done() and (
                time.monotonic() < under.since + PATIENCE_S):
            return False
        if under.timer is not None:
            under.timer.cancel()
        done = False
        try:
            under.waits_for = next(under.work)
            if under.waits_for is None:
                return True
            under.waits_for.add_done_callback(lambda _: self.wake())
            if under.restores:
                return self._wait(under)
            self._writing, done = under.waits_for, True   # nothing waits until it is written
        except StopIteration as end:
            done = end.value
        except BaseException as error:   # serving does not depend on it
            self._engine.stored.tell(error)
        finally:
            self._engine._forget_dropped()
        self._under = None
        if done:
            under.prefix.stored = True   # where it is found when its room was needed
            if under.restores:
                self._count('disk', len(under.prefix.tokens), under.since)
        return True

    def _wait(self, under: _Under) -> bool:
        """Have `compute` called again at the latest when its patience is over; return False."""
        under.timer = threading.Timer(PATIENCE_S, lambda: self.wake())
        under.timer.daemon = True
        under.timer.start()
        return False

    def _count(self, source: str, tokens: int, since: float) -> None:
        self._counts[source] += tokens
        self._seconds[source] += time.monotonic() - since

    def _report(self) -> None:
        """Log where the tokens came from that are new in the KV cache, if there are any."""
        if any(self._counts.values()):
            log.info('preambles: %d tokens came from disk in %.0f ms, %d were computed in %.0f ms',
                     self._counts['disk'], 1e3 * self._seconds['disk'], self._counts['steps'],
                     1e3 * self._seconds['steps'])
            self._counts, self._seconds = dict.fromkeys(self._counts, 0), dict.fromkeys(
                self._seconds, 0.0)
