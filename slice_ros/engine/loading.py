# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""From the name of a model to a running engine: find, read, build the runner, try it, assemble."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
import hashlib
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.checkpoints import hf_directory
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.config import (
    EngineConfig, EngineInfo, no_progress, Progress, template_arguments)
from slice_ros.engine.cores import compute_threads, machine
from slice_ros.engine.drafting.draft_model import DraftModel
from slice_ros.engine.drafting.pairs import check_vocabularies
from slice_ros.engine.engine import Engine
from slice_ros.engine.kv import memory
from slice_ros.engine.kv.prefix_mark import prefix_mark
from slice_ros.engine.kv.slots import KEPT_SLOTS, page_table, Slots
from slice_ros.engine.kv.stored_prefixes import open_prefixes
from slice_ros.engine.models.architecture import Architecture, within
from slice_ros.engine.opened_checkpoint import Checkpoint, MakeTensors, open_directory, open_gguf
from slice_ros.engine.runners.choose import build_runner, choose_device, choose_weights
from slice_ros.engine.runners.cuda.failure import cuda_failure
from slice_ros.engine.runners.runner import Runner, Segment
from slice_ros.engine.runners.runner_spec import RunnerSpec
from slice_ros.engine.text.chat_template import read_template
from slice_ros.engine.text.grammar import Grammars
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.engine.vision.vision_families import vision_family
from slice_ros.errors import ModelError, one_line

if TYPE_CHECKING:
    from slice_ros.engine.vision.vision_encoder import VisionEncoder
    from transformers import PreTrainedConfig

logger = logging.getLogger(__name__)
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
    engine = _loaded(config, progress, tensors)
    if config.draft_model:
        _add_draft_model(engine, config, progress)
    return engine


def _loaded(config: EngineConfig, progress: Progress, tensors: MakeTensors | None = None,
            reserved: int = 0) -> Engine:
    """Load a model alone, beside others that will take `reserved` bytes of memory."""
    path = find_model(config.model)
    if config.backend == 'vllm':
        device, weights, tensors = _of_vllm(path)
    else:
        device = choose_device(config.device)
        weights = choose_weights(config.weights, device)
    try:
        progress('reading the config', 0.0)
        memory.collect_garbage()  # an earlier engine
        checkpoint = open_directory(
            path, device, config.weights, tensors) if path.is_dir() else open_gguf(
            path, device, config.weights, weights)
        return _load(checkpoint, config, device, weights, reserved, progress)
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


def _of_vllm(path: Path) -> tuple[str, str, MakeTensors]:
    """Return device, weights and tensors of a model that vLLM reads: none of them is used here.

    Raises ``ModelError`` for a GGUF file.
    """
    if not path.is_dir():
        raise ModelError(f'vLLM does not read {path}, a GGUF file: name a Hugging Face directory '
                         'in engine.model; python -m slice_ros.engine.export_gguf makes one of it')
    return 'cpu', 'fp32', lambda model, device: ()


def _load(checkpoint: Checkpoint, config: EngineConfig, device: str, weights: str,
          reserved: int, progress: Progress) -> Engine:
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
            RunnerSpec(path=path, model=model, made=made, tensors=checkpoint.tensors,
                       weights=weights, device=device, max_context=max_context, table=table,
                       config=config, keep=checkpoint.keeps, reserved=reserved),
            lambda share: progress('loading the weights', share))
        encoder, grammars, stop_tokens = texts.result() if described else make()
    slots = Slots(table, runner.info.pages, KEPT_SLOTS)
    tried = _try_out(path, runner, slots)
    progress('loading the weights', 1.0)
    info = _info(checkpoint, device, runner.info.weights or weights, max_context,
                 runner, slots, compute_threads(config.threads))
    logger.info(info.sentence())
    if config.kv not in ('auto', str(info.kv_bits)):
        logger.warning('keys and values have %d bits, not the %s of engine.kv, which is for the '
                       'native kernels', info.kv_bits, config.kv)
    if encoder.template is None and not reserved:
        logger.warning('%s has no chat template: a prompt is continued as it is, and messages are '
                       'refused; engine.chat_template names a file of one', checkpoint.name)
    if checkpoint.vision is not None and info.path != 'flat batch':
        logger.warning('%s: images are refused, since %s takes none', checkpoint.name, info.path)
        checkpoint = replace(checkpoint, vision=None)
        encoder.refuse_images()
    if reserved:   # a draft model sees nothing
        checkpoint = replace(checkpoint, vision=None)
    vision = _vision(checkpoint, device, encoder, max_context, progress)
    stored = None
    if runner.memory is not None and config.prefix_cache_bytes:
        mark = partial(prefix_mark, info, made, path, runner.memory, tried, machine(info.device))
        stored = open_prefixes(config, mark, slots, table, runner.memory)
    if vision is not None:   # a step may feed so many tokens more than a policy plans
        info = replace(info, kv_tokens=max(info.kv_tokens - vision.joined_tokens,
                                           min(info.kv_tokens, max_context)))
    engine = Engine(info, runner, encoder, grammars, slots, stop_tokens, config, vision, stored)
    memory.trim_heap()
    return engine


