# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapter directories: what PEFT's config means, and what is refused, in one sentence each."""

import json
import math
import random
import resource
import shutil

import adapter_files
import pytest
from safetensors.torch import load_file, save_file
from slice_ros.engine import EngineConfig
from slice_ros.engine.adapters.adapter_config import AdapterConfig
from slice_ros.engine.adapters.peft_directory import CONFIG, read_adapters, WEIGHTS
from slice_ros.engine.models.architecture import DOWN, OUT, QKV
from slice_ros.engine.models.families import describe
from slice_ros.errors import ModelError
import tiny
import torch

HUGE = 10 ** 9
STEM = 'base_model.model.model.layers.0.self_attn.q_proj'


@pytest.fixture(scope='module')
def model():
    return tiny.model(tiny.llama())


@pytest.fixture(scope='module')
def made(model):
    return describe(model.config)


@pytest.fixture
def directory(model, tmp_path):
    adapter_files.save(tmp_path / 'a', model, targets=('q_proj', 'down_proj'))
    return tmp_path / 'a'


def change(path, **changes):
    content = json.loads((path / CONFIG).read_text()) | changes
    (path / CONFIG).write_text(json.dumps(content))


def retensor(path, edit):
    tensors = load_file(path / WEIGHTS)
    save_file(edit(tensors), str(path / WEIGHTS))


def read(path, made):
    adapter, = read_adapters((f'a={path}',), made)
    return adapter


def refusal(path, made):
    """Return the sentence that refuses an adapter."""
    with pytest.raises(ModelError) as caught:
        read(path, made)
    sentence = str(caught.value)
    assert sentence.startswith('the adapter a cannot be loaded: ') and '\n' not in sentence
    assert len(sentence) < 1000
    return sentence


def test_ranks_and_scales_are_those_of_peft(tmp_path, model, made):
    for number, config in enumerate((
            {}, {'use_rslora': True}, {'rank_pattern': {'down_proj': 7}},
            {'alpha_pattern': {'q_proj': 11}, 'rank_pattern': {'q_proj': 2}})):
        wanted = adapter_files.save(tmp_path / str(number), model, **config)
        adapter = read(tmp_path / str(number), made)
        assert set(adapter.parts) == {(layer, part) for layer in range(3) for part in (
            *QKV, OUT, 'mlp.gate_proj', 'mlp.up_proj', DOWN)}
        for (layer, part), got in adapter.parts.items():
            down, up, scale = wanted[f'model.layers.{layer}.{part}']
            assert (torch.from_numpy(got.down) == down).all()
            assert torch.allclose(torch.from_numpy(got.up), scale * up)


def test_patterns_are_ends_of_names_or_whole_ones():
    config = AdapterConfig(8, 16, False, {'q_proj': 4, '^model.layers.1.mlp.up_proj': 2},
                           {'layers.1.mlp.up_proj': 3.0, 'proj': 9.0})
    assert config.rank_of('model.layers.0.self_attn.q_proj') == 4
    assert config.scale_of('model.layers.0.self_attn.q_proj') == 4.0
    assert config.scale_of('model.layers.1.mlp.up_proj') == 1.5
    assert config.rank_of('x.model.layers.1.mlp.up_proj') == 8
    assert AdapterConfig(9, 6, True).scale_of('o_proj') == pytest.approx(6 / math.sqrt(9))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_read(directory, made, dtype):
    wanted = load_file(directory / WEIGHTS)[f'{STEM}.lora_A.weight'].to(dtype)
    retensor(directory, lambda tensors: {name: t.to(dtype) for name, t in tensors.items()})
    assert (torch.from_numpy(read(directory, made).parts[0, QKV[0]].down) == wanted.float()).all()


