# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts that a directory has in one tensor a layer: those of GPT-OSS in MXFP4, and Qwen3.5's."""

import json

import pytest
from safetensors.torch import load_file, save_file
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.runners.native import load_library
from slice_ros.engine.runners.runner import Segment
from slice_ros.errors import ModelError
import tiny
import tiny_vision
import torch

EXPERTS = 'model.layers.{}.mlp.experts.{}_proj'
STEPS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])   # the magnitudes of E2M1
PROMPT = [(7 * i) % 250 for i in range(60)]


def mxfp4(path):
    """Write a directory of GPT-OSS as it is published; return its model."""
    model = tiny.save(path, tiny.FAMILIES['gpt_oss']())
    tensors, dice = load_file(path / 'model.safetensors'), torch.Generator().manual_seed(3)
    for layer in range(3):
        for part in ('gate_up', 'down'):
            name = EXPERTS.format(layer, part)
            experts, inputs, rows = tensors.pop(name).shape
            blocks = torch.randint(0, 256, (experts, rows, inputs // 32, 16), dtype=torch.uint8,
                                   generator=dice)
            scales = torch.randint(120, 125, blocks.shape[:-1], dtype=torch.uint8, generator=dice)
            tensors |= {f'{name}_blocks': blocks, f'{name}_scales': scales}
            codes = torch.stack((blocks & 15, blocks >> 4), -1).long()   # neighbours in a byte
            values = STEPS[codes & 7] * (1 - 2.0 * (codes >> 3))
            values = values.flatten(-2) * torch.exp2(scales.float() - 127)[..., None]
            module = getattr(model.model.layers[layer].mlp.experts, f'{part}_proj')
            module.data = values.flatten(-2).transpose(1, 2).contiguous()
    save_file(tensors, path / 'model.safetensors')
    config = json.loads((path / 'config.json').read_text())
    (path / 'config.json').write_text(json.dumps(config | {
        'quantization_config': {'quant_method': 'mxfp4'}}))
    return model


def logits(path, weights):
    engine = load_engine(EngineConfig(str(path), weights=weights, max_context=64, slots=1))
    assert engine.info.path == 'flat batch'
    slot = engine._slots.take()
    engine._slots.reserve([(slot, len(PROMPT))])
    found = torch.as_tensor(engine._runner.forward([Segment(slot, 0, PROMPT, True)]))[0].clone()
    return engine, found


@torch.no_grad()
def expected(model):
    return model(torch.tensor([PROMPT])).logits[0, -1]


def test_mxfp4_keeps_every_value(tmp_path, kernels):
    want = expected(mxfp4(tmp_path))
    engine, got = logits(tmp_path, 'fp32')
    assert (got - want).abs().max() < 1e-4 * want.abs().max()
    assert ('native' in engine.info.kernels) == (kernels == 'native')


@pytest.mark.skipif(load_library()[0] is None, reason='there are no native kernels')
def test_mxfp4_stays_in_integers(tmp_path):
    want = expected(mxfp4(tmp_path))
    engine, got = logits(tmp_path, 'auto')
    assert 'int8' in engine.info.weights
    assert (got - want).square().mean().sqrt() < 0.1 * want.std()


@pytest.mark.parametrize('change', ['scales', 'blocks', 'experts', 'gone'])
def test_damaged_mxfp4_is_refused(change, tmp_path):
    mxfp4(tmp_path)
    tensors, name = load_file(tmp_path / 'model.safetensors'), EXPERTS.format(1, 'gate_up')
    if change == 'experts':
        for part in ('blocks', 'scales'):
            tensors[f'{name}_{part}'] = tensors[f'{name}_{part}'][:-1].contiguous()
    elif change == 'gone':
        del tensors[f'{name}_scales']
    else:
        tensors[f'{name}_{change}'] = tensors[f'{name}_{change}'][..., :-1].contiguous()
    save_file(tensors, tmp_path / 'model.safetensors')
    with pytest.raises(ModelError, match='experts'):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1))


def test_mxfp4_of_another_family_is_refused(tmp_path):
    tiny.save(tmp_path, tiny.FAMILIES['qwen3_moe']())
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps(config | {
        'quantization_config': {'quant_method': 'mxfp4'}}))
    with pytest.raises(ModelError, match="quantised by 'mxfp4'"):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1))


@pytest.mark.skipif(load_library()[0] is None, reason='other paths run through transformers')
def test_joined_experts_of_qwen_are_cut(tmp_path):
    model = tiny.save(tmp_path, tiny.RECURRENT['qwen3_5_moe_text']())
    tensors = {name: value for name, value in load_file(tmp_path / 'model.safetensors').items()
               if '.mlp.experts.' not in name}
    for layer, decoder in enumerate(model.model.layers):
        for part in ('gate_up', 'down'):
            tensors[EXPERTS.format(layer, part)] = getattr(
                decoder.mlp.experts, f'{part}_proj').detach()
    save_file(tensors, tmp_path / 'model.safetensors')
    want = expected(model)
    assert (logits(tmp_path, 'fp32')[1] - want).abs().max() < 1e-4 * want.abs().max()


@pytest.mark.parametrize('across', [True, False])
@torch.no_grad()
def test_experts_of_qwen3_vl_are_read_in_both_layouts(across, tmp_path, kernels):
    """As they are published, outputs are columns of the files; transformers writes rows."""
    model = tiny_vision.save(tmp_path, 'qwen3_vl_moe')
    file = tmp_path / 'model.safetensors'
    tensors = load_file(file)
    for name in [name for name in tensors if '.mlp.experts.' in name]:
        assert tensors[name].shape == ((6, 80, 64) if 'gate_up' in name else (6, 64, 40))
        if across:
            tensors[name] = tensors[name].transpose(1, 2).contiguous()
    save_file(tensors, file, metadata={'format': 'pt'})
    _, got = logits(tmp_path, 'fp32')
    want = expected(model)
    assert (got - want).abs().max() < 1e-4 * want.abs().max()


@pytest.mark.parametrize('part', ['gate_up', 'down'])
def test_experts_of_qwen3_vl_of_other_shapes_are_refused(part, tmp_path):
    tiny_vision.save(tmp_path, 'qwen3_vl_moe')
    file = tmp_path / 'model.safetensors'
    tensors = load_file(file)
    name = next(name for name in tensors if f'.mlp.experts.{part}_proj' in name)
    tensors[name] = tensors[name][:, :-3].contiguous()
    save_file(tensors, file, metadata={'format': 'pt'})
    with pytest.raises(ModelError):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1))
