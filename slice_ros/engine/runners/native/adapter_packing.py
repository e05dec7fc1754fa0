# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Packing adapters for the kernels, which add their products before they store those of a row."""

from collections.abc import Sequence
import ctypes
from dataclasses import dataclass

import numpy as np
from slice_ros.engine.adapters.low_rank import Adapter, JOINED, joined_matrix
from slice_ros.engine.models.architecture import Architecture, GATE_UP
from slice_ros.engine.runners.native.arena import Arena
from slice_ros.engine.runners.native.library import Library, LowRank
from slice_ros.engine.runners.native.packing import Interleaved, pack

_BLOCK = 16   # outputs; as in src/layout.hpp
_DTYPES = {'fp16': np.float16, 'fp32': np.float32}


@dataclass(frozen=True, slots=True)
class PackedAdapters:
    """The adapters of a model, and the memory that they point to."""

    count: int
    low_rank: ctypes.Array | None   # of LowRank, [layers][matrices][adapters]
    alive: Sequence[object] = ()
    nbytes: int = 0


NO_ADAPTERS = PackedAdapters(0, None)


def pack_adapters(library: Library, made: Architecture, adapters: Sequence[Adapter], kind: str
                  ) -> PackedAdapters:
    """Return adapters in numbers of `kind`, 'fp16' or 'fp32'.

    Raises ``ValueError`` for numbers that are too large for it.
    """
    if not adapters:
        return NO_ADAPTERS
    parts = (LowRank * (len(made.layers) * len(JOINED) * len(adapters)))()
    alive, nbytes, at, arena = [], 0, 0, Arena()
    for layer in range(len(made.layers)):
        for matrix in range(len(JOINED)):
            for adapter in adapters:
                found = joined_matrix(adapter, made, layer, matrix)
                if found is not None:
                    down = pack(library, kind, [_rounded(adapter, found[0], kind)], None,
                                arena)
                    up, blocks = _packed_up(_rows(JOINED[matrix], found[1]), adapter, kind)
                    parts[at] = LowRank(down.matrix, up.ctypes.data, blocks.ctypes.data)
                    alive += [down, up, blocks]
                    nbytes += down.nbytes + up.nbytes
                at += 1
    return PackedAdapters(len(adapters), parts, alive, nbytes)


def _rows(names: tuple[str, ...], ups: list[np.ndarray]) -> np.ndarray:
    """Return the matrices of the parts as the kernels have the rows of the joined one."""
    gated = names == GATE_UP and len(ups) == len(names)
    return Interleaved(*ups).rows(slice(None)) if gated else np.concatenate(ups)


def _packed_up(up: np.ndarray, adapter: Adapter, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what blocks of 16 of the rows [outputs, factors] use, and where each finds it.

    A block has [factors][16 outputs] of those factors that are not zero in it, and int32 [first
    factor, number of factors, vectors in front].
    """
    up = np.pad(_rounded(adapter, up, kind), ((0, -len(up) % _BLOCK), (0, 0)))
    blocks = up.reshape(-1, _BLOCK, up.shape[1]).transpose(0, 2, 1)
    places, vectors, front = np.zeros((len(blocks), 3), np.int32), [], 0
    for place, block in zip(places, blocks):
        used = np.flatnonzero(block.any(1))
        if len(used):
            first, last = used[0], used[-1] + 1
            place[:] = first, last - first, front
            vectors.append(block[first:last])
            front += last - first
    vectors.append(np.zeros((1, _BLOCK), up.dtype))   # where there is none
    return np.ascontiguousarray(np.concatenate(vectors)), places


def _rounded(adapter: Adapter, values: np.ndarray, kind: str) -> np.ndarray:
    with np.errstate(over='ignore'):
        rounded = values.astype(_DTYPES[kind])
    if not np.isfinite(rounded).all():
        raise ValueError(f'the adapter {adapter.name} has numbers beyond those of 16 bits: use '
                         "weights 'fp32'")
    return rounded
