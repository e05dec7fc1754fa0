# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers by weight format. Each is a function from [tokens, in] to [tokens, out]."""

from collections.abc import Callable

from slice_ros.errors import ModelError
import torch
from torch.nn import functional as F

Linear = Callable[[torch.Tensor], torch.Tensor]


def fp16_kernels() -> bool:
    """Whether this build of torch has fbgemm's linears with fp16 weights (x86-64 only)."""
    return 'fbgemm' in torch.backends.quantized.supported_engines


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None, weights: str,
                device: torch.device) -> Linear:
    """Return the linear layer of `weight` [out, in] and `bias` [out].

    fp16 on CPU keeps weights in 16 bits and computes in float32; a row's result does not depend
    on the other rows, bit for bit. The others are torch's own, in the weights' type; on CPU they
    return float32, else what they compute in. Norms and residuals are float32 everywhere. int8 is
    for a GPU. Raises ``ModelError`` when this one cannot run it.
    """
    if weights == 'int8':
        return _int8_linear(weight, bias, device)
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


def _int8_linear(weight: torch.Tensor, bias: torch.Tensor | None, device: torch.device) -> Linear:
    try:
        from slice_ros.engine.runners.cuda.int8_linear import \
            int8_linear  # here: Triton need not be installed
        return int8_linear(weight, bias, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no Triton, no compiler for its launcher, a GPU too old
        raise ModelError(f"weights 'int8' do not run on this GPU ({error}): use 'auto'") from error
