# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face model directories: config, tokenizer, stop tokens. No network, no remote code.

transformers, whose import takes a second and brings torch's, is imported when a directory is read.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from slice_ros.errors import ModelError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_MAX_LABELS = 1 << 16
MOST_LAYERS = 1 << 12  # each is described before its tensors are looked for
# Tokens that end an answer in the common chat formats, beside those in the model's own list.
_END_OF_TURN = ('<|im_end|>', '<|endoftext|>', '<|eot_id|>', '<|end_of_text|>', '<|end|>',
                '<|eom_id|>', '<end_of_turn>', '<turn|>', '<|eot|>', '<|return|>', '<|call|>',
                '[|endofturn|]', '<|END_OF_TURN_TOKEN|>')
_END_OF_MESSAGE = '<|end|>'   # which ends no turn in models that have the next one as well
_END_OF_LAST_MESSAGE = '<|return|>'


class CompleteConfig(SimpleNamespace):
    """A config that needs no defaults of its model type, as those of GGUF files.

    Read as a ``PreTrainedConfig`` of transformers is.
    """

    def get_text_config(self) -> 'CompleteConfig':
        """Return the config of the language model: this one."""
        return self


def read_config(path: Path) -> 'PreTrainedConfig':
    """Read ``config.json``.

    Raises ``ModelError`` when there is none, or it needs code of its own.
    """
    from transformers import AutoConfig
    try:
        data = json.loads((path / 'config.json').read_text())
        labels = data.get('num_labels') or 0
        if not 0 <= labels <= _MAX_LABELS:  # transformers makes a name for each
            raise ValueError(f'num_labels is {labels}')
        layers = data.get('num_hidden_layers') or 0
        if not 0 <= layers <= MOST_LAYERS:  # transformers names the kind of each
            raise ValueError(f'num_hidden_layers is {layers}')
        if 'auto_map' in data and 'model_type' not in data:
            raise ModelError(f'{path} needs code of its own, which is never run')
        return AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False)
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f'{path} is not a model directory: it holds no config.json') from error
    except Exception as error:  # transformers raises many types
        raise ModelError(f'{path / "config.json"} cannot be used ({one_line(error)}): take the '
                         'one that belongs to the weights') from error


def read_tokenizer(path: Path, config: 'PreTrainedConfig'):
    """Read the tokenizer. Raises ``ModelError`` when there is none, or it needs its own code."""
    from transformers import AutoTokenizer
    try:
        return AutoTokenizer.from_pretrained(
            str(path), config=config, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare Exception
        raise ModelError(f'{path} holds no tokenizer that can be loaded ({one_line(error)}): copy '
                         'tokenizer.json and tokenizer_config.json of the model there') from error


def stop_tokens(path: Path, config: 'PreTrainedConfig', tokenizer) -> frozenset[int]:
    """Return the ids of tokens that end an answer. Raises ``ModelError`` for a damaged list."""
    found = [tokenizer.eos_token_id, config.get_text_config().eos_token_id]
    generation = path / 'generation_config.json'
    if generation.exists():
        try:
            found.append(json.loads(generation.read_text()).get('eos_token_id'))
        except (ValueError, AttributeError, OSError) as error:
            raise ModelError(f'{generation} cannot be used: {error}') from error
    vocabulary = tokenizer.get_added_vocab()
    ends = [token for token in _END_OF_TURN if token in vocabulary]
    found += [vocabulary[token] for token in ends
              if token != _END_OF_MESSAGE or _END_OF_LAST_MESSAGE not in ends]
    flat = set()
    for item in found:
        flat |= set(item) if isinstance(item, (list, tuple)) else {item}
    return frozenset(flat - {None})