@pytest.mark.parametrize('changes, words', [
    ({'peft_type': 'IA3'}, ("peft_type is 'IA3'", 'LORA')),
    ({'peft_type': None}, ('peft_type is None',)),
    ({'use_dora': True}, ('use_dora is True', 'left out')),
    ({'modules_to_save': ['lm_head']}, ('modules_to_save',)),
    ({'fan_in_fan_out': True}, ('fan_in_fan_out',)),
    ({'lora_bias': True}, ('lora_bias',)), ({'bias': 'all'}, ("bias is 'all'", 'none')),
    ({'layer_replication': [[0, 2]]}, ('layer_replication',)),
    ({'megatron_config': {'x': 1}}, ('megatron_config',)),
    ({'trainable_token_indices': [1]}, ('trainable_token_indices',)),
    ({'target_parameters': ['x']}, ('target_parameters',)),
    ({'alora_invocation_tokens': [5]}, ('alora_invocation_tokens',)),
    ({'a_field_of_tomorrow': 3}, ('a_field_of_tomorrow',)),
    ({'init_lora_weights': 'pissa_niter_4'}, ('pissa_niter_4', 'as they are')),
    ({'init_lora_weights': 1.0}, ('init_lora_weights',)),
    ({'r': 0}, ('r is 0',)), ({'r': HUGE}, ('r is 1000000000', '512')),
    ({'r': '4'}, ("r is '4'",)),
    ({'r': True}, ('r is True',)), ({'r': 5}, ('has the shape [4', 'wants [5')),
    ({'lora_alpha': None}, ('lora_alpha',)), ({'lora_alpha': 1e300}, ('lora_alpha',)),
    ({'lora_alpha': math.nan}, ('lora_alpha',)), ({'lora_alpha': '6'}, ('lora_alpha',)),
    ({'use_rslora': 'yes'}, ('use_rslora',)),
    ({'rank_pattern': [4]}, ('rank_pattern',)), ({'rank_pattern': {'q_proj': -1}}, ('q_proj',)),
    ({'rank_pattern': {'(a+)+$': 4}}, ('expressions',)),
    ({'alpha_pattern': {'.*(q|k)_proj': 4}}, ('expressions',)),
    ({'alpha_pattern': {'q_proj': 'x'}}, ('alpha_pattern',)),
    ({'x' * 999: 1}, ('x' * 120,)), ({'revision_of': 'y' * 50000}, ('revision_of',)),
])
def test_a_config_that_asks_for_more_is_refused_by_name(directory, made, changes, words):
    change(directory, **changes)
    sentence = refusal(directory, made)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize('content', [
    b'', b'[]', b'{', b'null', b'\xff\xfe', b'{"r": ' * 9000, b'[' * 60000,
    b'{"peft_type": "LORA"}' + b' ' * 65536])
def test_what_is_no_config_is_refused(directory, made, content):
    (directory / CONFIG).write_bytes(content)
    assert CONFIG in refusal(directory, made)


@pytest.mark.parametrize('edit, words', [
    (lambda t: t | {f'{STEM}.lora_A.default.weight': torch.ones(4, 64)}, 'lora_A.default'),
    (lambda t: t | {'base_model.model.lm_head.lora_A.weight': torch.ones(4, 64)}, 'lm_head'),
    (lambda t: t | {'base_model.model.model.embed_tokens.lora_A.weight': torch.ones(4, 64)},
     'embed_tokens'),
    (lambda t: t | {f'{STEM}.lora_magnitude_vector.weight': torch.ones(64)}, 'magnitude'),
    (lambda t: t | {STEM.replace('.0.', '.3.') + '.lora_A.weight': torch.ones(4, 64)}, 'layers.3'),
    (lambda t: t | {STEM.replace('.0.', '.00.') + '.lora_A.weight': torch.ones(4, 64)}, '.00.'),
    (lambda t: t | {'model.layers.0.self_attn.q_proj.lora_A.weight': torch.ones(4, 64)}, 'model.'),
    (lambda t: t | {'x' * 5000: torch.ones(1)}, 'xxx'),
    (lambda t: {n: v for n, v in t.items() if n != f'{STEM}.lora_B.weight'}, 'lora_A alone'),
    (lambda t: t | {f'{STEM}.lora_A.weight': torch.ones(4, 63)}, '[4, 63]'),
    (lambda t: t | {f'{STEM}.lora_A.weight': torch.ones(3, 64)}, '[3, 64]'),
    (lambda t: t | {f'{STEM}.lora_A.weight': torch.ones(256)}, '[256]'),
    (lambda t: t | {f'{STEM}.lora_B.weight': torch.ones(4, 64)}, '[4, 64]'),
    (lambda t: t | {f'{STEM}.lora_A.weight': torch.full((4, 64), math.nan)}, 'not finite'),
    (lambda t: t | {f'{STEM}.lora_B.weight': torch.full((64, 4), math.inf)}, 'not finite'),
    (lambda t: t | {f'{STEM}.lora_A.weight': torch.ones(4, 64, dtype=torch.int64)}, 'I64'),
    (lambda t: {}, 'no tensor')])
