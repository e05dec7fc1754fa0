# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of GGUF types, decoded by the library: many times as quick as with numpy."""

from functools import cache

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
import numpy as np
from slice_ros.engine.checkpoints.regroup import FLOATS, form_of, GgufDecoder
from slice_ros.engine.checkpoints.stored_weights import Codes, GROUP
from slice_ros.engine.runners.native.library import Library


class NativeDecoder(GgufDecoder):
    """A `GgufDecoder` with the same results, to the bit, but for the signs of zeros as floats."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def codes(self, data: np.ndarray, type_name: str) -> Codes:
        """As `GgufDecoder.codes`."""
        kind, (rows, inputs) = form_of(type_name), _shape(data, type_name)
        codes = np.empty((rows, inputs), np.uint8)
        scales = np.empty((rows, inputs // GROUP), np.float16)
        minimums = np.empty_like(scales) if kind == 'int4' else None
        self._decode(self._library.slice_gguf_codes, data, type_name, codes, scales, minimums)
        return Codes(kind, codes, scales, minimums)

    def floats(self, data: np.ndarray, type_name: str) -> np.ndarray:
        """As `GgufDecoder.floats`."""
        if type_name in FLOATS:
            return super().floats(data, type_name)
        values = np.empty(_shape(data, type_name), np.float32)
        self._decode(self._library.slice_gguf_floats, data, type_name, values)
        return values

    def _decode(self, function, data: np.ndarray, type_name: str, *out: np.ndarray | None) -> None:
        data, grid = np.ascontiguousarray(data), _grid(type_name)
        if function(GGMLQuantizationType[type_name], out[0].size, data.ctypes.data, _address(grid),
                    *map(_address, out)):
            raise NotImplementedError(f'the library has no type {type_name}')


def _shape(data: np.ndarray, type_name: str) -> tuple[int, int]:
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    return len(data), data.shape[1] // size * block


def _address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


@cache
def _grid(type_name: str) -> np.ndarray | None:
    """Return the points of the grid that codes of a type are numbers of, int8, None for none.

    None as well for a type that gguf cannot read: nor can the library, which says so.
    """
    kind = getattr(quants, type_name, None)
    if kind is None or kind.grid_hex is None:
        return None
    kind.init_grid()
    return np.ascontiguousarray(kind.grid[0, 0], np.int8)
