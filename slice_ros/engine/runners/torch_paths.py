# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The runners that torch computes, on a CPU or a GPU.

Importing this takes a second and 200 MB: `choose` does it where one of these runners is needed.
"""

from collections.abc import Callable
import logging

from slice_ros.engine.checkpoints.stored_weights import KEPT
from slice_ros.engine.cores import compute_threads
from slice_ros.engine.kv import memory
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.cuda.gpu_linear import (
    IntegerKernelError, make_gpu_embedding, make_gpu_linear, sixteen_bits)
from slice_ros.engine.runners.cuda.graph_runner import gpu_runner
from slice_ros.engine.runners.runner import Runner
from slice_ros.engine.runners.runner_spec import float_page_bytes, kv_pages, RunnerSpec
from slice_ros.engine.runners.torch.linear import DTYPES, fp16_kernels
from slice_ros.engine.runners.torch.torch_runner import TorchRunner
from slice_ros.engine.runners.torch.weights import build_weights, DecoderWeights
from slice_ros.engine.runners.transformers import TransformersRunner
from slice_ros.errors import ModelError
import torch

logger = logging.getLogger(__name__)


def through_transformers(spec: RunnerSpec) -> Runner:
    """Return the runner of a model that the flat batch cannot run."""
    _use_threads(spec)

    def pages_for(page_bytes: int) -> int:   # the weights are in memory by then
        return memory.kv_pages(spec.path, 0, spec.device, page_bytes, spec.max_context,
                               spec.config)
    return TransformersRunner.load(spec.path, spec.model, spec.weights, torch.device(spec.device),
                                   len(spec.table), pages_for, len(spec.tensors))


def on_cpu(spec: RunnerSpec, progress: Callable[[float], None]) -> Runner:
    """Return the flat batch in plain torch operators. Raises ``ModelError``."""
    if spec.weights == 'fp16' and not fp16_kernels():
        raise ModelError("weights 'fp16' need the native kernels or torch's fbgemm on CPU, and "
                         "this machine has neither: use 'auto', 'bf16' or 'fp32'")
    _use_threads(spec)
    pages = kv_pages(spec, float_page_bytes(spec.made, torch.float32.itemsize))
    loaded = build_weights(spec.made, ModelTensors(spec.made, spec.tensors), spec.weights,
                           spec.weights, torch.device(spec.device), spec.max_context, progress,
                           adapters=spec.adapters)
    return TorchRunner(loaded, _kv_cache(spec, loaded, pages, torch.float32))


def _use_threads(spec: RunnerSpec) -> None:
    torch.set_num_threads(compute_threads(spec.config.threads))


def on_gpu(spec: RunnerSpec, progress: Callable[[float], None]) -> Runner:
    """Return the flat batch on a GPU. Raises ``ModelError``."""
    floats = spec.weights if spec.weights in DTYPES else sixteen_bits(torch.device(spec.device))
    dtype = DTYPES[floats]
    try:
        loaded = _weights_on_gpu(spec, floats, progress)
        # Memory is counted behind the weights: they are on the GPU already.
        pages = kv_pages(spec, float_page_bytes(spec.made, dtype.itemsize))
        cache = _kv_cache(spec, loaded, pages, dtype)
        return gpu_runner(loaded, cache, min(spec.config.max_batch, spec.config.slots))
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f'the memory of the GPU cannot hold {spec.path} with its KV cache ({error}): '
            'use fewer slots, a shorter max_context or a smaller model') from error


def _weights_on_gpu(spec: RunnerSpec, floats: str, progress: Callable[[float], None]
                    ) -> DecoderWeights:
    tensors = ModelTensors(spec.made, spec.tensors)

    def build(weights: str) -> DecoderWeights:
        return build_weights(spec.made, tensors, weights, floats, torch.device(spec.device),
                             spec.max_context, progress, make_gpu_linear, make_gpu_embedding,
                             spec.adapters)
    if spec.keep:
        try:
            return build(KEPT)
        except IntegerKernelError as error:
            logger.warning('the weights of %s take 16 bits each: %s', spec.path, error)
            return build(floats)
    return build(spec.weights)


def _kv_cache(spec: RunnerSpec, loaded: DecoderWeights, pages: int, dtype: torch.dtype
              ) -> KvCache:
    made = loaded.made
    return KvCache(len(made.layers), spec.table, pages, made.kv_heads, made.head_dim, dtype,
                   torch.device(spec.device))
