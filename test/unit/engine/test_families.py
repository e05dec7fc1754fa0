# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Every family against transformers' own forward, alone and in company."""

from dataclasses import replace
import json
import logging
from pathlib import Path

from conftest import sampled
import pytest
from safetensors.torch import load_file, save_file
from slice_ros.engine import engine as engine_module, EngineConfig, load_engine, Sampling
from slice_ros.engine.checkpoints.gguf_families import ARCHITECTURES
from slice_ros.engine.models.architecture import CHOICE_BIAS
from slice_ros.engine.models.families import describe, FAMILIES
from slice_ros.engine.runners import choose
from slice_ros.engine.runners.cuda.graph_runner import _lacking
from slice_ros.engine.runners.native import ISAS, load_library
from slice_ros.engine.runners.runner import Segment
from slice_ros.errors import ModelError
import tiny
import tiny_vision
import torch
from transformers import AutoConfig

ROOT = Path(__file__).parents[3]
LLAMA = [tiny.llama, tiny.llama3_rope, tiny.qwen2, tiny.mistral, tiny.all_biases]
FLAT = {family.__name__: family for family in LLAMA} | tiny.FAMILIES
OTHER = tiny.OTHER


def ids(n, seed=0):
    return torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def expected(model, tokens):
    return model(torch.tensor([tokens])).logits[0, -1]


@pytest.mark.parametrize('name, weights, tolerance', [
    *((name, 'fp32', 1e-4) for name in [*FLAT, *OTHER]),
    *((family.__name__, 'auto', 4e-2) for family in LLAMA)])
def test_logits_are_those_of_transformers(name, weights, tolerance, tmp_path, kernels):
    """Whole prompts, chunks behind chunks, and decode rows, mixed in the same steps."""
    model = tiny.save(tmp_path, (FLAT | OTHER)[name]())
    engine = load_engine(EngineConfig(str(tmp_path), weights=weights, max_context=128, slots=3))
    a, b = ids(90, 1), ids(71, 2)

    def run(segments):
        engine._slots.reserve((s.slot, s.start + len(s.ids)) for s in segments)
        return torch.as_tensor(engine._runner.forward(segments)).clone()  # overwritten next
    run([Segment(2, 0, a[:50], False)])
    mixed = run([Segment(2, 50, a[50:89], True), Segment(0, 0, b[:70], True)])
    decode = run([Segment(0, 70, b[70:], True), Segment(2, 89, a[89:], True)])
    for got, tokens in zip([*mixed, *decode], [a[:89], b[:70], b, a]):
        want = expected(model, tokens)
        assert (got - want).abs().max() < tolerance * max(1.0, want.abs().max())


@pytest.mark.parametrize('name', FLAT)
def test_48_greedy_tokens_are_those_of_transformers(name, tmp_path, kernels):
    """Alone and in company, in chunks, from prompts within and beyond every window."""
    model = tiny.save(tmp_path, FLAT[name](eos_token_id=None))
    engine = load_engine(EngineConfig(str(tmp_path), weights='fp32', max_context=160, slots=3))
    assert engine.info.path == 'flat batch'
    assert ('native' in engine.info.kernels) == (kernels == 'native')
    check_48_tokens(engine, model, (5, 33, 70 if 'longrope' in name else 100))


def check_48_tokens(engine, model, lengths):
    """Hold greedy answers to prompts of these lengths, all at once, against `generate`."""
    engine._stop_tokens = frozenset()   # random answers are full of them
    prompts = [ids(length, 5 + length) for length in lengths]
    live = [engine.open(prompt, 48, Sampling()) for prompt in prompts]
    while todo := [(s, min(s.pending, 23)) for s in live if not s.finish_reason]:
        engine.step(todo)
    for prompt, sequence in zip(prompts, live):
        out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)),
                             max_new_tokens=48, do_sample=False, pad_token_id=0)
        assert sequence.tokens == out[0].tolist() and len(sequence.tokens) == len(prompt) + 48
        engine.close(sequence)


@pytest.mark.parametrize('isa', ['portable', 'avx2', 'avx512'])
@pytest.mark.parametrize('name', ['gpt_oss', 'nemotron', 'cohere2', 'cohere norms'])
def test_every_instruction_set_has_their_kernels(name, isa, tmp_path):
    """Sinks and a clamped gate; norms with biases and no gate; norms without; norms of heads."""
    library = load_library()[0]
    if library is None or not library.has(ISAS[isa]):
        pytest.skip(f'this build or processor has no {isa} kernels')
    model, tokens = tiny.save(tmp_path, tiny.FAMILIES[name]()), ids(90, 1)
    engine = load_engine(EngineConfig(str(tmp_path), weights='fp32', isa=isa, max_context=128,
                                      slots=1))
    slot = engine._slots.take()
    engine._slots.reserve([(slot, 90)])
    got = torch.as_tensor(engine._runner.forward([Segment(slot, 0, tokens, True)]))[0]
    want = expected(model, tokens)
    assert (got - want).abs().max() < 1e-4 * max(1.0, want.abs().max())


