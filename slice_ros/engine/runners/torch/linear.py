# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers by weight format. Each is a function from [tokens, in] to [tokens, out]."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

Linear = Callable[[torch.Tensor], torch.Tensor]
# (weight [out, in], bias [out] or None, format of the weights, device) -> linear layer
MakeLinear = Callable[[torch.Tensor, torch.Tensor | None, str, torch.device], Linear]


def fp16_kernels() -> bool:
    """Return whether this build of torch has fbgemm's linears with fp16 weights (x86-64 only)."""
    return 'fbgemm' in torch.backends.quantized.supported_engines


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None, weights: str,
                device: torch.device) -> Linear:
    """Return the linear layer of `weight` [out, in] and `bias` [out].

    `weights` is 'fp16', 'bf16' or 'fp32'. fp16 on CPU keeps weights in 16 bits and computes in
    float32; the result of a token does not depend on the other tokens, bit for bit. The others
    are torch's own, in the type of the weights. On CPU all return float32, else the type they
    compute in.
    """
    if weights == 'fp16' and device.type == 'cpu':
        packed = torch.ops.quantized.linear_prepack_fp16(
            weight.float(), None if bias is None else bias.float())
        run = torch.ops.quantized.linear_dynamic_fp16.default
        return lambda x: run(x, packed)
    dtype = {'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32}[weights]
    weight = weight.to(device, dtype)
    bias = None if bias is None else bias.to(device, dtype)
    if device.type == 'cpu' and dtype != torch.float32:
        return lambda x: F.linear(x.to(dtype), weight, bias).float()
    return lambda x: F.linear(x.to(dtype), weight, bias)
