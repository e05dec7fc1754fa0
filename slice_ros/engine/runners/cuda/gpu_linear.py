# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers on a GPU: those of torch, and int8 in Triton."""

from slice_ros.engine.runners.torch import linear
from slice_ros.errors import ModelError
import torch


def make_gpu_linear(weight: torch.Tensor, bias: torch.Tensor | None, weights: str,
                    device: torch.device) -> linear.Linear:
    """Return the linear layer of `weight` [out, in] and `bias` [out].

    As `torch.linear.make_linear`, with int8 beside its formats. Raises ``ModelError`` when the
    GPU cannot run int8.
    """
    if weights != 'int8':
        return linear.make_linear(weight, bias, weights, device)
    try:
        # Imported here: Triton need not be installed.
        from slice_ros.engine.runners.cuda.int8_linear import int8_linear
        return int8_linear(weight, bias, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no Triton, no compiler for its launcher, a GPU too old
        raise ModelError(
            f"weights 'int8' do not run on this GPU ({error}): use 'auto'") from error