def _add_draft_model(engine: Engine, config: EngineConfig, progress: Progress) -> None:
    """Load the draft model of a config beside its model. Raises ``ModelError``."""
    info = engine.info
    if not engine._runner.info.verifies:
        raise ModelError(f'guesses need attention alone, on the native kernels, and {info.model} '
                         f'runs otherwise ({info.path}, {info.kernels}): leave '
                         'engine.draft_model empty')
    try:
        draft = _loaded(
            replace(config, model=config.draft_model, weights=config.draft_weights,
                    max_context=info.max_context, adapters=(), chat_template='',
                    template_arguments='', tool_syntax='auto', prefix_cache_bytes=0),
            lambda what, share: progress(f'{what} of the draft model', share),
            reserved=info.kv_bytes)
        if not draft._runner.info.verifies:
            raise ModelError(f'{draft.info.model} cannot take a guess back: its layers are '
                             'recurrent, or it does not run on the native kernels')
        check_vocabularies(info.model, engine._encoder.vocabulary,
                           draft.info.model, draft._encoder.vocabulary)
    except ModelError as error:
        raise ModelError(f'engine.draft_model: {error}') from error
    engine.draft_model = DraftModel(draft, info, engine._stop_tokens)
    engine.info = replace(info, draft_model=draft.info.model,
                          weight_bytes=info.weight_bytes + draft.info.weight_bytes,
                          kv_bytes=info.kv_bytes + draft.info.kv_bytes)
    logger.info('%s guesses what %s answers', draft.info.model, info.model)


def _texts(checkpoint: Checkpoint, max_context: int, config: EngineConfig
           ) -> tuple[PromptEncoder, Grammars, frozenset[int]]:
    """Return what turns texts into tokens, what constrains answers, and the tokens that end one.

    It takes about as long as the weights of a small model.
    """
    tokenizer = checkpoint.tokenizer()
    if config.chat_template:
        tokenizer.chat_template = read_template(config.chat_template)
    stop_tokens = hf_directory.stop_tokens(checkpoint.path, checkpoint.model, tokenizer)
    sees = checkpoint.vision and vision_family(checkpoint.vision)
    image = tokenizer.convert_tokens_to_ids(sees.place or sees.token) if sees else None
    encoder = PromptEncoder(tokenizer, max_context, template_arguments(config.template_arguments),
                            config.tool_syntax, image, sees.spaced if sees else str)
    vocabulary = checkpoint.model.get_text_config().vocab_size
    return encoder, Grammars(tokenizer, vocabulary, stop_tokens, encoder.syntax), stop_tokens


def _vision(checkpoint: Checkpoint, device: str, encoder: PromptEncoder, max_context: int,
            progress: Progress) -> 'VisionEncoder | None':
    """Return what encodes images; None for a model that does not see."""
    if checkpoint.vision is None:
        return None
    from slice_ros.engine.vision.vision_loading import load_vision
    progress('loading the vision tower', 1.0)
    vision = load_vision(checkpoint.path, checkpoint.vision, device, encoder.ids, max_context)
    logger.info('%s sees: images are encoded beside the steps', checkpoint.name)
    return vision


def _max_context(model: 'PreTrainedConfig', made: Architecture | str, wanted: int) -> int:
    """Return the tokens that one request may have in the KV cache."""
    limits = [wanted, getattr(model, 'max_position_embeddings', None),
              made.max_context if isinstance(made, Architecture) else None]
    return min(limit for limit in limits if limit)


def _try_out(path: Path, runner: Runner, slots: Slots) -> str:
    """Run two steps: weights that do not fit each other, or are damaged, show in them.

    So do models that cannot go on from what they have kept. Return a hash of their logits.
    """
    seen = hashlib.sha256()
    slot = slots.take()
    slots.reserve([(slot, 2)])
    for position in range(2):
        try:
            logits = runner.forward([Segment(slot, position, [0], True)])
        except _DAMAGE as error:
            raise ModelError(
                f'{path}: the weights do not fit the config, or the model cannot go on after a '
                f'step ({type(error).__name__}: {one_line(error)})') from error
        if not abs(logits).max() < math.inf:
            raise ModelError(f'{path}: the weights are damaged: step {position + 1} gives no '
                             'numbers')
        if runner.memory is not None:   # on a CPU
            seen.update(np.asarray(logits).tobytes())
    slots.give(slot)
    return seen.hexdigest()


def _info(checkpoint: Checkpoint, device: str, weights: str, max_context: int,
          runner: Runner, slots: Slots, threads: int) -> EngineInfo:
    run, model = runner.info, checkpoint.model
    return EngineInfo(
        model=checkpoint.name, family=(checkpoint.vision or model).model_type,
        device=run.device or device,
        weights=weights, path=run.path,
        fills_cores=(run.device or device) == 'cpu' and threads >= (os.cpu_count() or 1),
        kernels=run.kernels, max_context=max_context, slots=slots.count,
        kv_tokens=memory.kv_tokens(run.pages, slots.count, max_context),
        weight_bytes=run.weight_bytes, kv_bytes=run.kv_bytes, kv_bits=run.kv_bits, threads=threads,
        hidden=run.hidden, vocab_size=model.get_text_config().vocab_size,
        asynchronous=run.asynchronous, adapters=run.adapters)
