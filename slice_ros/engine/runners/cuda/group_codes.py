# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of 4 or 8 bits on a GPU: from the codes of a file, or rounded from floats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from slice_ros.engine.checkpoints.stored_weights import Codes, GROUP
from slice_ros.engine.runners.torch.linear import Part
from slice_ros.errors import ModelError
import torch

_AT_ONCE = 1 << 24  # weights that are converted together, in float32


@dataclass(frozen=True, slots=True)
class GroupCodes:
    """Weights [outputs, inputs] of `kind`: codes with a scale for each group of 32 inputs.

    The value is ``scale * code + minimum``. Number i of the 8 of a group in int4 has the codes of
    inputs i, i + 8, i + 16 and i + 24, from the lowest bits on.
    """

    kind: str                      # 'int8' | 'int4'
    codes: torch.Tensor            # int8 [outputs, groups, 32], or int16 [outputs, groups, 8]
    scales: torch.Tensor           # float16 [groups, outputs]
    minimums: torch.Tensor | None  # the same; None = 0

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1] * GROUP

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.codes, self.scales, self.minimums) if t is not None)

    def first(self, outputs: int) -> 'GroupCodes':
        """Return the weights of the first outputs."""
        if outputs == len(self.codes):
            return self
        scales, minimums = (None if t is None else t[:, :outputs].contiguous()
                            for t in (self.scales, self.minimums))
        return GroupCodes(self.kind, self.codes[:outputs], scales, minimums)


def group_codes(parts: Sequence[Part], kind: str, device: torch.device) -> GroupCodes:
    """Return the matrix whose outputs are those of `parts`, one after the other.

    Codes stay as they are, 4 bit ones in 8 bits too; floats are rounded, and so are codes of 8
    bits for int4. The inputs must be a multiple of 32. Raises ``ModelError`` for numbers that are
    not finite.
    """
    outputs, inputs = sum(part.shape[0] for part in parts), parts[0].shape[1]
    groups = inputs // GROUP
    codes = torch.empty(outputs, groups, GROUP // 4 if kind == 'int4' else GROUP, device=device,
                        dtype=torch.int16 if kind == 'int4' else torch.int8)
    scales = torch.empty(groups, outputs, dtype=torch.float16, device=device)
    minimums = None
    if kind == 'int4' or any(isinstance(p, Codes) and p.kind == 'int4' for p in parts):
        minimums = torch.zeros_like(scales)
    to, step = 0, max(_AT_ONCE // inputs, 1)
    for part in parts:
        convert = _conversion(part, kind)
        for first in range(0, part.shape[0], step):
            rows = slice(first, min(first + step, part.shape[0]))
            into = slice(to + rows.start, to + rows.stop)
            found, scale, minimum = convert(part, rows, device)
            codes[into] = _packed(found) if kind == 'int4' else found
            scales[:, into] = scale.t()
            if minimum is not None:
                minimums[:, into] = minimum.t()
        to += part.shape[0]
    if not all(bool(t.isfinite().all()) for t in (scales, minimums) if t is not None):
        raise ModelError('the weights hold numbers that are not finite: the file is damaged')
    return GroupCodes(kind, codes, scales, minimums)


def _packed(codes: torch.Tensor) -> torch.Tensor:
    """Return the codes [rows, groups, 32] below 16 as `GroupCodes` has them in int4."""
    first, second, third, fourth = codes.to(torch.int32).view(*codes.shape[:2], 4, -1).unbind(2)
    return (first | second << 4 | third << 8 | fourth << 12).to(torch.int16)


# A conversion returns the codes [rows, groups, 32], scales and minimums [rows, groups] of rows.
_Converted = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def _conversion(part: Part, kind: str) -> Callable[[Part, slice, torch.device], _Converted]:
    if isinstance(part, Codes) and (kind == 'int8' or part.kind == 'int4'):
        return _kept
    return _to_int8 if kind == 'int8' else _to_int4


def _kept(part: Codes, rows: slice, device: torch.device) -> _Converted:
    part = part.rows(rows)
    codes, scales, minimums = (None if array is None else torch.from_numpy(
        np.ascontiguousarray(array)).to(device)
        for array in (part.codes, part.scales, part.minimums))
    if part.kind == 'int8':
        codes = (codes ^ 128).view(torch.int8)
    return codes.view(len(codes), -1, GROUP), scales, minimums


def _to_int8(part: Part, rows: slice, device: torch.device) -> _Converted:
    values = _floats(part, rows, device)
    scales = (values.abs().amax(-1) / 127).half()
    steps = scales.float().clamp_(min=torch.finfo(torch.float16).tiny)
    return (values / steps[..., None]).round_().clamp_(-127, 127), scales, None


def _to_int4(part: Part, rows: slice, device: torch.device) -> _Converted:
    values = _floats(part, rows, device)
    low, high = values.aminmax(dim=-1)
    scales, minimums = ((high - low) / 15).half(), low.half()
    steps = scales.float().clamp_(min=torch.finfo(torch.float16).tiny)
    codes = (values - minimums.float()[..., None]) / steps[..., None]
    return codes.round_().clamp_(0, 15).byte(), scales, minimums


def _floats(part: Part, rows: slice, device: torch.device) -> torch.Tensor:
    """Return rows of weights as float32 [rows, groups, 32]."""
    part = torch.from_numpy(part.rows(rows).floats()) if isinstance(part, Codes) else part[rows]
    return part.to(device, torch.float32).reshape(len(part), -1, GROUP)
