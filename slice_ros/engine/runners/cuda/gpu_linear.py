# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers and embeddings on a GPU: those of torch, and of 4 and 8 bits in Triton."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from slice_ros.engine.checkpoints.stored_weights import GROUP, joint_kind, KEPT
from slice_ros.engine.runners.cuda.group_codes import group_codes, GroupCodes
from slice_ros.engine.runners.torch.linear import (
    DTYPES, Embedding, Linear, make_embedding, make_linear, Part)
from slice_ros.errors import ModelError, one_line
import torch

_INTEGERS = ('int8', 'int4')


class IntegerKernelError(ModelError):
    """The Triton kernels for weights of 4 or 8 bits do not run on this GPU."""


def sixteen_bits(device: torch.device) -> str:
    """Return the 16-bit floats to compute in: bf16, whose range is that of float32, if it can."""
    # GPUs before Ampere emulate bf16: slowly, and not in Triton.
    return 'bf16' if device.type == 'cuda' and torch.cuda.is_bf16_supported(
        including_emulation=False) else 'fp16'


def make_gpu_linear(parts: Sequence[Part], bias: torch.Tensor | None, weights: str,
                    device: torch.device) -> Linear:
    """Return the linear layer whose outputs are those of `parts`, one after the other.

    As `torch.linear.make_linear`, with 'int8', 'int4' and `KEPT` beside its formats. Where the
    inputs of a matrix are no multiple of 32, it has 16 bits instead. Raises
    ``IntegerKernelError`` when the GPU cannot run it, ``ModelError`` for damaged weights.
    """
    floats = sixteen_bits(device)
    kind = _kind(parts, weights, floats)
    if kind not in _INTEGERS:
        return make_linear(parts, bias, kind, device)
    with _naming(kind, floats):
        # Imported here: Triton need not be installed.
        from slice_ros.engine.runners.cuda.group_linear import group_linear
        codes = parts[0] if isinstance(parts[0], GroupCodes) else group_codes(parts, kind, device)
        return Linear(group_linear(codes, bias, DTYPES[floats]), kind, codes.nbytes)


def make_gpu_embedding(part: Part, weights: str, floats: str, device: torch.device
                       ) -> tuple[Embedding, Part | GroupCodes]:
    """Return an embedding, and the same weights for a head that is tied to it.

    Formats and errors are those of `make_gpu_linear`; `floats` is that of the rows.
    """
    kind = _kind([part], weights, floats)
    if kind not in _INTEGERS:
        return make_embedding(part, kind, floats, device)
    with _naming(kind, floats):
        from slice_ros.engine.runners.cuda.group_linear import GroupEmbedding
        codes = group_codes([part], kind, device)
        return GroupEmbedding(codes, DTYPES[floats]), codes


def _kind(parts: Sequence[Part], weights: str, floats: str) -> str:
    """Return the format in which `weights` has a matrix."""
    kind = joint_kind(parts) or floats if weights == KEPT else weights
    return floats if kind in _INTEGERS and parts[0].shape[1] % GROUP else kind


@contextmanager
def _naming(kind: str, floats: str) -> Iterator[None]:
    """Turn errors of Triton into an ``IntegerKernelError`` with what to use instead."""
    try:
        yield
    except (torch.OutOfMemoryError, ModelError):
        raise
    except Exception as error:  # no Triton, no compiler for its launcher, a GPU too old
        raise IntegerKernelError(f"weights '{kind}' do not run on this GPU ({one_line(error)}): "
                                 f"use '{floats}'") from error
