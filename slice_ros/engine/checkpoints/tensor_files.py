# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Safetensors files, read in pieces, so that no tensor is in memory twice."""

from collections.abc import Iterator
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open, SafetensorError
from slice_ros.engine.checkpoints.stored_weights import Bfloats, StoredRows
from slice_ros.errors import ModelError, one_line

if TYPE_CHECKING:
    import torch

_DTYPES = {'F64': 'float64', 'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16',
           'U8': 'uint8'}   # of torch
_NUMPY = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': np.uint16,
          'U8': np.uint8}


class Tensors:
    """The tensors of a safetensors file, or of those in a directory, each read when asked for.

    The files are not mapped: pages of a mapped file stay in memory until it is closed. Raises
    ``ModelError`` for files that are missing or damaged, and for a tensor that does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        files = [path] if path.is_file() else sorted(path.glob('*.safetensors'))
        index = path / 'model.safetensors.index.json'
        if index.exists():
            files = _listed(index)
        if not files:
            others = [p.name for p in path.glob('*.bin')] + [p.name for p in path.glob('*.pt*')]
            raise ModelError(
                f'{path} holds no *.safetensors'
                + (f', only {", ".join(others[:3])}: pickled weights can run code and are never '
                   'loaded; convert them to safetensors' if others else
                   ': put the weights of the model there'))
        self._where: dict[str, tuple[Path, int, dict]] = {}
        try:
            for file in files:
                with safe_open(file, framework='np'):  # checks the header against the file
                    start, header = _header(file)
                self._where |= {_renamed(name): (file, start, entry)
                                for name, entry in header.items()}
        except (SafetensorError, OSError) as error:
            raise ModelError(f'{file} cannot be read ({error}): copy or download it again'
                             ) from error

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __getitem__(self, name: str) -> 'torch.Tensor':
        import torch
        entry = self._entry(name)
        return torch.from_numpy(self._read(name)).view(
            getattr(torch, _DTYPES[entry['dtype']])).reshape(entry['shape'])

    def floats(self, name: str) -> np.ndarray:
        """Return a tensor as float32; meant for the small ones, norms and biases."""
        entry = self._entry(name)
        values = self._read(name).view(_NUMPY[entry['dtype']]).reshape(entry['shape'])
        if entry['dtype'] == 'BF16':
            return Bfloats(values).floats()
        return values.astype(np.float32)

    def names(self) -> Iterator[str]:
        """Yield the names of all tensors."""
        yield from self._where

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without reading it."""
        return tuple(self._entry(name)['shape'])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry['data_offsets'][1] - entry['data_offsets'][0]
                   for _, _, entry in self._where.values())

    def kind(self, name: str) -> str | None:
        """Return the kind of `Codes` that a tensor is read as; None for floats."""
        return None

    def rows(self, name: str) -> StoredRows:
        """Return a matrix that stays in its file until rows of it are read.

        Of several matrices in one tensor, the rows follow each other.
        """
        entry = self._entry(name)
        if len(entry['shape']) not in (2, 3, 4):
            raise ModelError(f'{self._path}: tensor {name} is no matrix: it has the shape '
                             f'{entry["shape"]}')
        outputs, inputs = math.prod(entry['shape'][:-1]), entry['shape'][-1]
        dtype = np.dtype(_NUMPY[entry['dtype']])

        def read(first: int, last: int) -> np.ndarray | Bfloats:
            width = inputs * dtype.itemsize
            data = self._read(name, first * width, last * width).view(dtype)
            data = data.reshape(last - first, inputs)
            return Bfloats(data) if entry['dtype'] == 'BF16' else data
        return StoredRows((outputs, inputs), None, read)

    def _entry(self, name: str) -> dict:
        if name not in self._where:
            raise ModelError(f'{self._path} holds no tensor {name}: the weights are incomplete '
                             'or of another model')
        file, _, entry = self._where[name]
        if entry['dtype'] not in _DTYPES:
            raise ModelError(f'{file}: tensor {name} is of type {entry["dtype"]}, which cannot be '
                             f'read: convert it to one of {", ".join(_DTYPES)}')
        return entry

    def _read(self, name: str, first: int = 0, last: int | None = None) -> np.ndarray:
        """Return the bytes [first, last) of a tensor, by default all."""
        file, start, entry = self._where[name]
        begin, end = entry['data_offsets']
        count = (end - begin if last is None else last) - first
        try:
            data = np.fromfile(file, np.uint8, count, offset=start + begin + first)
        except OSError as error:
            raise ModelError(f'{file} cannot be read ({error})') from error
        if len(data) < count:
            raise ModelError(f'{file} was cut short: copy or download it again')
        return data


def _renamed(name: str) -> str:
    """Return the name of a tensor; some families call the model the backbone of its head."""
    stem, _, rest = name.partition('.')
    return f'model.{rest}' if stem == 'backbone' else name


def _listed(index: Path) -> list[Path]:
    """Return the files that an index names, all in its directory."""
    try:
        names = sorted(set(json.loads(index.read_text())['weight_map'].values()))
        if any(Path(name).name != name or not name.endswith('.safetensors') for name in names):
            raise ValueError('it names files that are no *.safetensors beside it')
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ModelError(f'{index} cannot be used ({one_line(error)}): copy or download it again'
                         ) from error
    return [index.parent / name for name in names]


def _header(file: Path) -> tuple[int, dict[str, dict]]:
    """Return the offset of the data in a safetensors file, and its tensors by name."""
    with file.open('rb') as opened:
        size = int.from_bytes(opened.read(8), 'little')
        header = json.loads(opened.read(size))
    header.pop('__metadata__', None)
    return 8 + size, header
