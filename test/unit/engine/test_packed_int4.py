# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Directories of AWQ and GPTQ: packed here code by code, as their layouts are published."""

import json

from gpu_runners import DEVICE
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.checkpoints.hf_directory import read_config
from slice_ros.engine.checkpoints.packed_int4 import open_tensors
from slice_ros.engine.checkpoints.stored_weights import KEPT
from slice_ros.engine.models.families import describe
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.cuda.gpu_linear import make_gpu_linear
from slice_ros.engine.runners.native import load_library
from slice_ros.errors import ModelError
import tiny
import torch

AWQ = {'quant_method': 'awq', 'bits': 4, 'group_size': 64, 'zero_point': True, 'version': 'gemm'}
GPTQ = {'quant_method': 'gptq', 'bits': 4, 'group_size': 64, 'desc_act': False, 'sym': False}
GPTQ_2 = GPTQ | {'checkpoint_format': 'gptq_v2', 'group_size': -1}
PACKINGS = pytest.mark.parametrize('packing', (AWQ, GPTQ, GPTQ_2), ids=('AWQ', 'GPTQ', 'GPTQ v2'))
PROJECTION = 'model.layers.0.mlp.gate_proj'


def packed_along(numbers, axis, order):
    """Put eight neighbours along an axis into an int32; bits 4 i hold neighbour order[i]."""
    numbers = np.moveaxis(numbers, axis, -1)
    words = np.zeros((*numbers.shape[:-1], numbers.shape[-1] // 8), np.uint32)
    for word in range(words.shape[-1]):
        for i, neighbour in enumerate(order):
            words[..., word] |= numbers[..., 8 * word + neighbour].astype(np.uint32) << (4 * i)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(words, -1, axis)).view(np.int32))


