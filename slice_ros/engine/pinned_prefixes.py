# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Beginnings of prompts that stay in the KV cache, computed while no request is live."""

from collections.abc import Iterable
import logging

from slice_ros.engine.config import Sampling
from slice_ros.engine.engine import Engine

log = logging.getLogger('slice_ros.engine')


class PinnedPrefixes:
    """Keeps `prefixes` (token ids) in the KV cache of `engine`, as long as requests leave room.

    Requests need no room less than without: a pinned prefix is dropped when they need its slot or
    its pages, after all others, and computed anew when no request is live. Prefixes that are too
    short to be shared are left out. Any thread may make one; the first `compute`, which belongs to
    the thread that runs the engine, gives up what was kept before.
    """

    def __init__(self, engine: Engine, prefixes: Iterable[list[int]] = ()) -> None:
        least = engine.least_prefix
        self._engine = engine
        self._prefixes = [p for p in prefixes if least and len(p) >= least]
        self._chunk = max(least, 1)
        self._begun = False

    def __len__(self) -> int:
        """Return how many are kept or are to be computed."""
        return len(self._prefixes)

    def compute(self, tokens: int) -> bool:
        """Compute at most about `tokens` of what is missing; return False if nothing is."""
        if not self._begun:
            self._begun = True
            self._engine.unpin()
        for prefix in self._prefixes:
            if not self._engine.pinned(prefix):
                try:
                    self._compute(prefix, max(tokens, self._chunk))
                except BaseException:   # serving does not depend on it
                    log.exception('a preamble of %d tokens cannot be kept', len(prefix))
                    self._prefixes.remove(prefix)
                return True
        return False

    def _compute(self, prefix: list[int], most: int) -> None:
        """Compute one chunk; what is left continues from it, as any later request would."""
        sequence = self._engine.open(prefix, 1, Sampling())
        try:
            self._engine.adopt(sequence)
            self._engine.step([(sequence, min(sequence.pending, most))])
        finally:
            self._engine.close(sequence, pin=sequence.generated > 0)
