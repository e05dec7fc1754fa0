# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face model directories: config, tokenizer, stop tokens. No network, no remote code."""

import json
from pathlib import Path

from slice_ros.errors import ModelError, one_line
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

_MAX_LABELS = 1 << 16
MOST_LAYERS = 1 << 12  # each is described before its tensors are looked for
# Tokens that end an answer in the common chat formats, beside those in the model's own list.
_END_OF_TURN = ('<|im_end|>', '<|endoftext|>', '<|eot_id|>', '<|end_of_text|>', '<|end|>',
                '<|eom_id|>', '<end_of_turn>')


def complete_config(data: dict) -> PreTrainedConfig:
    """Return a config that needs no defaults of its model type, as those of GGUF files.

    Importing the class of a model type takes 1.5 s and 90 MB. Raises ``ModelError`` for numbers
    that no model has.
    """
    try:
        config = PreTrainedConfig.from_dict(data)
    except Exception as error:  # transformers raises many types
        raise ModelError(f'{data.get("_name_or_path")}: the config in its file cannot be used '
                         f'({one_line(error)}): copy or convert it again') from error
    config.model_type = data['model_type']
    return config


def read_config(path: Path) -> PreTrainedConfig:
    """Read ``config.json``.

    Raises ``ModelError`` when there is none, or it needs code of its own.
    """
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


def read_tokenizer(path: Path, config: PreTrainedConfig):
    """Read the tokenizer. Raises ``ModelError`` when there is none, or it needs its own code."""
    try:
        return AutoTokenizer.from_pretrained(
            str(path), config=config, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare Exception
        raise ModelError(f'{path} holds no tokenizer that can be loaded ({one_line(error)}): copy '
                         'tokenizer.json and tokenizer_config.json of the model there') from error


def stop_tokens(path: Path, config: PreTrainedConfig, tokenizer) -> frozenset[int]:
    """Return the ids of tokens that end an answer. Raises ``ModelError`` for a damaged list."""
    found = [tokenizer.eos_token_id, config.get_text_config().eos_token_id]
    generation = path / 'generation_config.json'
    if generation.exists():
        try:
            found.append(json.loads(generation.read_text()).get('eos_token_id'))
        except (ValueError, AttributeError, OSError) as error:
            raise ModelError(f'{generation} cannot be used: {error}') from error
    vocabulary = tokenizer.get_added_vocab()
    found += [vocabulary[token] for token in _END_OF_TURN if token in vocabulary]
    flat = set()
    for item in found:
        flat |= set(item) if isinstance(item, (list, tuple)) else {item}
    return frozenset(flat - {None})