@pytest.mark.parametrize('isa, name', sampled(
    [(isa, name) for isa in ('portable', 'avx2', 'auto') for name in tiny.RECURRENT],
    [('auto', name) for name in tiny.RECURRENT] + [('portable', 'lfm2'), ('avx2', 'falcon_h1')]))
def test_layers_with_states_answer_as_transformers(name, isa, tmp_path):
    """Logits and 48 greedy tokens, alone and in company, in chunks of any size."""
    library = load_library()[0]
    if library is None or not library.has(ISAS[isa]):
        pytest.skip(f'this build or processor has no {isa} kernels')
    model = tiny.save(tmp_path, tiny.RECURRENT[name](eos_token_id=None))
    engine = load_engine(EngineConfig(str(tmp_path), weights='fp32', isa=isa, max_context=160,
                                      slots=3))
    assert engine.info.path == 'flat batch' and 'native' in engine.info.kernels
    check_48_tokens(engine, model, (1, 33, 100))
    tokens, slot = ids(90, 1), engine._slots.take()
    engine._slots.reserve([(slot, 90)])
    got = torch.as_tensor(engine._runner.forward([Segment(slot, 0, tokens, True)]))[0]
    want = expected(model, tokens)
    assert (got - want).abs().max() < 1e-4 * want.abs().max()


def test_without_native_kernels_sigmoids_choose_the_same_experts(tmp_path, monkeypatch):
    """No family of the torch path has them yet: these are another's."""
    make, found = FAMILIES['qwen3_moe'], {}

    def by_sigmoids(config):
        made = make(config)
        return replace(made, experts=replace(made.experts, sigmoid=True, scale=2.5))
    monkeypatch.setitem(FAMILIES, 'qwen3_moe', by_sigmoids)
    tiny.save(tmp_path, tiny.FAMILIES['qwen3_moe']())
    tensors, dice = load_file(tmp_path / 'model.safetensors'), torch.Generator().manual_seed(3)
    save_file(tensors | {
        name.replace('weight', CHOICE_BIAS): torch.randn(8, generator=dice)
        for name in tensors if name.endswith('mlp.gate.weight')}, tmp_path / 'model.safetensors')
    for path in ('native', 'torch'):
        if path == 'torch':
            monkeypatch.setattr(choose, 'load_library', lambda: (None, 'there are none'))
        engine = load_engine(EngineConfig(str(tmp_path), weights='fp32', max_context=64, slots=1))
        if ('native' in engine.info.kernels) != (path == 'native'):
            pytest.skip('the native kernels are not built')
        slot = engine._slots.take()
        engine._slots.reserve([(slot, 40)])
        found[path] = torch.as_tensor(engine._runner.forward(
            [Segment(slot, 0, ids(40), True)]))[0].clone()
    assert (found['native'] - found['torch']).abs().max() < 1e-4 * found['torch'].abs().max()


@pytest.mark.parametrize('name', ['granitemoehybrid', 'falcon_h1'])
def test_limits_of_time_steps_are_kept(name, tmp_path):
    """Of whole prompts: transformers leaves them out while it decodes."""
    limits = {'time_step_limit': [0.3, 0.9]}
    model = tiny.save(tmp_path, tiny.RECURRENT[name](**limits))
    engine = load_engine(EngineConfig(str(tmp_path), weights='fp32', max_context=64, slots=1))
    tokens, slot = ids(40, 1), engine._slots.take()
    engine._slots.reserve([(slot, 40)])
    got = torch.as_tensor(engine._runner.forward([Segment(slot, 0, tokens, True)]))[0]
    want = expected(model, tokens)
    assert (got - want).abs().max() < 1e-4 * want.abs().max()
    free = tiny.model(tiny.RECURRENT[name]())
    assert (expected(free, tokens) - want).abs().max() > 2e-3 * want.abs().max()


@pytest.mark.parametrize('name', ['granitemoehybrid', 'falcon_h1', 'nemotron_h'])
@pytest.mark.parametrize('extra', ['skip_scale', 'conv1d.scale', 'norm.bias'])
def test_a_tensor_of_a_state_space_that_is_not_known_is_refused(name, extra, tmp_path):
    tiny.save(tmp_path, tiny.RECURRENT[name]())
    tensors = load_file(tmp_path / 'model.safetensors')
    where = next(key for key in tensors if key.endswith('.A_log')).removesuffix('A_log')
    save_file(tensors | {where + extra: torch.ones(4)}, tmp_path / 'model.safetensors')
    with pytest.raises(ModelError, match=f'{extra} is in no model of this type'):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1))


