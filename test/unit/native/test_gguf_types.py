# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The kernels compute with the weights of a GGUF file, of whatever type, as the file has them."""

import gguf
import numpy as np
import pytest
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.checkpoints.regroup import form_of, GgufDecoder, kept_as
from slice_ros.engine.runners.native import load_library, pack
from slice_ros.engine.runners.native.gguf_decoder import NativeDecoder
from slice_ros.engine.runners.native.packing import Interleaved, KEPT
from slice_ros.errors import ModelError
from test_weights import unpacked

ROWS, INPUTS = 48, 512
# The types that a quantiser of llama.cpp writes and gguf reads, by what the kernels compute with.
FORMS = {
    'int4': ('Q4_0', 'Q4_1', 'Q4_K'),
    'int8': ('Q5_0', 'Q8_0', 'Q3_K', 'IQ4_NL', 'IQ4_XS', 'MXFP4', 'IQ3_XXS', 'IQ3_S', 'IQ2_XXS',
             'IQ1_S', 'TQ1_0', 'TQ2_0', 'Q5_1', 'Q2_K', 'Q5_K', 'Q6_K', 'IQ2_XS', 'IQ2_S',
             'IQ1_M', 'NVFP4'),
    'fp16': ('F32', 'F16', 'BF16')}
# Where the 16 bit scales of a block are, for types that gguf cannot write.
SCALES = {'Q2_K': (80, 82), 'Q3_K': (108,), 'Q4_K': (0, 2), 'Q5_K': (0, 2), 'Q6_K': (208,)}
NAME = 'model.layers.0.mlp.down_proj.weight'
# Largest errors, as shares of the largest weight of a group. Where a file computes scales from two
# numbers these are rounded to fp16, once for each code; with a minimum, twice that and its own.
# What has no form of its own is rounded to 127 steps, whose size is rounded to fp16.
EXACT = ('F16', 'Q4_0', 'Q4_1', 'Q5_0', 'Q8_0', 'Q3_K', 'IQ4_NL', 'MXFP4', 'TQ1_0', 'TQ2_0')
HALF_STEP = 2.0 ** -11
ERRORS = {'Q4_K': 3 * HALF_STEP} | dict.fromkeys(
    ('Q5_1', 'Q2_K', 'Q5_K', 'Q6_K', 'IQ2_XS', 'IQ2_S', 'IQ1_M', 'NVFP4'), 1 / 254 + HALF_STEP)


