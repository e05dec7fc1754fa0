# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts that a directory has in one tensor a layer, as single matrices.

In files of Qwen, gates and ups of an expert follow each other, [experts, 2 * rows, inputs]; those
of Qwen3-VL are transposed. In those of GPT-OSS, they take turns, and floats are transposed; MXFP4
(OCP Microscaling Formats 1.0) has blocks of 32 inputs, two codes in a byte, and an exponent for
each.
"""

from collections.abc import Iterator
import math
import re
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.checkpoints.regroup import GgufDecoder
from slice_ros.engine.checkpoints.stored_weights import Bfloats, Codes, GROUP, Rows, StoredRows
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.errors import ModelError

if TYPE_CHECKING:
    import torch

_PART = re.compile(
    r'(model\.layers\.\d+\.mlp\.experts\.)(\d+)\.(gate|up|down)_proj\.(weight|bias)')
_JOINED = re.compile(r'(model\.layers\.\d+\.mlp\.experts)\.gate_up_proj(_blocks)?')
_SINKS = re.compile(r'model\.layers\.\d+\.self_attn\.sinks')
_MOST_EXPERTS = 1 << 10
_HALF_BLOCK = GROUP // 2   # bytes of the codes of a block


def expert_tensors(tensors: Tensors, model_type: str, decoder: GgufDecoder) -> Tensors:
    """Return the tensors of a directory, those of its experts as single matrices."""
    joined = {found[1]: bool(found[2]) for name in tensors.names()
              if (found := _JOINED.fullmatch(name))}
    return _ExpertTensors(tensors, joined, model_type == 'gpt_oss', decoder
                          ) if joined else tensors


class _ExpertTensors(Tensors):
    """`joined` has the prefixes of the experts of layers, and whether these are MXFP4."""

    def __init__(self, tensors: Tensors, joined: dict[str, bool], in_turns: bool,
                 decoder: GgufDecoder) -> None:
        self._tensors, self._joined, self._in_turns = tensors, joined, in_turns
        self._decoder = decoder
        self._across = {prefix for prefix, blocks in joined.items()
                        if not blocks and (in_turns or self._is_across(prefix))}

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: str) -> bool:
        found = _PART.fullmatch(name)
        if found is None:
            return self._plain(name) in self._tensors
        prefix, expert, part, kind = found.groups()
        stored = self._stored(prefix, part, kind)
        return stored in self._tensors and int(expert) < self._shape(stored)[0]

    def __getitem__(self, name: str) -> 'torch.Tensor':
        import torch
        if _PART.fullmatch(name) is None:
            return self._tensors[self._plain(name)]
        return torch.from_numpy(self.floats(name))

    def _is_across(self, prefix: str) -> bool:
        """Return whether the experts of a layer are transposed: outputs are columns then."""
        gate_up, down = (f'{prefix}.{part}_proj' for part in ('gate_up', 'down'))
        # An expert has so many rows, twice in one tensor; else these would be the hidden width.
        return down in self._tensors and self._shape(gate_up)[2] == 2 * self._shape(down)[1]

    def floats(self, name: str) -> np.ndarray:
        """As `Tensors.floats`."""
        found = _PART.fullmatch(name)
        if found is None:
            return self._tensors.floats(self._plain(name))
        prefix, expert, part, kind = found.groups()
        if kind == 'bias':
            return self._tensors.floats(self._stored(prefix, part, kind))[int(expert)][
                self._rows_of(name)]
        rows = self.rows(name).rows(slice(None))
        return np.asarray(rows, np.float32) if isinstance(rows, np.ndarray) else rows.floats()

    def names(self) -> Iterator[str]:
        """Yield the names of all tensors."""
        for name in self._tensors.names():
            prefix, _, rest = name.rpartition('.')
            if prefix not in self._joined:
                yield f'{name}.weight' if _SINKS.fullmatch(name) else name
                continue
            part, _, kind = rest.partition('_proj')
            if kind not in ('', '_bias', '_blocks', '_scales') or part not in ('gate_up', 'down'):
                yield name
            elif kind != '_scales':
                of = 'bias' if kind == '_bias' else 'weight'
                for expert in range(min(self._shape(name)[0], _MOST_EXPERTS)):
                    for one in ('gate', 'up') if part == 'gate_up' else (part,):
                        yield f'{prefix}.{expert}.{one}_proj.{of}'

    @property
    def nbytes(self) -> int:
        """As `Tensors.nbytes`; the codes of MXFP4 take 8 bits in memory."""
        blocks = [name for name in self._tensors.names() if name.endswith('_blocks')]
        return self._tensors.nbytes + sum(math.prod(self._tensors.shape(name)) for name in blocks)

    def shape(self, name: str) -> tuple[int, ...]:
        """As `Tensors.shape`."""
        found = _PART.fullmatch(name)
        if found is None:
            return self._tensors.shape(self._plain(name))
        prefix, expert, part, kind = found.groups()
        stored = self._stored(prefix, part, kind)
        if int(expert) >= self._shape(stored)[0]:
            raise ModelError(f'there is no tensor {name}: {stored} has '
                             f'{self._shape(stored)[0]} experts')
        rows = len(range(*self._rows_of(name).indices(self._sides(stored)[0])))
        return (rows, self._sides(stored)[1]) if kind == 'weight' else (rows,)

    def kind(self, name: str) -> str | None:
        """As `Tensors.kind`."""
        found = _PART.fullmatch(name)
        if found is None:
            return self._tensors.kind(self._plain(name))
        return 'int8' if found[4] == 'weight' and self._joined.get(found[1][:-1]) else None

    def rows(self, name: str) -> StoredRows:
        """As `Tensors.rows`; a transposed matrix is read as a whole."""
        found = _PART.fullmatch(name)
        if found is None:
            return self._tensors.rows(self._plain(name))
        prefix, expert, part, kind = found.groups()
        stored, kind = self._stored(prefix, part, kind), self.kind(name)
        if not kind and prefix[:-1] in self._across:
            return self._transposed(stored, int(expert), self._rows_of(name))
        read, rows = self._codes if kind else self._neighbours, self._rows_of(name)

        def some(first: int, last: int) -> Rows:
            start = rows.start + first * rows.step
            return read(stored, int(expert), slice(start, start + (last - first) * rows.step,
                                                   rows.step))
        return StoredRows(self.shape(name), kind, some)

    def _neighbours(self, stored: str, expert: int, rows: slice) -> Rows:
        first = expert * self._shape(stored)[1]
        return self._tensors.rows(stored).rows(slice(first + rows.start, first + rows.stop))

    def _transposed(self, stored: str, expert: int, rows: slice) -> StoredRows:
        """Return rows that are columns of the file: these are read together, when some are."""
        _, inputs, outputs = self._shape(stored)
        whole, lock = [], Lock()

        def read(first: int, last: int) -> np.ndarray | Bfloats:
            with lock:  # rows are asked for by several threads
                if not whole:
                    found = self._tensors.rows(stored).rows(
                        slice(expert * inputs, (expert + 1) * inputs))
                    of_bits = isinstance(found, Bfloats)
                    columns = (found.bits if of_bits else found)[:, rows].T
                    whole.append(Bfloats(columns) if of_bits else columns)
            order = slice(first, last)
            return whole[0].rows(order) if isinstance(whole[0], Bfloats) else whole[0][order]
        return StoredRows((len(range(*rows.indices(outputs))), inputs), None, read)

    def _codes(self, stored: str, expert: int, rows: slice) -> Codes:
        """Return the codes of MXFP4 as those of Q8, which have all its values."""
        _, outputs, groups, _ = self._shape(stored)
        first, last = expert * outputs + rows.start, expert * outputs + min(rows.stop, outputs)
        pairs = self._tensors.rows(stored).rows(slice(first * groups, last * groups))
        pairs = pairs.reshape(-1, groups, _HALF_BLOCK)[::rows.step]
        exponents = self._tensors.rows(_exponents(stored)).rows(slice(first, last))[::rows.step]
        # Neighbours share a byte; in blocks of GGUF, numbers 16 apart do.
        codes = np.stack((pairs & 15, pairs >> 4), -1).reshape(-1, groups, 2, _HALF_BLOCK)
        blocks = np.concatenate((exponents[..., None], codes[:, :, 0] | codes[:, :, 1] << 4), -1)
        return self._decoder.codes(blocks.reshape(len(blocks), -1), 'MXFP4')

    def _plain(self, name: str) -> str:
        """Return what the file calls a tensor that is of no expert."""
        return name.removesuffix('.weight') if _SINKS.fullmatch(
            name.removesuffix('.weight')) else name

    def _stored(self, prefix: str, part: str, kind: str) -> str:
        """Return the tensor of the file that has a part of all experts of a layer."""
        end = '_bias' if kind == 'bias' else '_blocks' if self._joined.get(prefix[:-1]) else ''
        return f'{prefix}{"down" if part == "down" else "gate_up"}_proj{end}'

    def _shape(self, stored: str) -> tuple[int, ...]:
        """Return the shape of such a tensor. Raises ``ModelError`` for one that it cannot have."""
        shape = self._tensors.shape(stored)
        if stored.endswith('_blocks'):
            fits = len(shape) == 4 and shape[-1] == _HALF_BLOCK and (
                self._tensors.shape(_exponents(stored)) == shape[:-1])
        else:
            fits = len(shape) == (2 if stored.endswith('_bias') else 3)
        if not fits:
            raise ModelError(f'tensor {stored} of experts has the shape {list(shape)!s:.80}, or '
                             'its scales have another: it is damaged')
        return shape

    def _sides(self, stored: str) -> tuple[int, int]:
        """Return outputs and inputs of an expert in such a tensor."""
        shape = self._shape(stored)
        if stored.endswith('_bias'):
            return shape[1], 0
        if stored.endswith('_blocks'):
            return shape[1], shape[2] * GROUP
        across = stored.rpartition('.')[0] in self._across
        return (shape[2], shape[1]) if across else (shape[1], shape[2])

    def _rows_of(self, name: str) -> slice:
        """Return the outputs that are those of a part."""
        prefix, _, part, kind = _PART.fullmatch(name).groups()
        count = self._sides(self._stored(prefix, part, kind))[0]
        if part == 'down':
            return slice(0, count, 1)
        if self._in_turns:
            return slice(part == 'up', count, 2)
        half = count // 2
        return slice(0, half, 1) if part == 'gate' else slice(half, count, 1)


def _exponents(blocks: str) -> str:
    return blocks.removesuffix('_blocks') + '_scales'
