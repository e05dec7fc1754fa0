# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention over keys and values of every number of bits, against floats of 64 bits."""

import numpy as np
import pytest

RNG = np.random.default_rng(5)
GROUP = 32                    # numbers with one scale
LEAST = 2.0 ** -24            # least 16 bit float above zero
MOST_CODE = 127
SHAPES = [(1, 64, 1), (3, 64, 95), (2, 40, 33), (8, 128, 70), (5, 80, 64), (1, 16, 31),
          (4, 256, 40), (7, 24, 97), (2, 512, 34), (6, 48, 32)]   # queries, head size, tokens


def draw(queries, size, tokens):
    """Return queries, keys and values, some of which are far from the others."""
    query, keys, values = (RNG.normal(size=(n, size)).astype(np.float32)
                           for n in (queries, tokens, tokens))
    keys[:, size // 3] += 6.0
    values[tokens // 2] *= 20.0
    values[tokens // 3, :size // 2] = 0.0
    return query / np.sqrt(np.float32(size)), keys, values


def attend(library, isa, bits, query, keys, values):
    """Return what the native kernel makes of them, [queries, head size]."""
    out = np.full(query.shape, np.nan, np.float32)
    assert library.slice_attend(isa, bits, *query.shape, len(keys), query.ctypes.data,
                                keys.ctypes.data, values.ctypes.data, out.ctypes.data) == 0
    return out


def exact(query, keys, values):
    """Return the same in 64 bits."""
    scores = query.astype(np.float64) @ keys.astype(np.float64).T
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights @ values / weights.sum(1, keepdims=True)


def halves_above(x):
    """Return the least 16 bit float that is not below each of x."""
    near = x.astype(np.float16)
    return np.where(near.astype(np.float32) < x, np.nextafter(near, np.float16(np.inf)), near)


def stored(x, bits):
    """Return numbers [tokens, head size] as a page with so many bits has them."""
    if bits != 8:
        return x.astype({16: np.float16, 32: np.float32}[bits]).astype(np.float32)
    groups = np.pad(x, ((0, 0), (0, -x.shape[1] % GROUP))).reshape(len(x), -1, GROUP)
    most = np.abs(groups).max(-1, keepdims=True)
    scale = halves_above(most / np.float32(MOST_CODE)).astype(np.float32)
    codes = np.rint(groups * np.divide(np.float32(1), scale, out=np.zeros_like(scale),
                                       where=most > 0))
    assert np.abs(codes).max() <= MOST_CODE
    return (codes * scale).reshape(len(x), -1)[:, :x.shape[1]]


@pytest.mark.parametrize('bits', [8, 16, 32])
@pytest.mark.parametrize('queries, size, tokens', SHAPES)
def test_attention_is_that_of_the_stored_numbers(library, isa, bits, queries, size, tokens):
    query, keys, values = draw(queries, size, tokens)
    got = attend(library, isa, bits, query, keys, values)
    kept = stored(values, bits)
    want = exact(query, stored(keys, bits), kept)
    # Of sums of 32 bit floats alone: codes are stored exactly, and so are products of scales.
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(kept).max())


@pytest.mark.parametrize('queries, size, tokens', SHAPES)
def test_8_bits_are_as_near_as_their_steps(library, isa, queries, size, tokens):
    """A number is half a scale away at most; what follows for the sums is a bound, not a guess."""
    query, keys, values = draw(queries, size, tokens)
    got = attend(library, isa, 8, query, keys, values)

    def error(x):   # of each number of a group: half of its scale, which is rounded up
        groups = np.pad(x, ((0, 0), (0, -size % GROUP))).reshape(len(x), -1, GROUP)
        step = np.abs(groups).max(-1) / MOST_CODE * (1 + 2.0 ** -10) + LEAST
        return np.repeat(step / 2, GROUP, 1)[:, :size]
    # Scores move by `moved` at most, so weights by the factor exp(2 moved).
    moved = (np.abs(query) @ error(keys).T).max()
    bound = np.expm1(2 * moved) * np.abs(values).max() + error(values).max()
    away = np.abs(got - exact(query, keys, values)).max()
    assert away < bound + 1e-4
    assert size < 64 or tokens < 2 or away > 1e-5   # it is rounded


@pytest.mark.parametrize('size', [1e-7, 1e-5, 1e-3, 1.0, 1e4, 1e6])
def test_numbers_of_any_size_keep_their_precision(library, isa, size):
    """Also where scales are so small that 16 bit floats have few places for them."""
    values = (RNG.normal(size=(1, 64)) * size).astype(np.float32)
    ones = np.ones((1, 64), np.float32)
    got = attend(library, isa, 8, ones, ones, values)
    groups = np.abs(values).reshape(1, 2, GROUP).max(-1)
    step = np.repeat(groups / MOST_CODE * (1 + 2.0 ** -10) + LEAST, GROUP, 1)
    assert (np.abs(got - values) <= step * (0.5 + 1e-4)).all()
    assert (attend(library, isa, 8, ones, ones, 0 * values) == 0).all()


@pytest.mark.parametrize('bits', [8, 16, 32])
def test_a_query_does_not_depend_on_its_company(library, isa, bits):
    query, keys, values = draw(8, 80, 77)
    alone = np.concatenate([attend(library, isa, bits, query[n:n + 1], keys, values)
                            for n in range(8)])
    for queries in range(2, 9):
        np.testing.assert_array_equal(
            attend(library, isa, bits, query[:queries], keys, values), alone[:queries])


def test_the_bytes_of_a_page(library):
    for heads, size in ((3, 64), (1, 24), (8, 128), (2, 80)):
        width = -(-size // 16) * 16
        for bits in (16, 32):
            assert library.slice_page_bytes(bits, heads, size) == heads * 32 * width * bits // 8
        scales = 2 * -(-width // GROUP)
        assert library.slice_page_bytes(8, heads, size) == heads * 32 * (width + scales)
    assert library.slice_page_bytes(16, 3, 64) / library.slice_page_bytes(8, 3, 64) > 1.88


@pytest.mark.parametrize('changed', [
    {'isa': 99}, {'bits': 4}, {'queries': 0}, {'queries': 9}, {'size': 0}, {'size': 513},
    {'tokens': 0}, {'tokens': 1 << 30}])
def test_wrong_sizes_are_refused(library, changed):
    data = np.zeros((1, 64), np.float32)
    sizes = {'isa': 0, 'bits': 8, 'queries': 1, 'size': 64, 'tokens': 1} | changed
    assert library.slice_attend(*sizes.values(), *[data.ctypes.data] * 4) == -1
    assert library.slice_page_bytes(4, 1, 64) == -1
