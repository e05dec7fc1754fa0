# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Packing weights for the kernels, from floats or from the codes of a GGUF file."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from slice_ros.engine.checkpoints.stored_weights import (
    as_floats, Bfloats, Codes, joint_kind, KEPT, Rows)
from slice_ros.engine.runners.native.arena import Arena
from slice_ros.engine.runners.native.library import Library, Matrix

KINDS = {'fp32': 0, 'fp16': 1, 'bf16': 2, 'int8': 3, 'int4': 4}
_BLOCK = 16
_PAIR = 2 * _BLOCK  # outputs of a block of `gate` and one of `up`
_PIECE = 1 << 20  # weights packed at a time: a whole matrix in float32 may take gigabytes


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed matrix and the memory that it points to."""

    matrix: Matrix
    data: np.ndarray
    bias: np.ndarray | None
    kind: str

    @property
    def nbytes(self) -> int:
        return self.data.nbytes


def pack(library: Library, kind: str, parts: Sequence[Rows], bias: np.ndarray | None = None,
         arena: Arena | None = None, workers: ThreadPoolExecutor | None = None) -> Packed:
    """Return the matrix of `kind` whose outputs are those of `parts`, one after the other.

    `kind` is one of `KINDS`, or `KEPT`: that of the codes of all parts (`joint_kind`), or fp16.
    Codes of that kind are copied exactly; everything else is converted through float32. Both
    happen in pieces, by `workers` several at a time. Raises ``ValueError`` when the parts do not
    fit each other or have numbers that are not finite.
    """
    if kind == KEPT:
        kind = joint_kind(parts) or 'fp16'
    if kind not in KINDS:
        raise ValueError(f'weights {kind!r} are none of {", ".join(KINDS)}')
    inputs = parts[0].shape[1]
    outputs = sum(part.shape[0] for part in parts)
    if any(part.shape[1] != inputs for part in parts):
        raise ValueError(f'matrices with {sorted({p.shape[1] for p in parts})} inputs cannot be '
                         'joined')
    if bias is not None:
        bias = np.ascontiguousarray(bias, np.float32)
        if bias.shape != (outputs,):
            raise ValueError(f'a bias of shape {bias.shape} for {outputs} outputs')
    nbytes = library.slice_packed_bytes(KINDS[kind], outputs, inputs)
    data = (arena or Arena(nbytes)).take(nbytes)
    block = library.slice_packed_bytes(KINDS[kind], _BLOCK, inputs)
    step = max(_PIECE // inputs // _PAIR, 1) * _PAIR

    def pack_from(first: int) -> int:
        piece, to = _cut(parts, first, first + step), data.ctypes.data + first // _BLOCK * block
        return _pack_piece(library, kind, piece, inputs, to)
    if any((workers.map if workers else map)(pack_from, range(0, outputs, step))):
        raise ValueError(f'a matrix of {outputs} by {inputs} cannot be packed as {kind}')
    matrix = Matrix(data.ctypes.data, None if bias is None else bias.ctypes.data, KINDS[kind],
                    outputs, inputs)
    return Packed(matrix, data, bias, kind)


def _cut(parts: Sequence[Rows], first: int, last: int) -> list[Rows]:
    """Return rows [first, last) of `parts`, one after the other."""
    cut = []
    for part in parts:
        if last > 0 and first < part.shape[0]:
            cut.append(_take(part, slice(max(first, 0), last)))
        first, last = first - part.shape[0], last - part.shape[0]
    return cut


def _pack_piece(library: Library, kind: str, piece: Sequence[Rows], inputs: int, to: int) -> int:
    if all(isinstance(part, Codes) and part.kind == kind for part in piece):
        codes = _joined([part.codes for part in piece])
        scales = _joined([part.scales for part in piece])
        minimums = None if kind == 'int8' else _joined([part.minimums for part in piece])
        _check_finite(scales, minimums)
        return library.slice_pack_codes(
            KINDS[kind], len(codes), inputs, codes.ctypes.data, scales.ctypes.data,
            None if minimums is None else minimums.ctypes.data, to)
    floats = _joined([as_floats(part) for part in piece])
    _check_finite(floats)
    return library.slice_pack_floats(KINDS[kind], len(floats), inputs, floats.ctypes.data, to)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if len(arrays) > 1 else np.ascontiguousarray(arrays[0])


class Interleaved:
    """Weights [outputs, inputs]: 16 outputs of `gate`, the same 16 of `up`, the next of `gate` ...

    The kernel multiplies the two as soon as it has computed them. Missing outputs are zeros.
    """

    def __init__(self, gate: Rows, up: Rows) -> None:
        if gate.shape != up.shape:
            raise ValueError(f'gate {gate.shape} and up {up.shape} differ in shape')
        self._gate, self._up = gate, up
        # Of `Codes`; None for floats.
        self.kind = None if gate.shape[0] % _BLOCK else joint_kind((gate, up))
        self.shape = (-(-gate.shape[0] // _BLOCK) * _PAIR, gate.shape[1])

    def rows(self, order: slice) -> np.ndarray | Codes | Bfloats:
        """Return neighbouring rows; `order` must select whole pairs of blocks."""
        first, last, _ = order.indices(self.shape[0])
        half = slice(first // 2, last // 2)
        return _interleaved(_take(self._gate, half), _take(self._up, half))


def _interleaved(gate: Rows, up: Rows) -> np.ndarray | Codes | Bfloats:
    if isinstance(gate, Codes) and isinstance(up, Codes) and gate.kind == up.kind \
            and gate.shape[0] % _BLOCK == 0:
        def mix(a, b):
            return None if a is None else _mix(a, b)
        return Codes(gate.kind, mix(gate.codes, up.codes), mix(gate.scales, up.scales),
                     mix(gate.minimums, up.minimums))
    if isinstance(gate, Bfloats) and isinstance(up, Bfloats) and gate.shape[0] % _BLOCK == 0:
        return Bfloats(_mix(gate.bits, up.bits))
    if isinstance(gate, (Codes, Bfloats)) or isinstance(up, (Codes, Bfloats)):
        gate, up = as_floats(gate), as_floats(up)
    missing = -len(gate) % _BLOCK
    if missing:
        padding = ((0, missing), (0, 0))
        gate, up = np.pad(gate, padding), np.pad(up, padding)
    return _mix(gate, up)


def _mix(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    blocks = (len(gate) // _BLOCK, 1, _BLOCK, -1)
    both = np.concatenate((gate.reshape(blocks), up.reshape(blocks)), 1)
    return both.reshape(2 * len(gate), -1)


def _take(rows: Rows, order: np.ndarray | slice) -> Rows:
    return rows[order] if isinstance(rows, np.ndarray) else rows.rows(order)


def _check_finite(*arrays: np.ndarray | None) -> None:
    if not all(np.isfinite(array).all() for array in arrays if array is not None):
        raise ValueError('the weights hold numbers that are not finite: the file is damaged')