@pytest.mark.parametrize('name', tiny.RECURRENT)
def test_a_failed_step_does_not_advance_a_state_twice(name, tmp_path, monkeypatch):
    tiny.save(tmp_path, tiny.RECURRENT[name](eos_token_id=None))
    engine = load_engine(EngineConfig(str(tmp_path), weights='fp32', max_context=64, slots=2))

    def fail(*given):
        raise ZeroDivisionError

    def answer(failing):
        sequence, step = engine.open(ids(20), 12, Sampling(temperature=1e-3, seed=1)), 0
        while not sequence.finish_reason:
            with monkeypatch.context() as broken:
                if step in failing:
                    broken.setattr(engine_module, 'choose_tokens', fail)
                    with pytest.raises(ZeroDivisionError):
                        engine.step([(sequence, sequence.pending)])
                    assert sequence.slot is None
                else:
                    engine.step([(sequence, min(sequence.pending, 13))])
            step += 1
        engine.close(sequence)
        return sequence.tokens
    assert answer(failing=()) == answer(failing=(1, 4))


@pytest.mark.parametrize('name', tiny.RECURRENT)
def test_without_native_kernels_states_run_through_transformers(name, tmp_path, monkeypatch):
    tiny.save(tmp_path, tiny.RECURRENT[name]())
    monkeypatch.setattr(choose, 'load_library', lambda: (None, 'there are none'))
    engine = load_engine(EngineConfig(str(tmp_path), max_context=64, slots=2))
    assert engine.info.path == 'transformers'
    with pytest.raises(ModelError, match='there are none'):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=2, weights='int4'))


@pytest.mark.parametrize('family', OTHER.values(), ids=OTHER)
def test_other_families_run_through_transformers_and_say_so(family, tmp_path, caplog):
    model = tiny.save(tmp_path, family())
    with caplog.at_level(logging.WARNING, 'slice_ros'):
        engine = load_engine(EngineConfig(str(tmp_path), max_context=128, slots=2))
    assert engine.info.path == 'transformers'
    assert engine.info.kernels == 'transformers, decodes in one batch' + (
        ', chunks of a prompt token by token' if family().model_type == 'jamba' else '')
    assert engine.info.weights == 'fp32'   # 16 bits are slower there on a CPU
    assert family().model_type in caplog.text
    prompts = [ids(9, 3), ids(17, 4)]
    live = [engine.open(p, 12, Sampling()) for p in prompts]
    while todo := [(s, s.pending) for s in live if not s.finish_reason]:
        engine.step(todo)
    for prompt, sequence in zip(prompts, live):
        out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)),
                             max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert sequence.tokens == out[0].tolist()


@pytest.mark.parametrize('name, context', [('llama', 256), ('mistral', 256),
                                           ('gemma3_text', 256), ('phi3 longrope', 128)])
def test_the_context_ends_where_the_model_does(name, context, tmp_path):
    """At its own limit, or that of the frequencies of its rope; a window is no limit."""
    tiny.save(tmp_path, FLAT[name]())
    engine = load_engine(EngineConfig(str(tmp_path), max_context=4096, slots=2))
    assert engine.info.max_context == context


@pytest.mark.parametrize('threads', [1, 2])
def test_a_row_does_not_depend_on_who_shares_the_step(threads, tmp_path, kernels):
    """Bit for bit, in the default weights, for decode rows and prefill chunks."""
    tiny.save(tmp_path, tiny.llama(hidden_size=128, intermediate_size=192))
    engine = load_engine(
        EngineConfig(str(tmp_path), max_context=128, slots=12, threads=threads))
    if engine.info.weights != 'fp16':
        pytest.skip(f'weights are {engine.info.weights} here: only fp16 is bitwise invariant')

    def run(segments):
        engine._slots.reserve((s.slot, s.start + len(s.ids)) for s in segments)
        return torch.as_tensor(engine._runner.forward(segments)).clone()  # overwritten next

    run([Segment(slot, 0, ids(20 + 7 * slot, slot), False) for slot in range(8)])
    row = Segment(3, 41, ids(1, 99), True)
    chunk = Segment(9, 0, ids(33, 98), True)
    alone, chunk_alone = run([row])[0], run([chunk])[0]
    for others in range(1, 8):
        company = [Segment(s, 20 + 7 * s, ids(1, s), True) for s in range(8) if s != 3][:others]
        assert torch.equal(run([*company, row])[-1], alone)
        assert torch.equal(run([row, *company])[0], alone)
        both = run([*company, row, chunk])
        assert torch.equal(both[-2], alone)
        assert torch.equal(both[-1], chunk_alone)