def blocks(name):
    """Return rows of valid blocks, uint8 [ROWS, bytes]: of weights, or random."""
    kind = gguf.GGMLQuantizationType[name]
    dice = np.random.default_rng(4)
    weights = 0.05 * dice.standard_normal((ROWS, INPUTS)).astype(np.float32)
    try:
        return gguf.quantize(weights, kind).view(np.uint8)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
    data = dice.integers(0, 256, (ROWS, INPUTS // block, size), np.uint8)
    if name == 'IQ1_M':  # it scatters the bits of its scale
        data[..., 55] = data[..., 55] & 15 | 32
    elif name == 'NVFP4':
        data[..., :4] &= 63
    else:
        for at in SCALES.get(name, (0,)):
            sizes = dice.uniform(2e-3, 2e-2, (*data.shape[:2], 1)) * dice.choice((-1, 1))
            data[..., at:at + 2] = sizes.astype(np.float16).view(np.uint8)
    return data.reshape(ROWS, -1)


def tensors_of(name, data, folder, dtype=np.float16):
    """Return the tensors of a GGUF file with one matrix, `NAME`, of a type."""
    writer = gguf.GGUFWriter(folder / 'model.gguf', 'llama')
    writer.add_tensor('blk.0.ffn_down.weight', data, raw_dtype=gguf.GGMLQuantizationType[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(folder / 'model.gguf')
    assert file.types() == {NAME: name}
    library, _ = load_library()
    return GgufTensors(file, dtype, None if library is None else NativeDecoder(library))


def weights_and_tensors(name, folder, dtype=np.float16):
    """Return the weights of a type [ROWS, INPUTS] as gguf reads them, and a file with them."""
    data = blocks(name)
    want = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
    assert want.shape == (ROWS, INPUTS) and np.isfinite(want).all() and want.any(1).all()
    return want, tensors_of(name, data, folder, dtype)


@pytest.mark.parametrize('name', sum(FORMS.values(), ()))
def test_the_kernels_compute_with_the_weights_of_the_file(library, name, tmp_path):
    want, tensors = weights_and_tensors(name, tmp_path)
    packed = pack(library, KEPT, [tensors.rows(NAME)])
    assert name in FORMS[packed.kind] and packed.kind == form_of(name)
    error = np.abs(unpacked(library, packed) - want).reshape(ROWS, -1, 32)
    largest = np.abs(want).reshape(error.shape).max(-1, keepdims=True)
    bound = 0 if name in EXACT else ERRORS.get(name, HALF_STEP)
    assert (error <= bound * largest).all()


@pytest.mark.parametrize('name', sum(FORMS.values(), ()))
def test_weights_in_32_bits_are_those_of_the_file_to_the_bit(name, tmp_path):
    want, tensors = weights_and_tensors(name, tmp_path, np.float32)
    np.testing.assert_array_equal(tensors[NAME].numpy(), want)


@pytest.mark.parametrize('name', sum(FORMS.values(), ()))
def test_the_library_decodes_as_numpy_does_to_the_bit(library, name):
    data, numpy, native = blocks(name), GgufDecoder(), NativeDecoder(library)
    np.testing.assert_array_equal(native.floats(data, name), numpy.floats(data, name))
    if name in FORMS['fp16']:
        return
    want, got = numpy.codes(data, name), native.codes(data, name)
    assert got.kind == want.kind
    np.testing.assert_array_equal(got.scales.view(np.uint16), want.scales.view(np.uint16))
    np.testing.assert_array_equal(got.codes, want.codes)
    if got.kind == 'int4':
        np.testing.assert_array_equal(got.minimums.view(np.uint16), want.minimums.view(np.uint16))


@pytest.mark.parametrize('change', [
    {'type': 9}, {'weights': 0}, {'weights': 100}, {'data': None}, {'grid': None},
    {'codes': None}, {'scales': None}])
def test_blocks_that_cannot_be_decoded_are_refused(library, change):
    data, kind = blocks('IQ2_S'), gguf.GGMLQuantizationType.IQ2_S
    space = np.zeros(1 << 16, np.uint8).ctypes.data
    wanted = {'type': kind, 'weights': 512, 'data': data.ctypes.data, 'grid': space,
              'codes': space, 'scales': space, 'minimums': None} | change
    assert library.slice_gguf_codes(*wanted.values()) < 0
    if 'scales' not in change:
        assert library.slice_gguf_floats(*list(wanted.values())[:5]) < 0


def test_matrices_that_are_one_are_kept_in_the_kind_with_more_bits(library, tmp_path):
    rows = {}
    for name in ('Q4_0', 'Q8_0', 'F16'):
        (tmp_path / name).mkdir()
        want, tensors = weights_and_tensors(name, tmp_path / name)
        rows[name] = tensors.rows(NAME), want
    for names, kind in ((('Q4_0', 'Q4_0'), 'int4'), (('Q8_0', 'Q8_0'), 'int8'),
                        (('Q4_0', 'Q8_0'), 'int8'), (('Q8_0', 'F16'), 'fp16')):
        parts, wanted = zip(*(rows[name] for name in names))
        joined = pack(library, KEPT, parts)
        pairs = pack(library, KEPT, [Interleaved(*parts)])
        assert joined.kind == pairs.kind == kind
        error = np.abs(wanted).max() * (1 / 254 + HALF_STEP if kind == 'int8' else HALF_STEP)
        np.testing.assert_allclose(unpacked(library, joined), np.concatenate(wanted), atol=error)
        np.testing.assert_allclose(unpacked(library, pairs)[:16], wanted[0][:16], atol=error)


def test_floats_have_no_integer_form():
    assert all(kept_as(name) is None for name in FORMS['fp16'])


def test_a_type_that_nothing_reads_is_refused_in_a_sentence(tmp_path):
    tensors = tensors_of('Q8_K', np.zeros((ROWS, INPUTS // 256 * 292), np.uint8), tmp_path)
    with pytest.raises(ModelError, match='ffn_down.weight has a format that .* cannot read'):
        tensors.rows(NAME).rows(slice(None))


@pytest.mark.parametrize('name', ['Q4_K', 'IQ4_XS'])
def test_scales_that_are_no_numbers_are_refused(library, name, tmp_path):
    damaged = blocks(name)
    damaged[3, :2] = np.array([np.inf], np.float16).view(np.uint8)
    tensors = tensors_of(name, damaged, tmp_path)
    with pytest.raises(ValueError, match='not finite'):
        pack(library, KEPT, [tensors.rows(NAME)])
