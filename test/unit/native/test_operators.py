# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Single kernels against torch, on every instruction set of this machine."""

import ctypes

import numpy as np
import pytest
from slice_ros.engine.checkpoints.stored_weights import Codes
from slice_ros.engine.runners.native import KINDS, pack
import torch

RNG = np.random.default_rng(7)


def matmul(library, isa, packed, x):
    """Return x W^T by the native kernel."""
    x = np.ascontiguousarray(x, np.float32)
    out = np.full((len(x), packed.matrix.outputs), np.nan, np.float32)
    assert library.slice_matmul(isa, ctypes.byref(packed.matrix), len(x), x.ctypes.data,
                                out.ctypes.data) == 0
    return out


def in_eight_bits(x):
    """Return activations as the quantised kinds see them: 127 steps a group of 32."""
    width = x.shape[1]
    groups = np.pad(x, ((0, 0), (0, -width % 32))).reshape(len(x), -1, 32)
    scale = np.abs(groups).max(-1, keepdims=True) / 127
    codes = np.round(np.divide(groups, scale, out=np.zeros_like(groups), where=scale > 0))
    return (codes * scale).reshape(len(x), -1)[:, :width]


@pytest.mark.parametrize('outputs, inputs', [(32, 32), (48, 64), (19, 33), (100, 100), (7, 200),
                                             (40, 300)])
@pytest.mark.parametrize('kind', KINDS)
def test_matmul_is_the_product(library, isa, kind, outputs, inputs):
    weights = RNG.standard_normal((outputs, inputs)).astype(np.float32)
    bias = RNG.standard_normal(outputs).astype(np.float32)
    packed = pack(library, kind, [weights], bias)
    from test_weights import unpacked
    kept = torch.from_numpy(unpacked(library, packed)).double()
    for rows in (1, 2, 3, 7, 8, 9, 17, 99):
        x = RNG.standard_normal((rows, inputs)).astype(np.float32)
        if rows > 2:
            x[1] = 0.0
        seen = in_eight_bits(x) if kind in ('int8', 'int4') else x
        want = torch.from_numpy(seen).double() @ kept.T + torch.from_numpy(bias)
        got = matmul(library, isa, packed, x)
        # A tie between two codes may fall either way: one step in one of the inputs.
        step = np.abs(x).max() / 127 * kept.abs().max().item()
        # Sums in float32 are wrong by a share of their terms, whatever these come to.
        atol = 2.0**-21 * (np.abs(seen) @ np.abs(kept.numpy()).T).max()
        atol += step if kind in ('int8', 'int4') else 0
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=atol)


@pytest.mark.parametrize('kind', ['int8', 'int4'])
def test_integer_products_are_exact_at_their_extremes(library, isa, kind):
    # All codes at the ends of their range: sums that a 16 bit step would overflow.
    scales = np.ones((32, 8), np.float16)
    for code in (0, 1, 255) if kind == 'int8' else (0, 15):
        codes = Codes(kind, np.full((32, 256), code, np.uint8), scales,
                      None if kind == 'int8' else scales * 0)
        value = code - 128 if kind == 'int8' else code
        for activation in (127.0, -127.0):
            x = np.full((3, 256), activation, np.float32)
            got = matmul(library, isa, pack(library, kind, [codes]), x)
            np.testing.assert_array_equal(got, np.float32(value * activation * 256))


@pytest.mark.parametrize('kind', KINDS)
def test_a_row_does_not_depend_on_its_company(library, isa, kind):
    packed = pack(library, kind, [RNG.standard_normal((80, 224)).astype(np.float32)])
    x = RNG.standard_normal((130, 224)).astype(np.float32)
    x *= 10.0 ** RNG.integers(-3, 4, (130, 1))
    alone = np.concatenate([matmul(library, isa, packed, row[None]) for row in x])
    for rows in (2, 5, 8, 12, 13, 16, 37, 96, 97, 130):
        np.testing.assert_array_equal(matmul(library, isa, packed, x[:rows]), alone[:rows])
    np.testing.assert_array_equal(matmul(library, isa, packed, x[::-1]), alone[::-1])


@pytest.mark.parametrize('kind', KINDS)
def test_instruction_sets_agree(library, isa, kind):
    packed = pack(library, kind, [RNG.standard_normal((64, 320)).astype(np.float32)])
    x = RNG.standard_normal((9, 320)).astype(np.float32)
    got, want = matmul(library, isa, packed, x), matmul(library, 0, packed, x)
    if library.isa_name(0) == 'NEON':  # the same float operations in the same order
        np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('width', [1, 16, 30, 576])
def test_rms_norm(library, isa, width):
    x = RNG.standard_normal((3, width)).astype(np.float32)
    weight = RNG.standard_normal(width).astype(np.float32)
    out = np.empty_like(x)
    assert library.slice_rms_norm(isa, 3, width, 1e-5, weight.ctypes.data, x.ctypes.data,
                                  out.ctypes.data) == 0
    want = torch.nn.functional.rms_norm(torch.from_numpy(x), (width,), torch.from_numpy(weight),
                                        1e-5)
    np.testing.assert_allclose(out, want, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize('kind', ['int4', 'int8', 'fp32'])
def test_every_instruction_set_has_a_peak(library, isa, kind):
    # At most four 512 bit operations at 10 GHz, each with 64 products.
    assert 1e6 < library.slice_peak(isa, KINDS[kind], 1) < 4 * 10e9 * 64


def test_every_instruction_set_reads_memory(library, isa):
    data = np.ones(1 << 22, np.uint8)
    # At most four 512 bit loads at 10 GHz, of what a cache may hold.
    for threads in (1, 2):
        rate = library.slice_read_rate(isa, threads, data.ctypes.data, data.nbytes)
        assert 1e5 < rate < threads * 4 * 10e9 * 64


def test_limits_of_nothing_are_refused(library):
    data = np.ones(1 << 17, np.uint8)
    assert all(library.slice_peak(*wrong) < 0 for wrong in (
        (99, KINDS['int8'], 1), (-1, 5, 1), (-1, -1, 1), (-1, KINDS['int8'], 0)))
    assert library.slice_read_rate(99, 1, data.ctypes.data, data.nbytes) < 0
    assert library.slice_read_rate(-1, 0, data.ctypes.data, data.nbytes) < 0
    assert library.slice_read_rate(-1, 1, data.ctypes.data, 1) < 0
    assert library.slice_read_rate(-1, 1, None, data.nbytes) < 0


def test_missing_arguments_are_refused(library):
    packed = pack(library, 'fp16', [np.ones((4, 4), np.float32)])
    x = np.ones((1, 4), np.float32)
    matrix = ctypes.byref(packed.matrix)
    assert library.slice_matmul(99, matrix, 1, x.ctypes.data, x.ctypes.data) < 0
    assert library.slice_matmul(-1, matrix, 0, x.ctypes.data, x.ctypes.data) < 0
    assert library.slice_matmul(-1, matrix, 1, None, x.ctypes.data) < 0
    assert library.slice_matmul(-1, None, 1, x.ctypes.data, x.ctypes.data) < 0
    assert library.slice_packed_bytes(9, 4, 4) < 0
    assert library.slice_packed_bytes(1, 0, 4) < 0
