# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which runner a model gets on this machine, in which weights, and how it is built."""

from collections.abc import Callable
from dataclasses import dataclass
import logging
from pathlib import Path

import numpy as np
from slice_ros.engine.checkpoints.stored_weights import KEPT
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.config import EngineConfig
from slice_ros.engine.kv import memory
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.models.architecture import Architecture
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.cuda.failure import cuda_refusal
from slice_ros.engine.runners.cuda.gpu_linear import (
    IntegerKernelError, make_gpu_embedding, make_gpu_linear, sixteen_bits)
from slice_ros.engine.runners.cuda.graph_runner import gpu_runner
from slice_ros.engine.runners.native import Library, load_library, native_runner
from slice_ros.engine.runners.runner import Runner
from slice_ros.engine.runners.torch.linear import DTYPES, fp16_kernels
from slice_ros.engine.runners.torch.torch_runner import TorchRunner
from slice_ros.engine.runners.torch.weights import build_weights, DecoderWeights
from slice_ros.engine.runners.transformers import TransformersRunner
from slice_ros.errors import ModelError
import torch
from transformers import PreTrainedConfig

logger = logging.getLogger(__name__)

# What torch says on a machine without a GPU, or where it is hidden on purpose.
_NO_GPU = ('no NVIDIA driver', 'No CUDA GPUs')


def choose_device(wanted: str) -> torch.device:
    """Return the device for 'auto', 'cpu' or 'cuda'. Raises ``ModelError`` without CUDA.

    Where 'auto' becomes a CPU although a driver is there that torch cannot use, the log says so.
    """
    if wanted == 'cpu' or torch.cuda.is_available():
        return torch.device('cpu' if wanted == 'cpu' else 'cuda')
    refusal = cuda_refusal()
    if wanted == 'cuda':
        raise ModelError("device 'cuda' was asked for, but this torch finds no CUDA device "
                         f"({refusal}): use 'cpu' or 'auto', or install what is missing")
    if torch.version.cuda is not None and not any(said in refusal for said in _NO_GPU):
        logger.warning('the model runs on the CPU, because torch cannot use the GPU: %s', refusal)
    return torch.device('cpu')


def choose_weights(wanted: str, device: torch.device) -> str:
    """Return the format of the weights; for 'auto' the quickest 16 bits, else fp32."""
    if wanted != 'auto':
        return wanted
    if device.type == 'cuda':
        return sixteen_bits(device)
    return 'fp16' if fp16_kernels() or load_library()[0] is not None else 'fp32'


def keeps_codes(device: torch.device) -> bool:
    """Return whether weights can stay in the integer formats of a file."""
    return device.type == 'cuda' or load_library()[0] is not None


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """What a runner is built from."""

    path: Path                # of the model, for error sentences
    model: PreTrainedConfig
    made: Architecture | str  # or why the flat batch cannot run the model
    tensors: Tensors
    weights: str              # fp16 | bf16 | fp32 | int8 | int4
    device: torch.device
    max_context: int          # tokens of one request
    table: np.ndarray         # page table, int32 [slots, pages of a slot]
    config: EngineConfig      # slots, max_batch, memory_fraction
    keep: bool = False        # codes of the file instead of `weights`, which floats have


def build_runner(spec: RunnerSpec, progress: Callable[[float], None]) -> Runner:
    """Return the runner of a model: the flat batch, or transformers where that cannot run it.

    `progress` is called with the share of the weights that is loaded, from 0 to 1. Raises
    ``ModelError`` with what to change.
    """
    why_not = spec.made
    if isinstance(why_not, Architecture):
        return _flat_batch(spec, progress)
    if spec.weights in ('int8', 'int4'):
        raise ModelError(f"weights '{spec.weights}' need the flat batch, which cannot run "
                         f"{spec.path} ({why_not}): use 'auto'")
    logger.warning('%s: the flat batch cannot run this model (%s); it runs through '
                   'transformers, one request after the other', spec.path, why_not)
    return TransformersRunner.load(spec.path, spec.model, spec.weights, spec.device,
                                   len(spec.table), spec.config.slots * spec.table.shape[1],
                                   len(spec.tensors))


