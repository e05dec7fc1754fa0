"""Hugging Face model directories: config, safetensors, tokenizer. No network, no remote code."""

import json
from pathlib import Path

from safetensors import safe_open, SafetensorError
from slice_ros.errors import ModelError
import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig


class Tensors:
    """The safetensors of a directory, read from the mapped files one tensor at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        files = sorted(path.glob('*.safetensors'))
        index = path / 'model.safetensors.index.json'
        if index.exists():
            listed = set(json.loads(index.read_text())['weight_map'].values())
            files = [path / name for name in sorted(listed)]
        if not files:
            others = [p.name for p in path.glob('*.bin')] + [p.name for p in path.glob('*.pt*')]
            raise ModelError(
                f'{path} holds no *.safetensors'
                + (f', only {", ".join(others[:3])}: pickled weights can run code and are never '
                   'loaded; convert them to safetensors' if others else ''))
        self._where = {}
        try:
            for file in files:
                opened = safe_open(file, framework='pt')
                self._where.update(dict.fromkeys(opened.keys(), opened))
        except (SafetensorError, OSError) as error:
            raise ModelError(f'{file} cannot be read ({error}): copy or download it again'
                             ) from error

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._where:
            raise ModelError(f'{self._path} holds no tensor {name}: the weights are incomplete '
                             'or of another model')
        return self._where[name].get_tensor(name)


def read_config(path: Path, complete: bool = False) -> PreTrainedConfig:
    """Read ``config.json``. Raises ``ModelError`` when there is none, or it asks for own code.

    A `complete` one leaves nothing to the defaults of its model type.
    """
    try:
        data = json.loads((path / 'config.json').read_text())
        if complete:
            # The classes of model types import half of torch: 1.5 s and 90 MB.
            config = PreTrainedConfig.from_dict(data)
            config.model_type = data['model_type']
            return config
        if 'auto_map' in data and 'model_type' not in data:
            raise ModelError(f'{path} needs code of its own, which is never run')
        return AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False)
    except FileNotFoundError as error:
        raise ModelError(f'{path} is not a model directory: it holds no config.json') from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(f'{path / "config.json"} cannot be used: {error}') from error


def read_tokenizer(path: Path, config: PreTrainedConfig):
    """Read the tokenizer. Raises ``ModelError`` when there is none without own code."""
    try:
        return AutoTokenizer.from_pretrained(
            str(path), config=config, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, OSError, ImportError) as error:
        raise ModelError(f'{path} holds no tokenizer that can be loaded '
                         f'(tokenizer.json and tokenizer_config.json): {error}') from error
