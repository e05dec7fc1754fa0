# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The language model in the directory of a model that sees."""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_EMBEDDING, _HEAD = 'embed_tokens.weight', 'lm_head.weight'


class LanguageTensors(Tensors):
    """The tensors of the language model in a directory, under the names that it has alone."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        found = [name for name in self._where if name.endswith(_EMBEDDING)]
        if len(found) != 1:
            raise ModelError(f'{path} has {len(found)} tensors *{_EMBEDDING}: its language model '
                             'cannot be found')
        prefix = found[0].removesuffix(_EMBEDDING)
        self._where = {
            _HEAD if name.endswith(_HEAD) else f'model.{name.removeprefix(prefix)}': entry
            for name, entry in self._where.items()
            if name.startswith(prefix) or name.endswith(_HEAD)}


def language_config(config: 'PreTrainedConfig', tensors: Tensors) -> 'PreTrainedConfig':
    """Return the config of the language model; whether its head is tied, the files tell."""
    text = deepcopy(config.get_text_config())
    text.tie_word_embeddings = _HEAD not in tensors
    # Of Qwen3-VL: so many layers of the tower add to the first layers of the language model.
    levels = getattr(getattr(config, 'vision_config', None), 'deepstack_visual_indexes', None)
    text.input_levels = len(levels) if isinstance(levels, (list, tuple)) else 0
    return text
