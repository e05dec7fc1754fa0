# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers by weight format. Each is a function from [tokens, in] to [tokens, out]."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from slice_ros.engine.checkpoints.stored_weights import Codes
import torch
from torch.nn import functional as F

Part = torch.Tensor | Codes  # weights [out, in]
# fbgemm's AVX2 kernels for one or two rows add in another order than those for more: with a
# multiple of three, none is left over for them.
_ROWS = 3
DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32}


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer and what its weights take."""

    run: Callable[[torch.Tensor], torch.Tensor]
    kind: str    # of its weights: fp16 | bf16 | fp32 | int8 | int4
    nbytes: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


class Embedding(Protocol):
    """Rows [tokens, hidden] by token ids [tokens]: a tensor [vocab, hidden], or what acts so."""

    device: torch.device
    dtype: torch.dtype   # of the rows
    nbytes: int

    def __getitem__(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of `ids`."""


# (weights [out, in] to be joined, bias [out] or None, format, device) -> linear layer
MakeLinear = Callable[[Sequence[Part], torch.Tensor | None, str, torch.device], Linear]

# (weights [vocab, hidden], format, format of the rows, device) -> embedding, and the same weights
# for a head that is tied to it
MakeEmbedding = Callable[[Part, str, str, torch.device], tuple[Embedding, Part]]


def fp16_kernels() -> bool:
    """Return whether this build of torch has fbgemm's linears with fp16 weights (x86-64 only)."""
    return 'fbgemm' in torch.backends.quantized.supported_engines


def make_linear(parts: Sequence[Part], bias: torch.Tensor | None, weights: str,
                device: torch.device) -> Linear:
    """Return the linear layer whose outputs are those of `parts`, one after the other.

    `weights` is 'fp16', 'bf16' or 'fp32'; `bias` is [out]. fp16 on CPU keeps weights in 16 bits
    and computes in float32; the result of a token does not depend on the other tokens, bit for
    bit. The others are torch's own, in the type of the weights. On CPU all return float32, else
    the type they compute in.
    """
    weight = as_tensor(parts[0]) if len(parts) == 1 else torch.cat([as_tensor(p) for p in parts])
    dtype = DTYPES[weights]
    nbytes = weight.numel() * dtype.itemsize
    if weights == 'fp16' and device.type == 'cpu':
        packed = torch.ops.quantized.linear_prepack_fp16(
            weight.float(), None if bias is None else bias.float())
        return Linear(partial(_run_fp16, packed), weights, nbytes)
    weight = weight.to(device, dtype)
    bias = None if bias is None else bias.to(device, dtype)
    if device.type == 'cpu' and dtype != torch.float32:
        return Linear(lambda x: F.linear(x.to(dtype), weight, bias).float(), weights, nbytes)
    return Linear(lambda x: F.linear(x.to(dtype), weight, bias), weights, nbytes)


def _run_fp16(packed: torch.ScriptObject, x: torch.Tensor) -> torch.Tensor:
    """Return the outputs of x [tokens, in], each of which is the same in any company."""
    rest = -len(x) % _ROWS
    filled = F.pad(x, (0, 0, 0, rest)) if rest else x
    return torch.ops.quantized.linear_dynamic_fp16(filled, packed)[:len(x)]


def make_embedding(part: Part, weights: str, floats: str, device: torch.device
                   ) -> tuple[Embedding, Part]:
    """Return an embedding in `floats`, and the same weights for a head that is tied to it."""
    # A copy: a view would keep the whole file that it was read from in memory.
    embedding = as_tensor(part).to(device, DTYPES[floats], copy=True)
    return embedding, embedding


def as_tensor(part: Part) -> torch.Tensor:
    """Return weights as floats."""
    return torch.from_numpy(part.floats()) if isinstance(part, Codes) else part