def test_tensors_of_nonsense_are_refused_by_name(directory, made, edit, words):
    retensor(directory, edit)
    assert words in refusal(directory, made)


def test_pickles_missing_and_broken_files_are_refused(directory, made):
    data = (directory / WEIGHTS).read_bytes()
    for broken in (b'', data[:5], data[:-9], b'\xff' * 400, (1 << 40).to_bytes(8, 'little') + data,
                   (1 << 22).to_bytes(8, 'little') + b'{' * (1 << 22)):
        (directory / WEIGHTS).write_bytes(broken)
        assert WEIGHTS in refusal(directory, made)
    (directory / WEIGHTS).rename(directory / 'adapter_model.bin')
    assert 'pickled weights can run code' in refusal(directory, made)
    shutil.rmtree(directory)
    assert 'PEFT' in refusal(directory, made)


def test_random_bytes_in_the_header_end_in_a_sentence_or_an_adapter(directory, made):
    """A few hundred files with some bytes changed: nothing else, and no more memory."""
    data, dice = bytearray((directory / WEIGHTS).read_bytes()), random.Random(5)
    end = 8 + int.from_bytes(data[:8], 'little')
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(dice.randrange(1, 4)):
            changed[dice.randrange(end)] = dice.choice(b'0123456789{}[]",:aF\x00\xff')
        (directory / WEIGHTS).write_bytes(changed)
        try:
            read(directory, made)
        except ModelError as error:
            assert '\n' not in str(error)
            refused += 1
    assert refused > 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_an_adapter_of_another_model_says_so(tmp_path, made):
    other = tiny.model(tiny.llama(hidden_size=128, num_attention_heads=8))
    adapter_files.save(tmp_path, other)
    assert 'another model' in refusal(tmp_path, made)


@pytest.mark.parametrize('entries', [
    ('kitchen',), ('=dir',), ('a b=dir',), ('a=',), ('a=x', 'a=y'), ('é' * 64 + '=x',), ('',),
    tuple(f'n{i}=x' for i in range(65))])
def test_entries_of_nonsense_are_refused(entries):
    with pytest.raises(ValueError, match='adapters'):
        EngineConfig(adapters=entries)


@pytest.mark.parametrize('part', ['mlp.experts.1.gate_proj', 'mlp.gate'])
def test_an_adapter_of_experts_is_refused(part, tmp_path):
    """No runner adds it."""
    model = tiny.model(tiny.FAMILIES['qwen3_moe']())
    adapter_files.save(tmp_path, model, targets=('q_proj', 'o_proj'))
    made = describe(model.config)
    adapter, = read_adapters([f'x={tmp_path}'], made)
    assert {part for _, part in adapter.parts} == {QKV[0], OUT}
    retensor(tmp_path, lambda tensors: tensors | {
        f'base_model.model.model.layers.0.{part}.lora_{side}.weight': torch.ones(shape)
        for side, shape in (('A', (4, 64)), ('B', (40, 4)))})
    assert f'{part}.lora_A' in refusal(tmp_path, made)
