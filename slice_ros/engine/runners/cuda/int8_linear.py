# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers with int8 weights and 16-bit activations on a GPU: half the bytes of a step.

One scale for each output. For few tokens a kernel converts the weights as it reads them. For
many, as in a prefill, the weights are converted once, and torch multiplies.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F
import triton
import triton.language as tl

DTYPE = torch.float16  # of activations
_FEW = 64              # tokens: above, the product costs more than reading the weights
_ROWS, _COLUMNS, _INNER = 16, 16, 512
_TOLERANCE = 0.01      # relative, between both ways
_AT_ONCE = 4096        # outputs that are rounded together, in float32


@triton.jit(do_not_specialize=['rows'])
def _multiply(x, weight, scale, bias, out, rows, columns, inner, BIAS: tl.constexpr,
              ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr):
    # Program (block of columns, block of rows) of the result.
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    mine, wanted = column < columns, row < rows
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    left = x + row.to(tl.int64)[:, None] * inner
    right = weight + column.to(tl.int64)[None, :] * inner
    for first in range(0, inner, INNER):
        at = first + tl.arange(0, INNER)
        a = tl.load(left + at[None, :], mask=wanted[:, None] & (at < inner)[None, :], other=0.0)
        b = tl.load(right + at[:, None], mask=mine[None, :] & (at < inner)[:, None], other=0)
        total += tl.dot(a, b.to(a.dtype))
    total *= tl.load(scale + column, mask=mine, other=0.0)[None, :]
    if BIAS:
        total += tl.load(bias + column, mask=mine, other=0.0)[None, :]
    tl.store(out + row.to(tl.int64)[:, None] * columns + column[None, :],
             total.to(out.dtype.element_ty), mask=wanted[:, None] & mine[None, :])


def int8_linear(weight: torch.Tensor, bias: torch.Tensor | None, device: torch.device
                ) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the linear layer of `weight` [out, in], rounded to int8, and `bias` [out].

    Raises ``ValueError`` when the kernel and torch give different results.
    """
    codes = torch.empty(weight.shape, dtype=torch.int8, device=device)
    scale = torch.empty(len(weight), device=device)
    for first in range(0, len(weight), _AT_ONCE):
        part = weight[first:first + _AT_ONCE].to(device, torch.float32)
        scale[first:first + _AT_ONCE] = part.abs().amax(1).clamp_(min=1e-10) / 127
        codes[first:first + _AT_ONCE] = (part / scale[first:first + _AT_ONCE, None]).round_()
    bias = None if bias is None else bias.to(device, torch.float32)
    columns, inner = codes.shape

    def few(x: torch.Tensor) -> torch.Tensor:
        out = x.new_empty(len(x), columns)
        _multiply[(triton.cdiv(columns, _COLUMNS), triton.cdiv(len(x), _ROWS))](
            x, codes, scale, scale if bias is None else bias, out, len(x), columns, inner,
            BIAS=bias is not None, ROWS=_ROWS, COLUMNS=_COLUMNS, INNER=_INNER)
        return out

    def many(x: torch.Tensor) -> torch.Tensor:
        wide = codes.to(DTYPE).mul_(scale[:, None])
        return F.linear(x, wide, None if bias is None else bias.to(DTYPE))

    x = torch.sin(torch.arange(2 * inner, device=device)).view(2, inner).to(DTYPE)
    wanted, found = many(x).float(), few(x).float()
    if not float((found - wanted).norm()) <= _TOLERANCE * float(wanted.norm()):
        raise ValueError('the int8 kernel gives other numbers than torch')
    return lambda x: (few if len(x) <= _FEW else many)(x.to(DTYPE).contiguous())
