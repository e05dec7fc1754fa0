# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Weights as files store them: integer codes with scales, bfloat16, or rows still on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Formats that are used without loss: the kind of weights, and the bytes of a block of 32.
GGUF_FORMATS = {'Q4_0': ('int4', 18), 'Q4_1': ('int4', 20), 'Q8_0': ('int8', 34)}
GROUP = 32  # inputs that share a scale
KEPT = 'kept'  # as a format of weights: each matrix in the kind of its codes, floats in 16 bits


@dataclass(frozen=True, slots=True)
class Codes:
    """Weights [outputs, inputs] as integers with a scale for each group of 32 inputs.

    The value is ``scale * (code - 128)`` for int8 and ``scale * code + minimum`` for int4.
    """

    kind: str                    # 'int8' | 'int4'
    codes: np.ndarray            # uint8 [outputs, inputs]
    scales: np.ndarray           # float16 [outputs, inputs / 32]
    minimums: np.ndarray | None  # the same for int4

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape

    def rows(self, order: np.ndarray | slice) -> 'Codes':
        """Return the rows `order` names, in its order."""
        minimums = None if self.minimums is None else self.minimums[order]
        return Codes(self.kind, self.codes[order], self.scales[order], minimums)

    def columns(self, order: np.ndarray) -> 'Codes':
        """Return the columns `order` names, in its order: whole groups of 32."""
        groups = order[::GROUP] // GROUP
        minimums = None if self.minimums is None else self.minimums[:, groups]
        return Codes(self.kind, self.codes[:, order], self.scales[:, groups], minimums)

    def floats(self) -> np.ndarray:
        """Return the weights as float32."""
        groups = self.codes.reshape(len(self.codes), -1, GROUP).astype(np.float32)
        if self.kind == 'int8':
            groups -= 128
        groups *= self.scales[..., None].astype(np.float32)
        if self.minimums is not None:
            groups += self.minimums[..., None].astype(np.float32)
        return groups.reshape(self.codes.shape)

    @classmethod
    def from_gguf(cls, data: np.ndarray, type_name: str) -> 'Codes | None':
        """Return the weights of a GGUF tensor, uint8 [outputs, bytes], without loss.

        None for a format that is not in `GGUF_FORMATS`.
        """
        if type_name not in GGUF_FORMATS:
            return None
        _, size = GGUF_FORMATS[type_name]
        head = 4 if type_name == 'Q4_1' else 2
        blocks = np.ascontiguousarray(data).reshape(len(data), -1, size)
        scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0]
        body = blocks[..., head:]
        if type_name == 'Q8_0':
            return cls('int8', (body ^ 0x80).reshape(len(data), -1), scales, None)
        codes = np.concatenate((body & 15, body >> 4), -1).reshape(len(data), -1)
        if type_name == 'Q4_1':
            minimums = np.ascontiguousarray(blocks[..., 2:4]).view(np.float16)[..., 0]
        else:
            minimums = scales * np.float16(-8)
        return cls('int4', codes, scales, minimums)


@dataclass(frozen=True, slots=True)
class Bfloats:
    """Weights [outputs, inputs] in bfloat16, which numpy does not have."""

    bits: np.ndarray  # uint16

    @property
    def shape(self) -> tuple[int, int]:
        return self.bits.shape

    def rows(self, order: np.ndarray | slice) -> 'Bfloats':
        """Return the rows `order` names, in its order."""
        return Bfloats(self.bits[order])

    def floats(self) -> np.ndarray:
        """Return the weights as float32."""
        return (self.bits.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Weights [outputs, inputs] in a file; `read(first, last)` reads rows [first, last)."""

    shape: tuple[int, int]
    kind: str | None  # of `Codes`; None for floats
    read: Callable[[int, int], np.ndarray | Codes | Bfloats]

    def rows(self, order: slice) -> np.ndarray | Codes | Bfloats:
        """Return neighbouring rows."""
        first, last, _ = order.indices(self.shape[0])
        return self.read(first, last)


Rows = np.ndarray | Codes | Bfloats | StoredRows  # weights [outputs, inputs]


def as_floats(rows: np.ndarray | Codes | Bfloats) -> np.ndarray:
    """Return weights that were read as float32."""
    return np.asarray(rows, np.float32) if isinstance(rows, np.ndarray) else rows.floats()


def joint_kind(parts: Sequence[object]) -> str | None:
    """Return the kind of codes that keeps all parts, the one with more bits; None for floats."""
    kinds = {getattr(part, 'kind', None) for part in parts}
    return None if None in kinds else 'int8' if len(kinds) > 1 else kinds.pop()
