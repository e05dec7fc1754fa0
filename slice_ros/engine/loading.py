# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""From the name of a model to a running engine: find, read, build the runner, try it, assemble."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
import logging
import os
from pathlib import Path

import numpy as np
from slice_ros.engine.checkpoints import hf_directory
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.checkpoints.packed_int4 import open_tensors
from slice_ros.engine.checkpoints.regroup import FLOATS, form_of
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.config import (
    EngineConfig, EngineInfo, no_progress, Progress, template_arguments)
from slice_ros.engine.engine import Engine
from slice_ros.engine.kv import memory
from slice_ros.engine.kv.slots import KEPT_SLOTS, page_table, Slots
from slice_ros.engine.models.architecture import Architecture, within
from slice_ros.engine.models.families import describe, FAMILIES
from slice_ros.engine.models.model_checks import check_numbers, check_tensors
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.choose import (
    build_runner, choose_device, choose_weights, keeps_codes, RunnerSpec)
from slice_ros.engine.runners.cuda.failure import cuda_failure
from slice_ros.engine.runners.native import load_library
from slice_ros.engine.runners.native.gguf_decoder import NativeDecoder
from slice_ros.engine.runners.runner import Runner, Segment
from slice_ros.engine.text.grammar import Grammars
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.errors import ModelError, one_line
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
MakeTensors = Callable[[PreTrainedConfig, torch.device], Tensors]
# Errors that reading a damaged model may end with, beside `ModelError`.
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError,
           RuntimeError, TypeError, ValueError)


