# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""An adapter in memory, and as the runners take it, which join some matrices of a layer."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from slice_ros.engine.models.architecture import Architecture, DOWN, GATE_UP, OUT, QKV
from slice_ros.engine.models.part_shapes import part_shapes

JOINED = (QKV, (OUT,), GATE_UP, (DOWN,))   # the matrices that a runner multiplies by, in order


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to the product of a matrix with x: up @ (down @ x)."""

    down: np.ndarray  # float32 [rank, inputs]
    up: np.ndarray    # float32 [outputs, rank], multiplied by the scale


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter of a model."""

    name: str
    parts: Mapping[tuple[int, str], LowRank]   # by layer and part, as in `architecture`


def joined_matrix(adapter: Adapter, made: Architecture, layer: int, matrix: int
                  ) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """Return what an adapter adds to matrix `JOINED[matrix]` of a layer, None for nothing.

    That is `down` [factors, inputs] of its parts together, and for each part, `up` [outputs of
    the part, factors], zero where it does not use a factor. Parts that a file has as one matrix
    have the same `down`.
    """
    found = [adapter.parts.get((layer, part)) for part in JOINED[matrix]]
    downs = list({id(part.down): part.down for part in found if part is not None}.values())
    if not downs:
        return None
    starts = dict(zip(map(id, downs), np.cumsum([0, *map(len, downs)])))
    factors, shapes, ups = sum(map(len, downs)), part_shapes(made), []
    for name, part in zip(JOINED[matrix], found):
        if name not in shapes:   # the gate of an MLP without
            continue
        up = np.zeros((shapes[name][0], factors), np.float32)
        if part is not None:
            first = starts[id(part.down)]
            up[:, first:first + len(part.down)] = part.up
        ups.append(up)
    return np.concatenate(downs), ups
