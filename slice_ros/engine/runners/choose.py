# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which runner a model gets on this machine, in which weights, and how it is built."""

from collections.abc import Callable
from dataclasses import dataclass
import logging
from pathlib import Path

import numpy as np
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.config import EngineConfig
from slice_ros.engine.kv import memory
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.models.architecture import Architecture
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.cuda.gpu_linear import make_gpu_linear
from slice_ros.engine.runners.cuda.graph_runner import gpu_runner
from slice_ros.engine.runners.native import Library, load_library, native_runner
from slice_ros.engine.runners.native.packing import KEPT
from slice_ros.engine.runners.runner import Runner
from slice_ros.engine.runners.torch.linear import fp16_kernels
from slice_ros.engine.runners.torch.torch_runner import TorchRunner
from slice_ros.engine.runners.torch.weights import build_weights, DecoderWeights
from slice_ros.engine.runners.transformers import TransformersRunner
from slice_ros.errors import ModelError
import torch
from transformers import PreTrainedConfig

logger = logging.getLogger(__name__)


def choose_device(wanted: str) -> torch.device:
    """Return the device for 'auto', 'cpu' or 'cuda'. Raises ``ModelError`` without CUDA."""
    if wanted == 'cuda' and not torch.cuda.is_available():
        raise ModelError("device 'cuda' was asked for, but this torch finds no CUDA device: "
                         "use 'cpu' or 'auto', or install a CUDA build of torch")
    return torch.device('cuda' if wanted == 'cuda' or wanted == 'auto'
                        and torch.cuda.is_available() else 'cpu')


def choose_weights(wanted: str, device: torch.device) -> str:
    """Return the format of the weights; for 'auto' the quickest 16 bits, else fp32."""
    if wanted != 'auto':
        return wanted
    if device.type == 'cuda':
        # GPUs before Ampere emulate bf16: slowly, and not in Triton.
        return 'bf16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'fp16'
    return 'fp16' if fp16_kernels() or load_library()[0] is not None else 'fp32'


def keeps_codes(device: torch.device) -> bool:
    """Return whether weights can stay in the integer formats of a GGUF file."""
    return device.type == 'cpu' and load_library()[0] is not None


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
    keep: bool = False        # in the native kernels, codes of the file instead of `weights`


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
    if not cpu and weights != 'int4':
        return _on_gpu(spec, progress)
    if library is not None:
        return _native(spec, library, progress)
    dtype = torch.float32 if cpu else _kv_dtype(weights)
    pages = _pages(spec, dtype)
    if weights in ('int8', 'int4'):
        raise ModelError(f"weights '{weights}' need the native kernels, which this machine, model "
                         f"or device has not ({sentence}): use 'auto'")
    if weights == 'fp16' and not fp16_kernels():
        raise ModelError("weights 'fp16' need the native kernels or torch's fbgemm on CPU, and "
                         "this machine has neither: use 'auto', 'bf16' or 'fp32'")
    loaded = build_weights(spec.made, ModelTensors(spec.made, spec.tensors), weights, spec.device,
                           spec.max_context, progress)
    return TorchRunner(loaded, _kv_cache(spec, loaded, pages, dtype))


def _native(spec: RunnerSpec, library: Library, progress: Callable[[float], None]) -> Runner:
    weights = KEPT if spec.keep else spec.weights
    pages = _pages(spec, _kv_dtype(weights))
    try:
        return native_runner.NativeRunner(spec.made, ModelTensors(spec.made, spec.tensors),
                                          weights, library, spec.table, pages,
                                          spec.max_context, progress, spec.config.isa)
    except ValueError as error:
        raise ModelError(f'{spec.path}: {error}') from error


def _on_gpu(spec: RunnerSpec, progress: Callable[[float], None]) -> Runner:
    dtype = _kv_dtype(spec.weights)
    try:
        loaded = build_weights(spec.made, ModelTensors(spec.made, spec.tensors), spec.weights,
                               spec.device, spec.max_context, progress, make_gpu_linear)
        # Memory is counted behind the weights: they are on the GPU already.
        cache = _kv_cache(spec, loaded, _pages(spec, dtype), dtype)
        return gpu_runner(loaded, cache, min(spec.config.max_batch, spec.config.slots))
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f'the memory of the GPU cannot hold {spec.path} with its KV cache ({error}): '
            'use fewer slots, a shorter max_context or a smaller model') from error


def _kv_dtype(weights: str) -> torch.dtype:
    return {'fp32': torch.float32, 'bf16': torch.bfloat16}.get(weights, torch.float16)


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
