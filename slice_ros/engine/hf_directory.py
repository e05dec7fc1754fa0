"""Hugging Face model directories: config, safetensors, tokenizer. No network, no remote code."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open, SafetensorError
from slice_ros.engine.native.weights import Codes, GGUF_FORMATS
from slice_ros.errors import ModelError
import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

_DTYPES = {'F64': torch.float64, 'F32': torch.float32, 'F16': torch.float16,
           'BF16': torch.bfloat16, 'U8': torch.uint8}


class Tensors:
    """The safetensors of a directory, read from the files one tensor at a time.

    They are not mapped: what was read of a mapped file stays in memory until all of it is closed.
    """

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
        self._where: dict[str, tuple[Path, int, dict]] = {}
        try:
            for file in files:
                with safe_open(file, framework='pt'):  # checks the header against the file
                    start, header = _header(file)
                self._where |= {name: (file, start, entry) for name, entry in header.items()}
        except (SafetensorError, OSError) as error:
            raise ModelError(f'{file} cannot be read ({error}): copy or download it again'
                             ) from error

    def __contains__(self, name: str) -> bool:
        return name in self._where or self._format(name) is not None

    def __getitem__(self, name: str) -> torch.Tensor:
        codes = self.codes(name)
        if codes is not None:
            return torch.from_numpy(codes.floats())
        if name not in self._where:
            raise ModelError(f'{self._path} holds no tensor {name}: the weights are incomplete '
                             'or of another model')
        return self._read(name)

    def codes(self, name: str) -> Codes | None:
        """Return a tensor that a GGUF file had in a format that the kernels keep, else None."""
        kind = self._format(name)
        return None if kind is None else Codes.from_gguf(
            self._read(f'{name}.{kind}').numpy(), kind)

    def _format(self, name: str) -> str | None:
        return next((kind for kind in GGUF_FORMATS if f'{name}.{kind}' in self._where), None)

    def _read(self, name: str) -> torch.Tensor:
        file, start, entry = self._where[name]
        first, last = entry['data_offsets']
        dtype = _DTYPES.get(entry['dtype'])
        if dtype is None:
            raise ModelError(f'{file}: tensor {name} is of type {entry["dtype"]}, which cannot be '
                             f'read: convert it to one of {", ".join(_DTYPES)}')
        try:
            data = np.fromfile(file, np.uint8, last - first, offset=start + first)
        except OSError as error:
            raise ModelError(f'{file} cannot be read ({error})') from error
        if len(data) < last - first:
            raise ModelError(f'{file} was cut short: copy or download it again')
        return torch.from_numpy(data).view(dtype).reshape(entry['shape'])


def _header(file: Path) -> tuple[int, dict[str, dict]]:
    """Return where the data of a safetensors file begin, and its tensors by name."""
    with file.open('rb') as opened:
        size = int.from_bytes(opened.read(8), 'little')
        header = json.loads(opened.read(size))
    header.pop('__metadata__', None)
    return 8 + size, header


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