def test_a_model_that_cannot_go_on_after_a_step_is_refused(tmp_path):
    tiny.save(tmp_path, AutoConfig.for_model(
        'mamba2', hidden_size=64, num_heads=8, head_dim=16, n_groups=1, state_size=16, expand=2,
        num_hidden_layers=2, vocab_size=320))
    with pytest.raises(ModelError, match='cannot go on after a step'):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1))


def test_a_tensor_that_the_family_does_not_speak_of_is_refused(tmp_path):
    """Else its answers would be wrong without a word."""
    tiny.save(tmp_path, tiny.FAMILIES['qwen3']())
    config = json.loads((tmp_path / 'config.json').read_text())
    for model_type in ('llama', 'qwen2'):
        (tmp_path / 'config.json').write_text(json.dumps(config | {'model_type': model_type}))
        with pytest.raises(ModelError, match='_norm.weight is in no model of this type'):
            load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1))


@pytest.mark.parametrize('name', ['model.layers.0.input_layernorm.bias', 'lm_head.bias',
                                  'model.layers.1.mlp.router.weight'])
def test_a_bias_that_no_runner_adds_is_refused(name, tmp_path):
    model = tiny.save(tmp_path, tiny.llama())
    tensors = {key: value.clone() for key, value in model.state_dict().items()}
    save_file(tensors | {name: torch.ones(64)}, tmp_path / 'model.safetensors')
    with pytest.raises(ModelError, match=f'{name} is in no model of this type'):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1))


@pytest.mark.parametrize('family, name', [
    ('qwen3_moe', 'mlp.experts.3.gate_proj.bias'), ('qwen3_moe', 'mlp.gate.bias'),
    ('granitemoe', 'block_sparse_moe.input_linear.bias'),
    ('qwen2_moe', 'mlp.shared_expert.up_proj.bias'), ('qwen2_moe', 'mlp.shared_expert_gate.bias'),
    ('gpt_oss', 'mlp.experts.scale'), ('cohere2', 'input_layernorm.bias'),
    ('cohere', 'post_attention_layernorm.weight'), ('cohere', 'self_attn.q_norm.weight'),
    ('nemotron', 'mlp.gate_proj.weight'),
    ('hunyuan_v1_dense', 'self_attn.q_norm.weight'), ('ministral3', 'self_attn.sinks')])
def test_a_tensor_that_no_runner_uses_is_refused(family, name, tmp_path):
    tiny.save(tmp_path, tiny.FAMILIES[family]())
    tensors = load_file(tmp_path / 'model.safetensors')
    save_file(tensors | {f'model.layers.0.{name}': torch.ones(40)},
              tmp_path / 'model.safetensors')
    with pytest.raises(ModelError, match=f'{name} is in no model of this type'):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1))


@pytest.mark.parametrize('family, name', [
    ('gpt_oss', 'self_attn.sinks'), ('gpt_oss', 'mlp.router.bias'),
    ('gpt_oss', 'mlp.experts.down_proj_bias'), ('nemotron', 'input_layernorm.bias'),
    ('qwen2_moe', 'mlp.shared_expert_gate.weight'),
    ('qwen2_moe', 'mlp.shared_expert.down_proj.weight'),
    ('hunyuan_v1_dense', 'self_attn.key_layernorm.weight'),
    ('cohere norms', 'self_attn.k_norm.weight')])
def test_a_tensor_that_is_missing_is_refused(family, name, tmp_path):
    tiny.save(tmp_path, tiny.FAMILIES[family]())
    tensors = load_file(tmp_path / 'model.safetensors')
    del tensors[f'model.layers.2.{name}']
    save_file(tensors, tmp_path / 'model.safetensors')
    with pytest.raises(ModelError, match=name.removesuffix('_bias').replace('experts', '.*')):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1))


def test_the_table_of_the_documentation_is_true():
    table = {}
    for line in (ROOT / 'docs' / 'models.md').read_text().splitlines():
        if line.startswith('| `'):
            name, files, gpu = (cell.strip() for cell in line.strip('|').split('|'))
            table[name.strip('`')] = files, gpu
    assert list(table) == list(FAMILIES)
    for name, (files, gpu) in table.items():
        known = [f'`{arch}`' for arch, family in ARCHITECTURES.items()
                 if family.model_type == name]
        if name == 'mixtral':   # GGUF has it as Llama with experts
            known = ['`llama`, with experts']
        assert files == (', '.join(known) or '-')
        if name in tiny.RECURRENT:
            assert gpu == 'through transformers'
            continue
        config = tiny.mistral(sliding_window=None) if name == 'mistral' else (
            FLAT[name]() if name in FLAT else tiny_vision.language(name.removesuffix('_text')))
        lacking = _lacking(describe(config))
        assert gpu == ('recorded' if lacking is None else f'plain pass: {lacking}')
