# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which runner a model gets on this machine, in which weights, and how it is built."""

from collections.abc import Callable
import ctypes
from dataclasses import replace
import logging

from slice_ros.engine.adapters.peft_directory import read_adapters
from slice_ros.engine.checkpoints.stored_weights import KEPT
from slice_ros.engine.cores import compute_threads
from slice_ros.engine.models.architecture import Architecture
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.cuda.failure import cuda_refusal
from slice_ros.engine.runners.native import (
    kv_bits_of, Library, load_library, native_runner)
from slice_ros.engine.runners.runner import Runner
from slice_ros.engine.runners.runner_spec import kv_pages, RunnerSpec
from slice_ros.errors import ModelError

logger = logging.getLogger(__name__)

# What torch says on a machine without a GPU, or where it is hidden on purpose.
_NO_GPU = ('no NVIDIA driver', 'No CUDA GPUs')


def choose_device(wanted: str) -> str:
    """Return 'cpu' or 'cuda' for 'auto', 'cpu' or 'cuda'. Raises ``ModelError`` without CUDA.

    Where 'auto' becomes a CPU although a driver is there that torch cannot use, the log says so.
    """
    if wanted == 'cpu' or wanted == 'auto' and not _has_driver():
        return 'cpu'
    import torch
    if torch.cuda.is_available():
        return 'cuda'
    refusal = cuda_refusal()
    if wanted == 'cuda':
        raise ModelError("device 'cuda' was asked for, but this torch finds no CUDA device "
                         f"({refusal}): use 'cpu' or 'auto', or install what is missing")
    if torch.version.cuda is not None and not any(said in refusal for said in _NO_GPU):
        logger.warning('the model runs on the CPU, because torch cannot use the GPU: %s', refusal)
    return 'cpu'


def _has_driver() -> bool:
    """Return whether NVIDIA's driver is there; without it torch need not be asked for a GPU."""
    try:
        ctypes.CDLL('libcuda.so.1')
    except OSError:
        return False
    return True


def choose_weights(wanted: str, device: str) -> str:
    """Return the format of the weights; for 'auto' the quickest 16 bits, else fp32."""
    if wanted != 'auto':
        return wanted
    if device == 'cpu' and load_library()[0] is not None:
        return 'fp16'
    from slice_ros.engine.runners.cuda.gpu_linear import sixteen_bits
    from slice_ros.engine.runners.torch.linear import fp16_kernels
    import torch
    if device == 'cuda':
        return sixteen_bits(torch.device(device))
    return 'fp16' if fp16_kernels() else 'fp32'


def keeps_codes(device: str) -> bool:
    """Return whether weights can stay in the integer formats of a file."""
    return device == 'cuda' or load_library()[0] is not None


def build_runner(spec: RunnerSpec, progress: Callable[[float], None]) -> Runner:
    """Return the runner of a model: the flat batch, or transformers where that cannot run it.

    `progress` is called with the share of the weights that is loaded, from 0 to 1. Raises
    ``ModelError`` with what to change.
    """
    if spec.config.backend == 'vllm':
        from slice_ros.engine.runners.vllm_runner import start
        return start(spec, progress)
    why_not = spec.made
    if isinstance(why_not, Architecture) and why_not.recurrence is not None:
        why_not = _not_native(spec) or why_not
    if isinstance(why_not, Architecture):
        adapters = read_adapters(spec.config.adapters, why_not)
        return _flat_batch(replace(spec, adapters=adapters), progress)
    _refuse_codes(spec, f'the flat batch cannot run {spec.path} ({why_not})')
    if spec.config.adapters:
        raise ModelError(f'adapters need the flat batch, which cannot run {spec.path} '
                         f'({why_not}): leave engine.adapters empty')
    if spec.weights in ('int8', 'int4'):
        raise ModelError(f"weights '{spec.weights}' need the flat batch, which cannot run "
                         f"{spec.path} ({why_not}): use 'auto'")
    from slice_ros.engine.runners.torch_paths import through_transformers
    runner = through_transformers(spec)
    logger.warning('%s: the flat batch cannot run this model (%s); it runs through %s, in %s',
                   spec.path, why_not, runner.info.kernels, runner.info.weights)
    return runner


def _not_native(spec: RunnerSpec) -> str | None:
    """Return why the native kernels cannot run a model that no other flat batch runs."""
    if spec.device != 'cpu':
        return f'recurrent layers on {spec.device}'
    library, sentence = load_library()
    return sentence if library is None else native_runner.unsupported(spec.made, spec.weights)


def _refuse_codes(spec: RunnerSpec, why: str) -> None:
    if spec.config.kv == '8':
        raise ModelError('keys and values in 8 bits (engine.kv) need the native kernels, which do '
                         f"not run here ({why}): use 'auto'")


def _flat_batch(spec: RunnerSpec, progress: Callable[[float], None]) -> Runner:
    weights, cpu = spec.weights, spec.device == 'cpu'
    library, sentence = load_library() if cpu else (None, 'torch path on CUDA')
    if library is not None:
        why_not = native_runner.unsupported(spec.made, weights)
        if why_not is not None:
            library, sentence = None, f'torch path: the native kernels cannot run {why_not}'
    logger.info(sentence)
    if library is not None:
        return _native(spec, library, progress)
    _refuse_codes(spec, sentence)
    from slice_ros.engine.runners import torch_paths
    if not cpu:
        return torch_paths.on_gpu(spec, progress)
    if weights in ('int8', 'int4'):
        raise ModelError(f"weights '{weights}' need the native kernels, which this machine or "
                         f"model has not ({sentence}): use 'auto'")
    return torch_paths.on_cpu(spec, progress)


def _native(spec: RunnerSpec, library: Library, progress: Callable[[float], None]) -> Runner:
    weights = KEPT if spec.keep else spec.weights
    kv_bits = kv_bits_of(spec.config.kv, weights)
    pages = kv_pages(spec, library.slice_page_bytes(kv_bits, spec.made.kv_heads,
                                                    spec.made.head_dim))
    try:
        return native_runner.NativeRunner(spec.made, ModelTensors(spec.made, spec.tensors),
                                          weights, library, spec.table, pages,
                                          spec.max_context,
                                          compute_threads(spec.config.threads), progress,
                                          spec.config.isa, spec.adapters, kv_bits)
    except ValueError as error:
        raise ModelError(f'{spec.path}: {error}') from error
