# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Packing: nothing is lost that the kind can hold, and nonsense is refused."""

import ctypes
from pathlib import Path

import gguf
import numpy as np
import pytest
from slice_ros.engine.checkpoints.stored_weights import Codes
from slice_ros.engine.runners.native import pack
from slice_ros.engine.runners.native.arena import Arena
from slice_ros.engine.runners.native.packing import Interleaved

SHAPES = [(16, 32), (33, 70), (1, 1), (48, 576)]


def unpacked(library, packed):
    """Return the weights as the kernels see them."""
    matrix = packed.matrix
    rows = np.empty((matrix.outputs, matrix.inputs), np.float32)
    for i in range(matrix.outputs):
        assert library.slice_unpack_row(ctypes.byref(matrix), i, rows[i].ctypes.data) == 0
    return rows


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('kind, error', [
    ('fp32', 0.0), ('fp16', 2.0 ** -11), ('bf16', 2.0 ** -8), ('int8', 1 / 250), ('int4', 1 / 14)])
def test_floats_keep_what_the_kind_can_hold(library, kind, error, shape):
    weights = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    got = unpacked(library, pack(library, kind, [weights]))
    bound = error * np.abs(weights) if kind in ('fp16', 'bf16') else \
        error * 2 * np.abs(weights).max() * np.ones(shape)
    assert (np.abs(got - weights) <= bound).all()


def test_extreme_halves_survive(library):
    values = np.array([[0.0, -0.0, 6e-8, -5.9e-6, 6.1e-5, 65504, -65504, 1 / 3]], np.float32)
    got = unpacked(library, pack(library, 'fp16', [values]))
    np.testing.assert_array_equal(got, values.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize('name, kind', [('Q8_0', 'int8'), ('Q4_0', 'int4'), ('Q4_1', 'int4')])
def test_gguf_blocks_are_kept_exactly(library, name, kind):
    quantization = gguf.GGMLQuantizationType[name]
    weights = np.random.default_rng(2).standard_normal((40, 96)).astype(np.float32)
    blocks = gguf.quantize(weights, quantization)
    codes = Codes.from_gguf(blocks, name)
    want = gguf.dequantize(blocks, quantization)
    assert codes.kind == kind and codes.shape == (40, 96)
    np.testing.assert_array_equal(codes.floats(), want)
    np.testing.assert_array_equal(unpacked(library, pack(library, kind, [codes])), want)
    order = np.random.default_rng(3).permutation(40)
    np.testing.assert_array_equal(codes.rows(order).floats(), want[order])
    other = 'int4' if kind == 'int8' else 'int8'
    assert np.abs(unpacked(library, pack(library, other, [codes])) - want).max() < 0.3


def test_other_gguf_types_are_left_to_floats():
    assert Codes.from_gguf(np.zeros((1, 34), np.uint8), 'Q6_K') is None


def test_interleaving_keeps_pairs_in_step():
    gate = np.arange(20.0, dtype=np.float32)[:, None]
    both = Interleaved(gate, gate + 100)
    mixed = both.rows(slice(None))
    assert mixed.shape == both.shape == (64, 1)
    np.testing.assert_array_equal(both.rows(slice(32, 64)), mixed[32:])
    np.testing.assert_array_equal(mixed[:16, 0], gate[:16, 0])
    np.testing.assert_array_equal(mixed[16:32, 0], gate[:16, 0] + 100)
    np.testing.assert_array_equal(mixed[32:36, 0], gate[16:, 0])
    assert not mixed[36:48].any()


def test_nonsense_is_refused(library):
    good = np.ones((4, 32), np.float32)
    bad = good.copy()
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match='not finite'):
        pack(library, 'fp16', [good, bad])
    with pytest.raises(ValueError, match='cannot be joined'):
        pack(library, 'fp16', [good, np.ones((4, 16), np.float32)])
    with pytest.raises(ValueError, match='int3'):
        pack(library, 'int3', [good])
    with pytest.raises(ValueError, match='bias'):
        pack(library, 'fp16', [good], np.ones(5, np.float32))
    with pytest.raises(ValueError, match='differ'):
        Interleaved(good, good[:3])
    packed = pack(library, 'fp16', [good])
    row = np.empty(32, np.float32)
    for index in (-1, 4):
        assert library.slice_unpack_row(ctypes.byref(packed.matrix), index, row.ctypes.data) < 0


@pytest.mark.parametrize('kind', range(5))
def test_the_size_of_a_matrix_is_exact_or_refused(library, kind):
    most, widest = 2 ** 31 - 1, 1 << 26
    for outputs, inputs in ((most, 32), (16, most), (most, most), (widest + 1, 1), (0, 1),
                            (1, -1)):
        assert library.slice_packed_bytes(kind, outputs, inputs) == -1
    bits = (32, 16, 16, 8 + 0.5, 4 + 1)[kind]  # of a weight, with its share of scales
    assert library.slice_packed_bytes(kind, widest, widest) == widest * widest * bits / 8


def test_a_matrix_beyond_the_largest_is_not_read(library):
    packed = pack(library, 'fp16', [np.ones((16, 32), np.float32)])
    row = np.empty(32, np.float32)
    for outputs, inputs in ((2 ** 31 - 1, 32), (16, 2 ** 31 - 1), (16, 0)):
        matrix = type(packed.matrix).from_buffer_copy(packed.matrix)
        matrix.outputs, matrix.inputs = outputs, inputs
        assert library.slice_unpack_row(ctypes.byref(matrix), 0, row.ctypes.data) == -1
        assert library.slice_matmul(-1, ctypes.byref(matrix), 1, row.ctypes.data,
                                    row.ctypes.data) == -1


def test_weights_lie_where_the_system_gives_large_pages():
    # Shared memory is mapped in small pages by default, whatever is asked for.
    taken = Arena(1 << 22).take(1 << 20)
    address = taken.ctypes.data
    mapping = None
    for line in Path('/proc/self/smaps').read_text().splitlines():
        name, *values = line.split()
        if '-' in name:
            first, last = (int(end, 16) for end in name.split('-'))
            mapping = values if first <= address < last else None
        elif mapping and name == 'VmFlags:':
            assert mapping[0] == 'rw-p'
            assert 'hg' in values or not Path('/sys/kernel/mm/transparent_hugepage').exists()
            return
    raise AssertionError('the memory is mapped nowhere')
