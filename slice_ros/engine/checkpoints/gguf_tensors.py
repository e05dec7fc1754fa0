# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The tensors of a GGUF file, read and decoded in pieces when they are asked for."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
import math
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_header import StoredTensor
from slice_ros.engine.checkpoints.regroup import form_of, GgufDecoder
from slice_ros.engine.checkpoints.stored_weights import Codes, GGUF_FORMATS, StoredRows
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.errors import ModelError

if TYPE_CHECKING:
    import torch


# Matrices that stay in float32: biases of experts, and norms of which each head has its own.
_EXACT = ('.bias', '.q_norm.weight', '.k_norm.weight')
# Vectors that llama.cpp stores as matrices of one column, or of a row for each group.
_VECTORS = ('mamba.A_log', 'mamba.D', 'mamba.norm.weight')


class GgufTensors(Tensors):
    """The tensors under their Hugging Face names, floats of matrices in `dtype`.

    Matrices whose type has a form in integers are read as `Codes`; with float32, which keeps more
    of their scales, only those in a format of `GGUF_FORMATS` are. Norms and biases are float32,
    which is exact; they are small. Nothing is kept: the file is read at each start.
    """

    def __init__(self, file: GgufFile, dtype: np.dtype, decoder: GgufDecoder | None = None
                 ) -> None:
        self._file, self._path, self._dtype = file, file.path, np.dtype(dtype)
        self._decoder = decoder or GgufDecoder()
        self._tensors = {name: _flat(stored) if name.endswith(_VECTORS) else stored
                         for name, stored in file.named()}

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self) -> Iterator[str]:
        """Yield the names of all tensors."""
        yield from self._tensors

    def __getitem__(self, name: str) -> 'torch.Tensor':
        import torch
        return torch.from_numpy(self.floats(name))

    def floats(self, name: str) -> np.ndarray:
        """Return a tensor: float32, but matrices that are no `Codes` as this object has them."""
        stored = self._stored(name)
        if len(stored.shape) == 1 or name.endswith(_EXACT):
            order = self._file.order(stored)
            rows = math.prod(stored.shape[:-1])
            values = self._floats(stored, self._read(stored, 0, rows)).reshape(stored.shape)
            return values if order is None else values[order]
        rows = self.rows(name)
        values = rows.rows(slice(None))
        return values if rows.kind is None else values.floats()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in memory, before any runner changes their kind."""
        return sum(self._nbytes(name, stored) for name, stored in self._tensors.items())

    def _nbytes(self, name: str, stored: StoredTensor) -> int:
        size, kind = math.prod(stored.shape), self.kind(name)
        if kind is None:
            return size * self._dtype.itemsize
        return size // 32 * {'int4': 20, 'int8': 34}[kind]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without reading it."""
        return self._stored(name).shape

    def kind(self, name: str) -> str | None:
        """Return the kind of `Codes` that a tensor is read as; None for floats."""
        stored = self._stored(name)
        kind, exact = form_of(stored.type.name), stored.type.name in GGUF_FORMATS
        if len(stored.shape) == 1 or kind == 'fp16' or not exact and self._dtype == np.float32:
            return None
        return kind

    def rows(self, name: str) -> StoredRows:
        """Return a matrix that stays in its file until rows of it are read; as `Tensors.rows`."""
        stored, kind = self._stored(name), self.kind(name)
        if len(stored.shape) not in (2, 3):
            raise ModelError(f'{self._path}: tensor {name} is no matrix: it has the shape '
                             f'{list(stored.shape)}')
        shape = math.prod(stored.shape[:-1]), stored.shape[-1]
        return StoredRows(shape, kind, partial(self._rows, stored, kind is not None))

    def _rows(self, stored: StoredTensor, codes: bool, first: int, last: int
              ) -> np.ndarray | Codes:
        order, columns = self._file.order(stored), self._file.order_of_inputs(stored)
        if order is None:
            data = self._read(stored, first, last)
        else:  # the rows of a head are in another order
            order = order[first:last]
            low, high = int(order.min(initial=first)), int(order.max(initial=first - 1)) + 1
            data = self._read(stored, low, high)[order - low]
        if codes:
            found = self._decoder.codes(data, stored.type.name)
            return found if columns is None else found.columns(columns)
        values = self._floats(stored, data).astype(self._dtype, copy=False)
        return values if columns is None else values[:, columns]

    def _floats(self, stored: StoredTensor, data: np.ndarray) -> np.ndarray:
        try:
            return self._decoder.floats(data, stored.type.name)
        except NotImplementedError as error:
            raise ModelError(f'{self._path}: tensor {stored.name} has a format that the gguf '
                             f'package cannot read ({error})') from error

    def _stored(self, name: str) -> StoredTensor:
        if name not in self._tensors:
            raise ModelError(f'{self._path} holds no tensor {name}: the weights are incomplete '
                             'or of another model')
        return self._tensors[name]

    def _read(self, stored: StoredTensor, first: int, last: int) -> np.ndarray:
        """Return rows [first, last) as they are stored, uint8 [rows, bytes]."""
        width = stored.nbytes // math.prod(stored.shape[:-1])
        return self._file.read(stored, first * width, (last - first) * width).reshape(-1, width)


def _flat(stored: StoredTensor) -> StoredTensor:
    return replace(stored, shape=(math.prod(stored.shape),))