def load_engine(config: EngineConfig, progress: Progress | None = None,
                tensors: MakeTensors | None = None) -> Engine:
    """Load a model and return the engine that runs it.

    `progress` is called with what is being done and the share of it that is done (0 .. 1). With
    `tensors`, a model directory needs no weights: `tensors(model config, device)` returns them,
    by name. Raises ``ModelError`` with what was looked for and what to do.
    """
    progress = progress or no_progress
    path = find_model(config.model)
    device = choose_device(config.device)
    weights = choose_weights(config.weights, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        progress('reading the config', 0.0)
        memory.collect_garbage()  # an earlier engine
        checkpoint = _directory(
            path, device, config.weights, tensors) if path.is_dir() else _gguf(
            path, device, config.weights, weights)
        return _load(checkpoint, config, device, weights, progress)
    except (ModelError, *_DAMAGE) as error:
        logger.debug('why the model cannot be loaded', exc_info=error)
        failure = cuda_failure(device)
        if failure is not None:
            raise ModelError(f'CUDA failed while {path} was loaded ({failure}): restart the '
                             'process, which cannot use the GPU any more') from error
        if isinstance(error, ModelError):
            raise
        raise ModelError(f'{path} cannot be loaded ({type(error).__name__}: {one_line(error)}): '
                         'it is damaged, or of a kind that is not known; copy, download or '
                         'convert it again') from error


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A model on disk that is about to be loaded. `tokenizer` reads that of the model."""

    path: Path
    name: str
    model: PreTrainedConfig
    made: Architecture | str  # or why there is no description of it
    tensors: Tensors
    tokenizer: Callable[[], PreTrainedTokenizerBase]
    keeps: bool  # the codes of its weights


def _directory(path: Path, device: torch.device, wanted: str, make_tensors: MakeTensors | None
               ) -> _Checkpoint:
    """Open a Hugging Face directory."""
    model = hf_directory.read_config(path)
    name = getattr(model, 'name_or_path', '') or path.name
    packed = getattr(model, 'quantization_config', None) is not None
    if make_tensors is None:
        made, tensors = _checked(path, model, lambda made: open_tensors(path, model) if isinstance(
            made, Architecture) else Tensors(path))
    else:
        made, tensors = _checked(path, model, lambda made: make_tensors(model, device), False)
    return _Checkpoint(path, name, model, made, tensors,
                       lambda: hf_directory.read_tokenizer(path, model),
                       packed and wanted == 'auto')


def _gguf(path: Path, device: torch.device, wanted: str, weights: str) -> _Checkpoint:
    """Open a GGUF file, of which `weights` are loaded where `wanted` were asked for."""
    source = GgufFile(path)
    model = hf_directory.complete_config(source.config())
    library, _ = load_library()
    types = source.types()
    kept = wanted == 'auto' and keeps_codes(device) and not set(types.values()) <= set(FLOATS)
    dtype = np.float32 if weights in ('fp32', 'bf16') and not kept else np.float16
    made, tensors = _checked(path, model, lambda made: GgufTensors(
        source, dtype, None if library is None else NativeDecoder(library)))
    if keeps_codes(device):
        _report_types(path.stem, types, wanted, device)
    return _Checkpoint(path, path.stem, model, made, tensors, source.tokenizer,
                       wanted == 'auto')


def _load(checkpoint: _Checkpoint, config: EngineConfig, device: torch.device, weights: str,
          progress: Progress) -> Engine:
    path, model = checkpoint.path, checkpoint.model
    made, described = checkpoint.made, isinstance(checkpoint.made, Architecture)
    max_context = _max_context(model, made, config.max_context)
    if described:
        made = within(made, max_context)
    table = page_table(config.slots + KEPT_SLOTS, max_context)
    progress('reading the tokenizer', 0.0)
    with ThreadPoolExecutor(1, 'slice texts') as beside:
        make = partial(_texts, checkpoint, max_context, config)
        # Only of a described model the vocabulary is known to be that of its tensors by now.
        texts = beside.submit(make) if described else None
        runner = build_runner(
            RunnerSpec(path, model, made, checkpoint.tensors, weights, device, max_context, table,
                       config, checkpoint.keeps),
            lambda share: progress('loading the weights', share))
        encoder, grammars, stop_tokens = texts.result() if described else make()
    slots = Slots(table, runner.info.pages, KEPT_SLOTS)
    _try_out(path, runner, slots)
    progress('loading the weights', 1.0)
    info = _info(checkpoint.name, model, str(device), runner.info.weights or weights, max_context,
                 runner, slots)
    logger.info(_sentence(info))
    if encoder.template is None:
        logger.warning('%s has no chat template: a prompt is continued as it is, and messages are '
                       'refused; a Hugging Face directory has it in chat_template.jinja',
                       checkpoint.name)
    engine = Engine(info, runner, encoder, grammars, slots, stop_tokens, config)
    memory.trim_heap()
    return engine


def _texts(checkpoint: _Checkpoint, max_context: int, config: EngineConfig
           ) -> tuple[PromptEncoder, Grammars, frozenset[int]]:
    """Return what turns texts into tokens, what constrains answers, and the tokens that end one.

    It takes about as long as the weights of a small model.
    """
    tokenizer = checkpoint.tokenizer()
    stop_tokens = hf_directory.stop_tokens(checkpoint.path, checkpoint.model, tokenizer)
    encoder = PromptEncoder(tokenizer, max_context, template_arguments(config.template_arguments))
    vocabulary = checkpoint.model.get_text_config().vocab_size
    return encoder, Grammars(tokenizer, vocabulary, stop_tokens), stop_tokens


def _report_types(name: str, types: dict[str, str], weights: str, device: torch.device) -> None:
    """Log how the kernels keep the GGUF types of a file, and which they round again.

    `types` are those of the matrices, by name; `weights` is what was asked for.
    """
    again = set()
    for tensor, kind in types.items():
        allowed = {weights}
        if weights == 'int4' and not tensor.startswith('model.layers.'):
            allowed.add('int8')  # as in `build_model`
        if weights == 'int8' and device.type == 'cuda':
            allowed.add('int4')  # the codes stay as they are, in 8 bits
        if weights in ('int8', 'int4') and kind not in FLOATS and form_of(kind) not in allowed:
            again.add(kind)
    forms = ', '.join(f'{kind} as {form_of(kind)}' for kind, _ in Counter(
        types.values()).most_common())
    if again:
        logger.warning("%s: weights '%s' round the codes of %s again, which costs accuracy: "
                       "'auto' keeps %s", name, weights, ' and '.join(sorted(again)), forms)
    elif weights == 'auto':
        logger.info('%s: the weights of the file are kept: %s', name, forms)


def _checked(path: Path, model: PreTrainedConfig,
             make: Callable[[Architecture | str], Tensors], shapes: bool = True
             ) -> tuple[Architecture | str, Tensors]:
    """Return the description of a model, or why there is none, and its tensors.

    The tensors of a described model are checked against its config.
    """
    if model.model_type in FAMILIES:
        check_numbers(path, model)
    made = describe(model)
    tensors = make(made)
    if isinstance(made, Architecture) and shapes:
        check_tensors(path, ModelTensors(made, tensors))
    return made, tensors


def _max_context(model: PreTrainedConfig, made: Architecture | str, wanted: int) -> int:
    """Return the tokens that one request may have in the KV cache."""
    limits = [wanted, getattr(model, 'max_position_embeddings', None),
              made.max_context if isinstance(made, Architecture) else None]
    return min(limit for limit in limits if limit)


def _try_out(path: Path, runner: Runner, slots: Slots) -> None:
    """Run two steps: weights that do not fit each other, or are damaged, show in them.

    So do models that cannot go on from what they have kept.
    """
    slot = slots.take()
    slots.reserve([(slot, 2)])
    for position in range(2):
        try:
            logits = runner.forward([Segment(slot, position, [0], True)])
        except _DAMAGE as error:
            raise ModelError(
                f'{path}: the weights do not fit the config, or the model cannot go on after a '
                f'step ({type(error).__name__}: {one_line(error)})') from error
        if not logits.isfinite().all():
            raise ModelError(f'{path}: the weights are damaged: step {position + 1} gives no '
                             'numbers')
    slots.give(slot)


def _info(name: str, model: PreTrainedConfig, device: str, weights: str, max_context: int,
          runner: Runner, slots: Slots) -> EngineInfo:
    run = runner.info
    return EngineInfo(
        model=name, family=model.model_type, device=device, weights=weights, path=run.path,
        fills_cores=device == 'cpu' and torch.get_num_threads() >= (os.cpu_count() or 1),
        kernels=run.kernels, max_context=max_context, slots=slots.count,
        kv_tokens=memory.kv_tokens(run.pages, slots.count, max_context),
        weight_bytes=run.weight_bytes, kv_bytes=run.kv_bytes,
        vocab_size=model.get_text_config().vocab_size, asynchronous=run.asynchronous)


def _sentence(info: EngineInfo) -> str:
    return (f'{info.model} ({info.family}) on {info.device}: {info.path} ({info.kernels}), '
            f'{info.weight_bytes / 2**20:.0f} MiB of {info.weights} weights, at most '
            f'{info.kv_bytes / 2**20:.0f} MiB of keys and values for {info.slots} requests of '
            f'{info.max_context} tokens, {info.kv_tokens} in all')
