# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Safetensors directories with 4-bit weights as AWQ and GPTQ pack them.

A matrix x.weight is stored transposed, as x.qweight, x.qzeros and x.scales, eight codes in each
int32; its value is ``scale * (code - zero)``, with one scale and one zero for `group_size` inputs.
Layouts: WQLinear_GEMM of AutoAWQ; QuantLinear of AutoGPTQ, whose zeros are stored less one in the
format 'gptq', and as they are in 'gptq_v2'.
"""

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.checkpoints.stored_weights import Codes, GROUP, StoredRows
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

_EIGHT = 8                          # codes of an int32
_AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]  # where AWQ has the code of each of eight outputs


def open_tensors(path: Path, config: 'PreTrainedConfig') -> Tensors:
    """Return the tensors of a directory in the packing that its config names, if any.

    Raises ``ModelError`` for one that is not known, beside the errors of `Tensors`.
    """
    packing = getattr(config, 'quantization_config', None)
    if packing is None:
        return Tensors(path)
    if not isinstance(packing, dict):
        raise ModelError(f'{path}: the quantization_config is {packing!r:.80}, which is no object')
    if packing.get('quant_method') == 'mxfp4' and config.model_type == 'gpt_oss':
        return Tensors(path)   # which `expert_tensors` reads
    method, bits = packing.get('quant_method'), packing.get('bits', packing.get('w_bit'))
    layout = packing.get('version' if method == 'awq' else 'checkpoint_format')
    layout = str(layout or {'awq': 'gemm'}.get(method, 'gptq')).lower()
    group = packing.get('group_size', packing.get('q_group_size'))
    if (method, layout) not in (('awq', 'gemm'), ('gptq', 'gptq'), ('gptq', 'gptq_v2')) \
            or bits != 4:
        raise ModelError(
            f'{path} is quantised by {method!r:.40} ({bits!r:.20} bits, layout {layout:.40}): of '
            'such directories, those of AWQ (gemm) and GPTQ with 4 bits can be loaded; use '
            'another, a GGUF file, or the original weights')
    if not isinstance(group, int) or group != -1 and (group < GROUP or group % GROUP):
        raise ModelError(f'{path}: a group_size of {group!r:.40} cannot be loaded: it must be a '
                         f'multiple of {GROUP}, or -1')
    return _PackedTensors(path, method, group, int(layout == 'gptq'))


class _PackedTensors(Tensors):
    """`Tensors` whose packed matrices are int4 `Codes`; `less` is missing in the stored zeros."""

    def __init__(self, path: Path, method: str, group: int, less: int) -> None:
        super().__init__(path)
        self._awq, self._group, self._less = method == 'awq', group, less

    def __contains__(self, name: str) -> bool:
        return super().__contains__(name) or self._packed(name) is not None

    def __getitem__(self, name: str) -> 'torch.Tensor':
        if self._packed(name) is None:
            return super().__getitem__(name)
        import torch
        return torch.from_numpy(self._codes(name).floats())

    def shape(self, name: str) -> tuple[int, ...]:
        """As `Tensors.shape`."""
        packed = self._packed(name)
        if packed is None:
            return super().shape(name)
        shape = self._entry_of(packed + '.qweight', 'I32')
        return (shape[1] * _EIGHT, shape[0]) if self._awq else (shape[1], shape[0] * _EIGHT)

    def kind(self, name: str) -> str | None:
        """As `Tensors.kind`."""
        return super().kind(name) if self._packed(name) is None else 'int4'

    def rows(self, name: str) -> StoredRows:
        """As `Tensors.rows`; a packed matrix is read as a whole when its first rows are."""
        if self._packed(name) is None:
            return super().rows(name)
        whole, lock = [], Lock()

        def read(first: int, last: int) -> Codes:
            with lock:  # rows are asked for by several threads
                if not whole:
                    whole.append(self._codes(name))
            return whole[0].rows(slice(first, last))
        return StoredRows(self.shape(name), 'int4', read)

    def _packed(self, name: str) -> str | None:
        """Return the name of the layer whose packed matrix `name` is, None for other tensors."""
        layer = name.removesuffix('.weight')
        return layer if layer != name and layer + '.qweight' in self._where else None

    def _entry_of(self, name: str, dtype: str) -> list[int]:
        """Return the shape of a matrix, which must be of that type."""
        entry = self._where.get(name, (None, 0, {'dtype': None, 'shape': []}))[2]
        if entry['dtype'] != dtype or len(entry['shape']) != 2:
            raise ModelError(f'{self._path}: {name} is missing, or no matrix of type {dtype}')
        return entry['shape']

    def _codes(self, name: str) -> Codes:
        layer, (outputs, inputs) = self._packed(name), self.shape(name)
        size = inputs if self._group == -1 else self._group
        groups, rest = divmod(inputs, size)
        scales = self.floats(layer + '.scales')
        zeros = self._nibbles(layer + '.qzeros')
        if rest or inputs % GROUP or scales.shape != (groups, outputs) \
                or zeros.size != scales.size:
            raise ModelError(f'{self._path}: {layer} has {inputs} inputs, scales of the shape '
                             f'{list(scales.shape)} and {zeros.size} zeros, which do not fit a '
                             f'group_size of {self._group}')
        self._check_order(layer, inputs, size)
        codes = self._nibbles(layer + '.qweight')
        if self._awq:
            codes = codes[..., _AWQ_ORDER].reshape(inputs, outputs).T
            zeros = zeros[..., _AWQ_ORDER]
        else:
            codes = codes.swapaxes(0, 1).reshape(outputs, inputs)
        zeros = (zeros.reshape(groups, outputs) + self._less) % 16
        with np.errstate(over='ignore'):  # becomes infinite, which loading refuses
            scales, minimums = (
                np.repeat(array.T.astype(np.float16), size // GROUP, axis=1)
                for array in (scales, -scales * zeros))
        return Codes('int4', np.ascontiguousarray(codes), scales, minimums)

    def _nibbles(self, name: str) -> np.ndarray:
        """Return the numbers below 16 of an int32 matrix, uint8 [rows, columns, 8]."""
        shape = self._entry_of(name, 'I32')
        data = self._read(name)
        return np.stack((data & 15, data >> 4), -1).reshape(*shape, _EIGHT)

    def _check_order(self, layer: str, inputs: int, size: int) -> None:
        """Raise ``ModelError`` where the inputs of a group are not neighbours (act-order)."""
        name = layer + '.g_idx'
        if name not in self._where:
            return
        order = self._read(name).view(np.int32)
        if not np.array_equal(order, np.arange(inputs) // size):
            raise ModelError(
                f'{self._path} is quantised with act-order (desc_act): the inputs that share a '
                'scale are not neighbours, which cannot be loaded; quantise it without desc_act, '
                'or take a GGUF file')
