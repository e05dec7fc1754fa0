# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Embeddings: what the layers make of a text, as one vector of length 1."""

from collections.abc import Sequence

import numpy as np
from slice_ros.engine.runners.runner import Segment

POOLINGS = ('mean', 'last')   # of all tokens; of the last, as models made for embeddings want it


class Pooling:
    """Adds up the inputs of the head of one text, chunk by chunk.

    Raises ``ValueError`` when `kind` is none of `POOLINGS`.
    """

    def __init__(self, kind: str) -> None:
        if kind not in POOLINGS:
            raise ValueError(f'pooling must be one of {", ".join(POOLINGS)}, not {kind!r:.80}')
        self.kind = kind
        self._sum: np.ndarray | float = 0.0

    def add(self, states: np.ndarray, start: int) -> None:
        """Add the states [tokens, hidden] of consecutive tokens, the first of which is `start`."""
        if self.kind == 'last':
            self._sum = states[-1].astype(np.float64)
        else:   # a text whose cache was taken begins again
            self._sum = states.sum(0, dtype=np.float64) + (self._sum if start else 0.0)

    def vector(self) -> np.ndarray:
        """Return the embedding, float32 [hidden], of Euclidean length 1 (or 0, of nothing)."""
        length = float(np.linalg.norm(self._sum))
        return (self._sum / (length or 1.0)).astype(np.float32)


def pool(poolings: Sequence[Pooling | None], segments: Sequence[Segment], states: np.ndarray
         ) -> None:
    """Add the states [tokens, hidden] of the segments of a step to the poolings of theirs."""
    at = 0
    for pooling, segment in zip(poolings, segments):
        if pooling is not None:
            pooling.add(states[at:at + len(segment.ids)], segment.start)
        at += len(segment.ids)
