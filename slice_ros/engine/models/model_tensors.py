# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint under the names of `architecture`, whatever its family calls them.

Fused matrices are cut into their parts; rows of queries and keys that a rope pairs as neighbours
are put half by half, which is what the runners rotate.
"""

from collections.abc import Iterator

import numpy as np
from slice_ros.engine.checkpoints.stored_weights import Bfloats, Codes, Rows, StoredRows
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.models.architecture import (
    Architecture, DOWN, EMBEDDING, FINAL_NORM, GATE_UP, HEAD, layer_name, NORMS, OUT, QK_NORMS,
    QKV)
import torch

# Tensors that some files hold and no runner needs: they follow from the config.
_DERIVED = ('rotary_emb.inv_freq', 'rope_freqs')


class ModelTensors:
    """The tensors that an architecture needs; as those of `Tensors`, by the names above.

    Raises ``ModelError`` for a tensor that does not exist.
    """

    def __init__(self, architecture: Architecture, tensors: Tensors) -> None:
        self._made, self.stored = architecture, tensors
        # part -> the fused part of the file, first row and row after the last
        self._cut: dict[str, tuple[str, int, int]] = {}
        shapes = part_shapes(architecture)
        for fused, parts in architecture.fused.items():
            first = 0
            for part in parts:
                rows = shapes[part][0]
                self._cut[part] = fused, first, first + rows
                first += rows

    def __contains__(self, name: str) -> bool:
        stem, _, kind = name.rpartition('.')
        if stem == HEAD and self._made.tied:
            return False
        return f'{self._stored(stem)[0]}.{kind}' in self.stored

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor; norms are float32, with the offset of the family added."""
        stem, _, kind = name.rpartition('.')
        stored, first, last, part = self._stored(stem)
        tensor = self.stored[f'{stored}.{kind}']
        if last is not None:
            tensor = tensor[first:last]
        if part in NORMS or part == FINAL_NORM or part in QK_NORMS:
            return tensor.to(torch.float32) + self._made.norm_offset
        if self._turned(part):
            tensor = tensor[torch.from_numpy(self._order(0, len(tensor)))]
        return tensor

    def rows(self, name: str) -> Rows:
        """Return a matrix that stays in its file until rows of it are read."""
        stem, _, kind = name.rpartition('.')
        stored, start, last, part = self._stored(stem)
        rows = self.stored.rows(f'{stored}.{kind}')
        if last is None and not self._turned(part):
            return rows
        count = rows.shape[0] if last is None else last - start

        def read(first: int, last: int) -> np.ndarray | Bfloats | Codes:
            if not self._turned(part):
                return _take(rows, slice(start + first, start + last))
            order = self._order(first, last)
            least = int(order.min())
            found = _take(rows, slice(start + least, start + int(order.max()) + 1))
            return found[order - least] if isinstance(found, np.ndarray) else found.rows(
                order - least)

        return StoredRows((count, rows.shape[1]), getattr(rows, 'kind', None), read)

    def as_stored(self, name: str) -> torch.Tensor | Codes:
        """Return a matrix as `Codes` where the file has it so, else as floats."""
        stem, _, kind = name.rpartition('.')
        if isinstance(self.stored, Tensors) and self.stored.kind(
                f'{self._stored(stem)[0]}.{kind}') is not None:
            return self.rows(name).rows(slice(None))
        return self[name]

    def get(self, name: str) -> torch.Tensor | None:
        """Return a tensor, None if there is none of this name."""
        return self[name] if name in self else None

    def needed(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes of the tensors that the file must have.

        From the last layer on: a false number of layers fails at once.
        """
        made, shapes = self._made, part_shapes(self._made)
        yield f'{EMBEDDING}.weight', (made.vocabulary, made.hidden)
        yield f'{FINAL_NORM}.weight', (made.hidden,)
        if f'{HEAD}.weight' in self:
            yield f'{HEAD}.weight', (made.vocabulary, made.hidden)
        whole = {fused: (sum(shapes[part][0] for part in parts), shapes[parts[0]][1])
                 for fused, parts in made.fused.items()}
        cut = {part for parts in made.fused.values() for part in parts}
        wanted = whole | {part: shapes[part] for part in _parts(made) if part not in cut}
        for layer in reversed(range(len(made.layers))):
            for part, shape in wanted.items():
                yield f'{self._stored(layer_name(layer, part))[0]}.weight', shape

    def unused(self) -> str | None:
        """Return the name of a tensor of the file that the description does not speak of."""
        used = {name for name, _ in self.needed()} | {f'{HEAD}.weight'}
        # Matrices of layers may have a bias beside their weights, or be packed in several tensors.
        matrices = {stem for stem in (name.rpartition('.')[0] for name in used)
                    if stem.endswith('_proj')}
        for name in self.stored.names():
            if (name not in used and name.rpartition('.')[0] not in matrices
                    and not any(derived in name for derived in _DERIVED)):
                return name
        return None

    def _stored(self, stem: str) -> tuple[str, int, int | None, str]:
        """Return what the file calls a tensor, its rows there (None: all), and its part."""
        if not stem.startswith('model.layers.'):
            return stem, 0, None, stem
        layer, _, part = stem.removeprefix('model.layers.').partition('.')
        stored, first, last = self._cut.get(part, (part, 0, None))
        stored = self._made.norms.get(stored, stored)
        return layer_name(int(layer), stored), first, last, part

    def _turned(self, part: str) -> bool:
        return self._made.interleaved and part in QKV[:2]

    def _order(self, first: int, last: int) -> np.ndarray:
        """Return the rows of the file for rows [first, last): even ones of a head, then odd."""
        dim = self._made.head_dim
        half = len(self._made.ropes[0].frequencies)
        one = np.concatenate((np.arange(0, 2 * half, 2), np.arange(1, 2 * half, 2),
                              np.arange(2 * half, dim)))
        rows = np.arange(first, last)
        return rows // dim * dim + one[rows % dim]


def _parts(architecture: Architecture) -> list[str]:
    return [*architecture.norms, *QKV, *(QK_NORMS if architecture.qk_norm else ()), OUT, *GATE_UP,
            DOWN]


def part_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of each part of a layer."""
    made = architecture
    queries, keys = made.heads * made.head_dim, made.kv_heads * made.head_dim
    normed = {'head': (made.head_dim,) * 2, 'all': (queries, keys)}.get(made.qk_norm, ())
    return {
        **{norm: (made.hidden,) for norm in NORMS},
        **dict(zip(QKV, ((queries, made.hidden), (keys, made.hidden), (keys, made.hidden)))),
        **{name: (size,) for name, size in zip(QK_NORMS, normed)},
        OUT: (made.hidden, queries), DOWN: (made.hidden, made.intermediate),
        **{part: (made.intermediate, made.hidden) for part in GATE_UP}}


def _take(rows: Rows, order: slice) -> np.ndarray | Bfloats | Codes:
    return rows[order] if isinstance(rows, np.ndarray) else rows.rows(order)