def _flat_batch(spec: RunnerSpec, progress: Callable[[float], None]) -> Runner:
    weights, cpu = spec.weights, spec.device.type == 'cpu'
    library, sentence = load_library() if cpu else (None, 'torch path on CUDA')
    if library is not None:
        why_not = native_runner.unsupported(spec.made, weights)
        if why_not is not None:
            library, sentence = None, f'torch path: the native kernels cannot run {why_not}'
    logger.info(sentence)
    if not cpu:
        return _on_gpu(spec, progress)
    if library is not None:
        return _native(spec, library, progress)
    if weights in ('int8', 'int4'):
        raise ModelError(f"weights '{weights}' need the native kernels, which this machine or "
                         f"model has not ({sentence}): use 'auto'")
    if weights == 'fp16' and not fp16_kernels():
        raise ModelError("weights 'fp16' need the native kernels or torch's fbgemm on CPU, and "
                         "this machine has neither: use 'auto', 'bf16' or 'fp32'")
    pages = _pages(spec, torch.float32)
    loaded = build_weights(spec.made, ModelTensors(spec.made, spec.tensors), weights, weights,
                           spec.device, spec.max_context, progress)
    return TorchRunner(loaded, _kv_cache(spec, loaded, pages, torch.float32))


def _native(spec: RunnerSpec, library: Library, progress: Callable[[float], None]) -> Runner:
    weights = KEPT if spec.keep else spec.weights
    pages = _pages(spec, torch.float32 if weights == 'fp32' else torch.float16)
    try:
        return native_runner.NativeRunner(spec.made, ModelTensors(spec.made, spec.tensors),
                                          weights, library, spec.table, pages,
                                          spec.max_context, progress, spec.config.isa)
    except ValueError as error:
        raise ModelError(f'{spec.path}: {error}') from error


def _on_gpu(spec: RunnerSpec, progress: Callable[[float], None]) -> Runner:
    floats = spec.weights if spec.weights in DTYPES else sixteen_bits(spec.device)
    dtype = DTYPES[floats]
    try:
        loaded = _weights_on_gpu(spec, floats, progress)
        # Memory is counted behind the weights: they are on the GPU already.
        cache = _kv_cache(spec, loaded, _pages(spec, dtype), dtype)
        return gpu_runner(loaded, cache, min(spec.config.max_batch, spec.config.slots))
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f'the memory of the GPU cannot hold {spec.path} with its KV cache ({error}): '
            'use fewer slots, a shorter max_context or a smaller model') from error


def _weights_on_gpu(spec: RunnerSpec, floats: str, progress: Callable[[float], None]
                    ) -> DecoderWeights:
    tensors = ModelTensors(spec.made, spec.tensors)

    def build(weights: str) -> DecoderWeights:
        return build_weights(spec.made, tensors, weights, floats, spec.device, spec.max_context,
                             progress, make_gpu_linear, make_gpu_embedding)
    if spec.keep:
        try:
            return build(KEPT)
        except IntegerKernelError as error:
            logger.warning('the weights of %s take 16 bits each: %s', spec.path, error)
            return build(floats)
    return build(spec.weights)


def _pages(spec: RunnerSpec, dtype: torch.dtype) -> int:
    """Return how many pages of keys and values in `dtype` the free memory has room for."""
    made = spec.made
    page_bytes = (2 * len(made.layers) * made.kv_heads * made.head_dim * dtype.itemsize
                  * PAGE_TOKENS)
    return memory.kv_pages(spec.path, spec.tensors.nbytes, spec.device, page_bytes,
                           spec.max_context, spec.config)


def _kv_cache(spec: RunnerSpec, loaded: DecoderWeights, pages: int, dtype: torch.dtype
              ) -> KvCache:
    made = loaded.made
    return KvCache(len(made.layers), spec.table, pages, made.kv_heads, made.head_dim, dtype,
                   spec.device)
