# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Safetensors files, read and written in pieces, so that no tensor is in memory twice."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
import json
import math
from pathlib import Path

import numpy as np
from safetensors import safe_open, SafetensorError
from slice_ros.engine.checkpoints.stored_weights import Bfloats, Codes, GGUF_FORMATS, StoredRows
from slice_ros.errors import ModelError, one_line
import torch

_DTYPES = {'F64': torch.float64, 'F32': torch.float32, 'F16': torch.float16,
           'BF16': torch.bfloat16, 'U8': torch.uint8}
_NUMPY = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': np.uint16,
          'U8': np.uint8}
_NAMES = {np.dtype(dtype): name for name, dtype in _NUMPY.items() if name != 'BF16'}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A tensor to be written to a file; `pieces` yields its rows in parts, in order."""

    name: str
    dtype: np.dtype         # uint8, float16, float32 or float64
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[np.ndarray]]


def write(path: Path, tensors: Sequence[Outgoing]) -> None:
    """Write a safetensors file, with one piece of one tensor in memory at a time."""
    header, at = {'__metadata__': {'format': 'pt'}}, 0
    for tensor in tensors:
        end = at + math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        header[tensor.name] = {'dtype': _NAMES[np.dtype(tensor.dtype)],
                               'shape': list(tensor.shape), 'data_offsets': [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with path.open('wb') as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for tensor in tensors:
            for piece in tensor.pieces():
                with np.errstate(over='ignore'):  # becomes infinite, which loading refuses
                    file.write(np.ascontiguousarray(piece, tensor.dtype))


class Tensors:
    """The tensors of the safetensors files in a directory, each read when it is asked for.

    The files are not mapped: pages of a mapped file stay in memory until it is closed. Raises
    ``ModelError`` for files that are missing or damaged, and for a tensor that does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        files = sorted(path.glob('*.safetensors'))
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
                self._where |= {name: (file, start, entry) for name, entry in header.items()}
        except (SafetensorError, OSError) as error:
            raise ModelError(f'{file} cannot be read ({error}): copy or download it again'
                             ) from error

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where or self._format(name) is not None

    def __getitem__(self, name: str) -> torch.Tensor:
        if self._format(name) is not None:
            return torch.from_numpy(self.rows(name).rows(slice(None)).floats())
        entry = self._entry(name)
        return torch.from_numpy(self._read(name)).view(_DTYPES[entry['dtype']]).reshape(
            entry['shape'])

    def names(self) -> Iterator[str]:
        """Yield the names of all tensors, without the GGUF formats after them."""
        for name in self._where:
            stem, _, kind = name.rpartition('.')
            yield stem if kind in GGUF_FORMATS else name

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without reading it."""
        if self._format(name) is not None:
            return self.rows(name).shape
        return tuple(self._entry(name)['shape'])

    def rows(self, name: str) -> StoredRows:
        """Return a matrix that stays in its file until rows of it are read.

        Rows of a GGUF format that the native kernels can use are read as `Codes`.
        """
        gguf = self._format(name)
        stored = name if gguf is None else f'{name}.{gguf}'
        entry = self._entry(stored)
        if len(entry['shape']) != 2:
            raise ModelError(f'{self._path}: tensor {name} is no matrix: it has the shape '
                             f'{entry["shape"]}')
        outputs, inputs = entry['shape']
        dtype = np.dtype(_NUMPY[entry['dtype']])

        def read(first: int, last: int) -> np.ndarray | Bfloats | Codes:
            width = inputs * dtype.itemsize
            data = self._read(stored, first * width, last * width).view(dtype)
            data = data.reshape(last - first, inputs)
            if gguf is not None:
                return Codes.from_gguf(data, gguf)
            return Bfloats(data) if entry['dtype'] == 'BF16' else data

        if gguf is None:
            return StoredRows((outputs, inputs), None, read)
        kind, size = GGUF_FORMATS[gguf]
        return StoredRows((outputs, inputs // size * 32), kind, read)

    def _format(self, name: str) -> str | None:
        return next((kind for kind in GGUF_FORMATS if f'{name}.{kind}' in self._where), None)

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
