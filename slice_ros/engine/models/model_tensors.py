# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint under the names of `architecture`, whatever its family calls them.

Fused matrices are cut into their parts; rows of queries and keys that a rope pairs as neighbours
are put half by half, which is what the runners rotate.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.checkpoints.stored_weights import (
    as_floats, Bfloats, Codes, Rows, StoredRows)
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.models.architecture import (
    Architecture, DOWN, EMBEDDING, FINAL_NORM, GATES, HEAD, layer_name, mlp_parts, NORMS,
    OF_EXPERTS, OUT, QK_NORMS, QKV, ROUTER, SINKS)
from slice_ros.engine.models.expert_files import ExpertFiles
from slice_ros.engine.models.part_shapes import (
    absent_parts, cut_parts, part_shapes, recurrence_shapes, shared_shapes)

if TYPE_CHECKING:
    import torch

# Tensors that some files hold and no runner needs: they follow from the config.
_DERIVED = ('rotary_emb.inv_freq', 'rope_freqs')


class ModelTensors:
    """The tensors that an architecture needs; as those of `Tensors`, by the names above.

    Raises ``ModelError`` for a tensor that does not exist.
    """

    def __init__(self, architecture: Architecture, tensors: Tensors) -> None:
        self._made, self.stored = architecture, tensors
        self._experts = None if architecture.experts is None else ExpertFiles(architecture)
        # part -> the fused part of the file, first row and row after the last
        self._cut = cut_parts(architecture)

    def __contains__(self, name: str) -> bool:
        stem, _, kind = name.rpartition('.')
        if stem == HEAD and self._made.tied:
            return False
        return f'{self._stored(stem)[0]}.{kind}' in self.stored

    def __getitem__(self, name: str) -> 'torch.Tensor':
        """Return a tensor; weights of norms are float32, with the offset of the family added."""
        import torch
        stem, _, kind = name.rpartition('.')
        stored, first, last, part = self._stored(stem)
        tensor = self.stored[f'{stored}.{kind}']
        if kind == 'bias':
            tensor = tensor.reshape(-1)[first:last]   # those of all experts may be together
        else:
            tensor = (tensor.flatten(0, 1) if tensor.ndim > 2 else tensor)[first:last]
        if (factor := self._factor(part, kind)) != 1:
            tensor = tensor * factor
        if _is_norm(part, kind):
            tensor = tensor.reshape(-1).to(torch.float32) + self._made.norm_offset
        if self._turned(part):
            tensor = tensor[torch.from_numpy(self._order(part, 0, self._count(part, len(tensor))))]
        return tensor

    def floats(self, name: str) -> np.ndarray:
        """Return a norm, with the offset of the family added, or a bias, as float32."""
        stem, _, kind = name.rpartition('.')
        stored, first, last, part = self._stored(stem)
        values = self.stored.floats(f'{stored}.{kind}')
        if last is not None:   # those of all experts may be together
            flat = (-1,) if kind == 'bias' else (-1, values.shape[-1])
            values = values.reshape(flat)[first:last]
        if (factor := self._factor(part, kind)) != 1:
            values = values * np.float32(factor)
        if _is_norm(part, kind):
            values = values.reshape(-1) + np.float32(self._made.norm_offset)
        if not self._turned(part):
            return values
        return values[self._order(part, 0, self._count(part, len(values)))]

    def rows(self, name: str) -> Rows:
        """Return a matrix that stays in its file until rows of it are read."""
        stem, _, kind = name.rpartition('.')
        stored, start, last, part = self._stored(stem)
        rows = self.stored.rows(f'{stored}.{kind}')
        factor = self._factor(part, kind)
        if last is None and not self._turned(part) and factor == 1:
            return rows
        count = self._count(part, rows.shape[0]) if last is None else last - start

        def read(first: int, last: int) -> np.ndarray | Bfloats | Codes:
            if not self._turned(part):
                return _take(rows, slice(start + first, start + last))
            order = self._order(part, first, last)
            least = int(order.min())
            found = _take(rows, slice(start + least, start + int(order.max()) + 1))
            return found[order - least] if isinstance(found, np.ndarray) else found.rows(
                order - least)

        if factor != 1:
            return StoredRows((count, rows.shape[1]), None, lambda first, last: (
                as_floats(read(first, last)) * np.float32(factor)))
        return StoredRows((count, rows.shape[1]), getattr(rows, 'kind', None), read)

    def as_stored(self, name: str) -> 'torch.Tensor | Codes':
        """Return a matrix as `Codes` where the file has it so, else as floats."""
        stem, _, kind = name.rpartition('.')
        stored, _, _, part = self._stored(stem)
        if isinstance(self.stored, Tensors) and self.stored.kind(
                f'{stored}.{kind}') is not None and self._factor(part, kind) == 1:
            return self.rows(name).rows(slice(None))
        return self[name]

    def get(self, name: str) -> 'torch.Tensor | None':
        """Return a tensor, None if there is none of this name."""
        return self[name] if name in self else None

    def stored_name(self, name: str) -> str:
        """Return what the file calls a tensor, or the one that it is a part of."""
        stem, _, kind = name.rpartition('.')
        return f'{self._stored(stem)[0]}.{kind}'

    def needed(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes of the tensors that the file must have.

        From the last layer on: a false number of layers fails at once.
        """
        made, shapes = self._made, part_shapes(self._made)
        yield f'{self._stored(EMBEDDING)[0]}.weight', (made.vocabulary, made.hidden)
        yield from self._norm(self._stored(FINAL_NORM)[0])
        if f'{HEAD}.weight' in self:
            yield f'{HEAD}.weight', (made.vocabulary, made.hidden)
        whole = {fused: (sum(shapes[part][0] for part in parts), shapes[parts[0]][1])
                 for fused, parts in made.fused.items()}
        cut = {part for parts in made.fused.values() for part in parts}
        wanted = whole | {part: shapes[part] for part in _parts(made) if part not in cut}
        if made.gated:
            wanted[QKV[0]] = 2 * shapes[QKV[0]][0], made.hidden
        for layer in reversed(range(len(made.layers))):
            kind = made.layers[layer]
            absent = absent_parts(made, kind)
            for norm in made.norms:
                if norm not in absent:
                    yield from self._norm(self._stored(layer_name(layer, norm))[0])
            for part, shape in wanted.items():
                if part not in absent:
                    yield f'{self._stored(layer_name(layer, part))[0]}.weight', shape
            if kind.sparse:
                yield from self._experts.needed(layer)
            if kind.recurrent:
                for name, shape in recurrence_shapes(made).items():
                    yield self.stored_name(layer_name(layer, name)), shape

    def _norm(self, stored: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f'{stored}.weight', (self._made.hidden,)
        if self._made.norm == 'biased':
            yield f'{stored}.bias', (self._made.hidden,)

    def of_experts(self, name: str) -> bool:
        """Return whether a tensor of the file is of an expert or of a router."""
        return self._experts is not None and self._experts.holds(name)

    def unused(self) -> str | None:
        """Return the name of a tensor of the file that the description does not speak of."""
        used = {name for name, _ in self.needed()} | {f'{HEAD}.weight'}
        # Matrices of layers may have a bias beside their weights, or be packed in several tensors.
        matrices = {stem for stem in (name.rpartition('.')[0] for name in used)
                    if stem.endswith('_proj')}
        for name in self.stored.names():
            if name not in used and (
                    name.rpartition('.')[0] not in matrices
                    and not any(derived in name for derived in _DERIVED)
                    or name.endswith('.bias') and self.of_experts(name)):
                return name
        return None

    def _stored(self, stem: str) -> tuple[str, int, int | None, str]:
        """Return what the file calls a tensor, its rows there (None: all), and its part."""
        if not stem.startswith('model.layers.'):
            return self._made.renamed.get(stem, stem), 0, None, stem
        layer, _, part = stem.removeprefix('model.layers.').partition('.')
        if part == GATES:
            return layer_name(int(layer), QKV[0]), 0, None, part
        if self._made.layers[int(layer)].sparse:
            if part == ROUTER:
                return layer_name(int(layer), self._made.experts.files[ROUTER]), 0, None, part
            if part.startswith(OF_EXPERTS):
                return self._experts.place(int(layer), part)
        stored, first, last = self._cut.get(part, (part, 0, None))
        stored = self._made.norms.get(stored) or self._made.renamed.get(stored, stored)
        return layer_name(int(layer), stored), first, last, part

    def _factor(self, part: str, kind: str) -> float:
        return self._made.factors.get(f'{part}.{kind}', 1.0)

    def _turned(self, part: str) -> bool:
        return self._made.interleaved and part in (*QKV[:2], *QK_NORMS) or (
            self._made.gated and part in (QKV[0], GATES))

    def _count(self, part: str, rows: int) -> int:
        """Return the rows of a part that has `rows` in the file."""
        return rows // 2 if self._made.gated and part in (QKV[0], GATES) else rows

    def _order(self, part: str, first: int, last: int) -> np.ndarray:
        """Return the rows of the file for rows [first, last).

        Interleaved, they are the even ones of a head, then the odd ones. Gated, the queries of
        each head, and its gates behind them.
        """
        dim = self._made.head_dim
        if self._made.gated:
            rows = np.arange(first, last)
            return rows + (rows // dim + (part == GATES)) * dim
        half = len(self._made.ropes[0].frequencies)
        one = np.concatenate((np.arange(0, 2 * half, 2), np.arange(1, 2 * half, 2),
                              np.arange(2 * half, dim)))
        rows = np.arange(first, last)
        return rows // dim * dim + one[rows % dim]


def _is_norm(part: str, kind: str) -> bool:
    return kind == 'weight' and (part in NORMS or part == FINAL_NORM or part in QK_NORMS)


def _parts(architecture: Architecture) -> list[str]:
    return [*QKV, *(QK_NORMS if architecture.qk_norm else ()), OUT, *mlp_parts(architecture), DOWN,
            *((SINKS,) if architecture.sinks else ()), *shared_shapes(architecture)]


def _take(rows: Rows, order: slice) -> np.ndarray | Bfloats | Codes:
    return rows[order] if isinstance(rows, np.ndarray) else rows.rows(order)
