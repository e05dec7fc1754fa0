# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The vision tower of a model directory. Importing this imports Pillow."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from slice_ros.engine.vision.vision_encoder import VisionEncoder
from slice_ros.engine.vision.vision_families import vision_family
from slice_ros.errors import ModelError, one_line, RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def load_vision(path: Path, config: 'PreTrainedConfig', device: str,
                ids: Callable[[str], list[int]], max_context: int) -> VisionEncoder:
    """Return what encodes images for the language model of a directory.

    Tower and projector are transformers' own, without remote code, float32 on a CPU. Raises
    ``ModelError``.
    """
    import torch
    from transformers.utils import logging
    family = vision_family(config)
    blind = deepcopy(config)
    blind.text_config.num_hidden_layers = 0
    if getattr(blind.text_config, 'layer_types', None):
        blind.text_config.layer_types = []
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()   # of the layers that it finds and does not load
    logging.disable_progress_bar()
    try:
        model, report = family.load_class(family.model).from_pretrained(
            str(path), config=blind, local_files_only=True, use_safetensors=True,
            dtype=torch.float32 if device == 'cpu' else torch.bfloat16,
            output_loading_info=True)
        processor = family.load_class(family.processor).from_pretrained(
            str(path), local_files_only=True)
    except Exception as error:   # transformers raises many types
        raise ModelError(f'the vision tower of {path} cannot be loaded ({one_line(error)}): copy '
                         'the whole directory again') from error
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    missing = [name for name in report['missing_keys'] if not name.startswith(family.language)]
    if missing:
        raise ModelError(f'{path} holds no tensor {missing[0]} of the vision tower: the weights '
                         'are incomplete')
    setattr(model, family.language, None)
    token = ids(family.token)
    if len(token) != 1:
        raise ModelError(f'the tokenizer of {path} has no token {family.token}: copy that of the '
                         'model')
    try:
        return VisionEncoder(
            family, model.eval().to(device), processor, ids, token[0], max_context)
    except RequestError as error:
        raise ModelError(f'the vision tower of {path} cannot encode an image ({error.message}): '
                         'it is damaged, or its config is') from error
