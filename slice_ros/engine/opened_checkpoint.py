# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A model on disk, opened: its config and description, its tensors, where its tokenizer is."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.checkpoints import hf_directory
from slice_ros.engine.checkpoints.expert_tensors import expert_tensors
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.checkpoints.gguf_tokenizer import GgufTokenizer
from slice_ros.engine.checkpoints.packed_int4 import open_tensors
from slice_ros.engine.checkpoints.regroup import FLOATS, form_of, GgufDecoder
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.models.architecture import Architecture
from slice_ros.engine.models.families import describe, FAMILIES
from slice_ros.engine.models.model_checks import check_numbers, check_tensors
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.choose import keeps_codes
from slice_ros.engine.runners.native import load_library
from slice_ros.engine.runners.native.gguf_decoder import NativeDecoder
from slice_ros.engine.vision.language_model import language_config, LanguageTensors
from slice_ros.engine.vision.vision_families import vision_family

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
MakeTensors = Callable[['PreTrainedConfig', str], Tensors]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on disk that is about to be loaded. `tokenizer` reads that of the model."""

    path: Path
    name: str
    model: 'PreTrainedConfig'
    made: Architecture | str  # or why there is no description of it
    tensors: Tensors
    tokenizer: 'Callable[[], PreTrainedTokenizerBase | GgufTokenizer]'
    keeps: bool  # the codes of its weights
    vision: 'PreTrainedConfig | None' = None   # of the whole, where it sees


def open_directory(path: Path, device: str, wanted: str, make_tensors: MakeTensors | None
                   ) -> Checkpoint:
    """Open a Hugging Face directory; of a model that sees in a way that is not known, its text."""
    model = hf_directory.read_config(path)
    name = getattr(model, 'name_or_path', '') or path.name
    packed = getattr(model, 'quantization_config', None) is not None
    text = model.get_text_config()
    if text is not model and text.model_type in FAMILIES and make_tensors is None and not packed:
        tensors = expert_tensors(LanguageTensors(path), text.model_type, _decoder())
        text = language_config(model, tensors)
        made, _ = _checked(path, text, lambda made: tensors)
        if isinstance(made, Architecture):
            sees = vision_family(model) is not None
            if not sees:
                logger.warning('%s: its language model runs alone, and images are refused: how '
                               '%s sees is not known here', name, model.model_type)
            return Checkpoint(path, name, text, made, tensors,
                              lambda: hf_directory.read_tokenizer(path, model), False,
                              model if sees else None)
    if make_tensors is None:
        made, tensors = _checked(path, model, lambda made: expert_tensors(
            open_tensors(path, model), model.model_type, _decoder()) if isinstance(
                made, Architecture) else Tensors(path))
    else:
        made, tensors = _checked(path, model, lambda made: make_tensors(model, device), False)
    return Checkpoint(path, name, model, made, tensors,
                      lambda: hf_directory.read_tokenizer(path, model),
                      packed and wanted == 'auto')


def open_gguf(path: Path, device: str, wanted: str, weights: str) -> Checkpoint:
    """Open a GGUF file, of which `weights` are loaded where `wanted` were asked for."""
    source = GgufFile(path)
    model = hf_directory.CompleteConfig(**source.config())
    types = source.types()
    kept = wanted == 'auto' and keeps_codes(device) and not set(types.values()) <= set(FLOATS)
    dtype = np.float32 if weights in ('fp32', 'bf16') and not kept else np.float16
    made, tensors = _checked(path, model, lambda made: GgufTensors(
        source, dtype, _decoder()))
    if keeps_codes(device):
        _report_types(path.stem, types, wanted, device)
    return Checkpoint(path, path.stem, model, made, tensors, source.tokenizer,
                      wanted == 'auto')


def _decoder() -> GgufDecoder:
    library, _ = load_library()
    return GgufDecoder() if library is None else NativeDecoder(library)


def _report_types(name: str, types: dict[str, str], weights: str, device: str) -> None:
    """Log how the kernels keep the GGUF types of a file, and which they round again.

    `types` are those of the matrices, by name; `weights` is what was asked for.
    """
    again = set()
    for tensor, kind in types.items():
        allowed = {weights}
        if weights == 'int4' and not tensor.startswith('model.layers.'):
            allowed.add('int8')  # as in `build_model`
        if weights == 'int8' and device == 'cuda':
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


def _checked(path: Path, model: 'PreTrainedConfig',
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