def quantised(name, weight, packing, chance):
    """Return the packed tensors of a layer with random codes, and the weights they stand for."""
    outputs, inputs = weight.shape
    size = inputs if packing['group_size'] == -1 else packing['group_size']
    codes = chance.integers(0, 16, (inputs, outputs))
    zeros = chance.integers(1, 16, (inputs // size, outputs))
    scales = chance.uniform(0.01, 0.03, zeros.shape).astype(np.float16)
    group = np.arange(inputs) // size
    value = (codes - zeros[group]) * scales[group].astype(np.float32)
    if packing['quant_method'] == 'awq':
        order = (0, 2, 4, 6, 1, 3, 5, 7)
        made = {'qweight': packed_along(codes, 1, order), 'qzeros': packed_along(zeros, 1, order)}
    else:
        less = 0 if 'checkpoint_format' in packing else 1
        made = {'qweight': packed_along(codes, 0, range(8)),
                'qzeros': packed_along(zeros - less, 1, range(8)),
                'g_idx': torch.from_numpy(group.astype(np.int32))}
    made['scales'] = torch.from_numpy(scales)
    made = {f'{name}.{part}': tensor for part, tensor in made.items()}
    return made, torch.from_numpy(np.ascontiguousarray(value.T, np.float32))


@pytest.fixture
def directories(packing, tmp_path):
    """Return a directory in a packing, and one with the weights that it stands for."""
    packed, plain = tmp_path / 'packed', tmp_path / 'plain'
    for path in (packed, plain):
        tiny.save(path, tiny.llama(hidden_size=128, intermediate_size=128, num_hidden_layers=2))
    chance, tensors = np.random.default_rng(5), load_file(plain / 'model.safetensors')
    wanted, found = dict(tensors), dict(tensors)
    for name, weight in tensors.items():
        if name.endswith('_proj.weight'):
            layer = name.removesuffix('.weight')
            made, value = quantised(layer, weight, packing, chance)
            found = {n: t for n, t in found.items() if n != name} | made
            wanted[name] = value
    save_file(found, packed / 'model.safetensors', {'format': 'pt'})
    save_file(wanted, plain / 'model.safetensors', {'format': 'pt'})
    rewrite(packed, packing)
    return packed, plain


def rewrite(path, packing):
    config = json.loads((path / 'config.json').read_text())
    (path / 'config.json').write_text(json.dumps(config | {'quantization_config': packing}))


def greedy(path, weights):
    engine = load_engine(EngineConfig(str(path), 'cpu', weights, max_context=64, slots=2))
    sequence = engine.open(engine.encode('one two'), 20, Sampling())
    while not sequence.finish_reason:
        engine.step([(sequence, sequence.pending)])
    return sequence.tokens, engine.info.weights


@PACKINGS
def test_packed_weights_are_those_of_the_published_layout(directories):
    """The zeros become minimums of 16 bits: half a unit in the last place of 15 scales."""
    packed, plain = (open_tensors(path, read_config(path)) for path in directories)
    for name in load_file(directories[1] / 'model.safetensors'):
        assert name in packed and packed.shape(name) == plain.shape(name)
        torch.testing.assert_close(packed[name], plain[name], atol=2e-4, rtol=0)
        if name.endswith('_proj.weight'):
            assert packed.kind(name) == packed.rows(name).kind == 'int4'
            assert torch.equal(packed[name][8:24], torch.from_numpy(
                packed.rows(name).rows(slice(8, 24)).floats()))
    assert packed.kind('model.embed_tokens.weight') is None


@PACKINGS
def test_packed_directories_give_the_tokens_of_their_weights(directories, kernels):
    packed, plain = directories
    assert greedy(packed, 'fp32')[0] == greedy(plain, 'fp32')[0]
    if kernels == 'native':
        tokens, weights = greedy(packed, 'auto')
        assert weights == 'int4' and tokens[0] == greedy(plain, 'fp32')[0][0]


@PACKINGS
def test_a_gpu_keeps_the_codes_of_packed_directories(directories):
    packed, plain = (ModelTensors(describe(config), open_tensors(path, config)) for path, config in
                     ((path, read_config(path)) for path in directories))
    parts = [packed.as_stored(f'model.layers.0.mlp.{part}_proj.weight') for part in ('gate', 'up')]
    linear = make_gpu_linear(parts, None, KEPT, DEVICE)
    assert linear.kind == 'int4'
    x = torch.sin(torch.arange(256.)).view(2, 128)
    wanted = torch.cat([x @ plain[f'model.layers.0.mlp.{part}_proj.weight'].T
                        for part in ('gate', 'up')], 1)
    found = linear(x.to(DEVICE)).float().cpu()
    assert (found - wanted).norm() < 0.01 * wanted.norm()


@pytest.mark.parametrize('packing', [GPTQ])
@pytest.mark.parametrize('change, words', [
    ({'bits': 8}, "'gptq'.*8 bits.*GGUF"), ({'quant_method': 'hqq'}, "quantised by 'hqq'"),
    ({'quant_method': 'awq', 'version': 'gemv'}, 'layout gemv'),
    ({'checkpoint_format': 'marlin'}, 'layout marlin'), ({'group_size': 16}, 'group_size of 16'),
    ({'group_size': 32}, 'do not fit a group_size of 32')])
def test_a_packing_that_is_not_known_is_refused_in_a_sentence(directories, change, words):
    rewrite(directories[0], GPTQ | change)
    with pytest.raises(ModelError, match=words):
        greedy(directories[0], 'fp32')


@pytest.mark.parametrize('packing', [GPTQ])
def test_act_order_is_refused_in_a_sentence(directories):
    file = directories[0] / 'model.safetensors'
    tensors = load_file(file)
    order = tensors[f'{PROJECTION}.g_idx']
    tensors[f'{PROJECTION}.g_idx'] = order[torch.randperm(
        len(order), generator=torch.Generator().manual_seed(1))]
    save_file(tensors, file, {'format': 'pt'})
    for weights in ['fp32'] + ['auto'] * (load_library()[0] is not None):
        with pytest.raises(ModelError, match='act-order.*without desc_act'):
            greedy(directories[0], weights)


@pytest.mark.parametrize('packing', [AWQ])
@pytest.mark.parametrize('part', ('qzeros', 'scales'))
def test_a_part_that_is_missing_is_named(directories, part):
    file = directories[0] / 'model.safetensors'
    save_file({name: tensor for name, tensor in load_file(file).items()
               if name != f'{PROJECTION}.{part}'}, file, {'format': 'pt'})
    with pytest.raises(ModelError, match=f'gate_proj.{part}'):
        greedy(directories[0], 'fp32')
