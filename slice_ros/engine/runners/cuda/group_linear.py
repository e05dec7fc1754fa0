# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers with weights of 4 or 8 bits and 16-bit activations on a GPU.

A decode step reads a quarter or half of the bytes. For few tokens a kernel converts the weights
as it reads them. For many, as in a prefill, they are converted once, and torch multiplies.
"""

from collections.abc import Callable
from dataclasses import dataclass

from slice_ros.engine.runners.cuda.group_codes import GroupCodes
import torch
from torch.nn import functional as F
import triton
import triton.language as tl

Product = Callable[[torch.Tensor], torch.Tensor]  # [tokens, inputs] -> [tokens, outputs]
_FEW = 128             # tokens: above, the product costs more than reading the weights
_ROWS, _COLUMNS, _GROUPS = 16, 32, 8
_STAGES = 4            # three tiles of weights are being loaded
_CHECKED = 1024        # outputs that are computed both ways when the model loads
_TOLERANCE = 0.02      # relative, between both ways: the rounding of bfloat16 gives 0.003


@triton.jit
def _weights(codes, part: tl.constexpr, scale, minimum, FOUR: tl.constexpr):
    # Codes of 4 bits without the slow conversion: as the last bits of 128, or of 1024 in float16.
    like: tl.constexpr = scale.dtype
    if not FOUR:
        number = codes.to(like)
    elif like == tl.bfloat16:
        number = (codes >> 4 * part & 15 | 0x4300).to(like, bitcast=True) - 128
    else:
        number = (codes >> 4 * part & 15 | 0x6400).to(like, bitcast=True) - 1024
    return number * scale + minimum


@triton.jit
def _factors(scales, minimums, at, inside, like: tl.constexpr, MINIMUM: tl.constexpr):
    scale = tl.load(scales + at, mask=inside, other=0.0).to(like)[:, :, None]
    if MINIMUM:
        minimum = tl.load(minimums + at, mask=inside, other=0.0).to(like)[:, :, None]
    else:
        minimum = scale * 0
    return scale, minimum


@triton.jit(do_not_specialize=['rows'])
def _multiply(x, codes, scales, minimums, bias, out, rows, columns, groups, FOUR: tl.constexpr,
              MINIMUM: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr,
              COLUMNS: tl.constexpr, GROUPS: tl.constexpr):
    # Program (block of rows, block of columns) of the result. Neighbours read the same weights.
    PARTS: tl.constexpr = 4 if FOUR else 1
    WIDE: tl.constexpr = 32 // PARTS
    like: tl.constexpr = x.dtype.element_ty
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    wanted, mine, at = row < rows, column < columns, tl.arange(0, WIDE)
    left = x + row.to(tl.int64)[:, None, None] * groups * 32 + at[None, None, :]
    right = codes + column.to(tl.int64)[:, None, None] * groups * WIDE + at[None, None, :]
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, groups, GROUPS):
        group = first + tl.arange(0, GROUPS)
        inside = mine[:, None] & (group < groups)[None, :]
        asked = (wanted[:, None] & (group < groups)[None, :])[:, :, None]
        number = group[None, :, None]
        found = tl.load(right + number * WIDE, mask=inside[:, :, None], other=0)
        scale, minimum = _factors(scales, minimums, group[None, :] * columns + column[:, None],
                                  inside, like, MINIMUM)
        for part in tl.static_range(PARTS):
            a = tl.load(left + number * 32 + part * WIDE, mask=asked, other=0.0)
            b = _weights(found, part, scale, minimum, FOUR)
            total = tl.dot(tl.reshape(a, [ROWS, GROUPS * WIDE]),
                           tl.trans(tl.reshape(b, [COLUMNS, GROUPS * WIDE])), total)
    if BIAS:
        total += tl.load(bias + column, mask=mine, other=0.0)[None, :]
    tl.store(out + row.to(tl.int64)[:, None] * columns + column[None, :], total.to(like),
             mask=wanted[:, None] & mine[None, :])


@triton.jit(do_not_specialize=['rows'])
def _widen(codes, scales, minimums, ids, out, rows, columns, groups, FOUR: tl.constexpr,
           MINIMUM: tl.constexpr, CHOSEN: tl.constexpr, COLUMNS: tl.constexpr,
           GROUPS: tl.constexpr):
    # Program (block of groups, block of rows): weights as floats [rows, inputs]: those of the
    # columns `ids`, or of all.
    PARTS: tl.constexpr = 4 if FOUR else 1
    WIDE: tl.constexpr = 32 // PARTS
    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    row = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    column = row
    if CHOSEN:
        column = tl.load(ids + row, mask=row < rows, other=0)
    inside = (row < rows)[:, None] & (group < groups)[None, :]
    cells = (column.to(tl.int64)[:, None] * groups + group[None, :])[:, :, None]
    to = (row.to(tl.int64)[:, None] * groups + group[None, :])[:, :, None] * 32
    at, ours = tl.arange(0, WIDE)[None, None, :], inside[:, :, None]
    found = tl.load(codes + cells * WIDE + at, mask=ours, other=0)
    scale, minimum = _factors(scales, minimums, group[None, :] * columns + column[:, None],
                              inside, out.dtype.element_ty, MINIMUM)
    for part in tl.static_range(PARTS):
        tl.store(out + to + part * WIDE + at, _weights(found, part, scale, minimum, FOUR),
                 mask=ours)


def widened(weight: GroupCodes, dtype: torch.dtype, ids: torch.Tensor | None = None
            ) -> torch.Tensor:
    """Return the weights of all outputs, or of the outputs `ids`, as floats of 16 bits."""
    columns, groups, _ = weight.codes.shape
    rows = columns if ids is None else len(ids)
    out = torch.empty(rows, groups * 32, dtype=dtype, device=weight.codes.device)
    _widen[(triton.cdiv(groups, _GROUPS), triton.cdiv(rows, _COLUMNS))](
        weight.codes, weight.scales, _or_any(weight.minimums, weight.scales),
        _or_any(ids, weight.scales), out, rows, columns, groups, FOUR=weight.kind == 'int4',
        MINIMUM=weight.minimums is not None, CHOSEN=ids is not None, COLUMNS=_COLUMNS,
        GROUPS=_GROUPS)
    return out


@dataclass(frozen=True, slots=True)
class GroupEmbedding:
    """The rows of a matrix by token id, as a tensor [vocab, hidden] of `dtype` would give them."""

    codes: GroupCodes
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        return self.codes.codes.device

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes

    def __getitem__(self, ids: torch.Tensor) -> torch.Tensor:
        return widened(self.codes, self.dtype, ids)


def group_linear(weight: GroupCodes, bias: torch.Tensor | None, dtype: torch.dtype
                 ) -> Product:
    """Return the linear layer of `weight` and `bias` [outputs], which computes in `dtype`.

    `dtype` has 16 bits. Raises ``ValueError`` when the kernel and torch give different results.
    """
    device = weight.codes.device
    bias = None if bias is None else bias.to(device, torch.float32)
    columns, groups, _ = weight.codes.shape

    def few(x: torch.Tensor) -> torch.Tensor:
        out = x.new_empty(len(x), columns)
        _multiply[(triton.cdiv(len(x), _ROWS), triton.cdiv(columns, _COLUMNS))](
            x, weight.codes, weight.scales, _or_any(weight.minimums, weight.scales),
            _or_any(bias, weight.scales), out, len(x), columns, groups,
            FOUR=weight.kind == 'int4', MINIMUM=weight.minimums is not None,
            BIAS=bias is not None, ROWS=_ROWS, COLUMNS=_COLUMNS, GROUPS=_GROUPS,
            num_stages=_STAGES)
        return out

    def many(x: torch.Tensor, outputs: int = columns) -> torch.Tensor:
        return F.linear(x, widened(weight.first(outputs), dtype),
                        None if bias is None else bias[:outputs].to(dtype))

    x = torch.sin(torch.arange(2 * groups * 32, device=device)).view(2, -1).to(dtype)
    outputs = min(columns, _CHECKED)  # the head would take a gigabyte
    check(few(x)[:, :outputs], many(x, outputs))
    return lambda x: (few if len(x) <= _FEW else many)(x.to(dtype).contiguous())


def check(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Raise ``ValueError`` when the kernel and torch give different results."""
    found, wanted = found.float(), wanted.float()
    if not float((found - wanted).norm()) <= _TOLERANCE * float(wanted.norm()):
        raise ValueError('the kernel for integer weights gives other numbers than torch')


def _or_any(tensor: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
    """Return a tensor for an argument that the kernel does not use where it is None."""
    return other if tensor is None else tensor
