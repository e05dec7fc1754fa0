# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""GGUF files of every family against the model that they were written from."""

import random

from conftest import sampled
import gguf
import gguf_files
import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.checkpoints import gguf_file
from slice_ros.engine.checkpoints.gguf_families import ARCHITECTURES
from slice_ros.engine.runners.runner import Segment
from slice_ros.errors import ModelError
import tiny
import torch


def windows(size):
    return lambda writer: writer.add_sliding_window(size)


def gemma(writer):
    writer.add_key_length(24)
    writer.add_sliding_window(33)


def gemma2(writer):
    gemma(writer)
    writer.add_attn_logit_softcapping(5.0)
    writer.add_final_logit_softcapping(3.0)


def gemma3(writer):
    gemma(writer)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(8.0)


def granite(writer):
    writer.add_embedding_scale(3.0)
    writer.add_residual_scale(0.4)
    writer.add_attention_scale(0.3)
    writer.add_logit_scale(2.0)


def partial(dims, head_dim):
    def describe(writer):
        writer.add_key_length(head_dim)
        writer.add_rope_dimension_count(dims)
    return describe


def longrope(writer):
    writer.add_rope_scaling_orig_ctx_len(128)
    writer.add_rope_scaling_attn_factors(1.25)


def own_size(writer):
    writer.add_key_length(24)


def short_key(writer):
    writer.add_key_length(16)


def delta(period, *more):
    def describe(writer):
        writer.add_key_length(24)
        writer.add_rope_dimension_count(6)
        writer.add_ssm_conv_kernel(4)
        writer.add_full_attention_interval(period)
        sizes(6, 32, 64, 2)(writer)
        for add in more:
            add(writer)
    return describe


def one_that_guesses(layers):
    def describe(writer):   # behind the others
        writer.add_block_count(layers + 1)
        writer.add_nextn_predict_layers(1)
        writer.add_array('qwen35.attention.recurrent_layers', [True, False, False])
        writer.add_tensor(f'blk.{layers}.nextn.enorm.weight', torch.ones(64).numpy())
    return describe


def short_conv(writer):
    writer.add_key_length(16)
    writer.add_shortconv_l_cache(3)


def space(*more):
    def describe(writer):
        writer.add_ssm_conv_kernel(4)
        for add in more:
            add(writer)
    return describe


def sizes(heads, head_dim, state, groups):
    def describe(writer):
        writer.add_ssm_inner_size(heads * head_dim)
        writer.add_ssm_time_step_rank(heads)
        writer.add_ssm_state_size(state)
        writer.add_ssm_group_count(groups)
    return describe


def experts(count, chosen, *more):
    def describe(writer):
        writer.add_expert_count(count)
        writer.add_expert_used_count(chosen)
        for add in more:
            add(writer)
    return describe


def routed(scale):
    def describe(writer):
        writer.add_expert_feed_forward_length(40)
        writer.add_expert_shared_feed_forward_length(48)
        writer.add_expert_weights_norm(True)
        writer.add_expert_weights_scale(scale)
        writer.add_expert_group_count(1)
    return describe


def mistral3(writer):
    own_size(writer)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(32)
    writer.add_rope_scaling_yarn_log_mul(1.0)
    writer.add_attn_temperature_scale(0.5)


def gpt_oss(writer):
    own_size(writer)
    windows(40)(writer)
    writer.add_expert_feed_forward_length(96)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(64)


def shared(writer):
    writer.add_expert_feed_forward_length(40)
    writer.add_expert_shared_feed_forward_length(112)


def cohere(*more):
    def describe(writer):
        writer.add_logit_scale(0.5)
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        for add in more:
            add(writer)
    return describe


LAYERS = {'num_hidden_layers': 6}   # so that the periods of windows and ropes show
FACTORS = {'short_factor': [1.0 + n / 8 for n in range(8)], 'long_factor': [4.0] * 8}
# architecture in GGUF -> config, what the file says beside, tensors of the rope
FILES = {
    'qwen2': (tiny.qwen2, None),
    'qwen3': (tiny.FAMILIES['qwen3'], own_size),
    'qwen3moe': (lambda: tiny.described(
        'qwen3_moe', num_experts=8, num_experts_per_tok=3, moe_intermediate_size=40,
        norm_topk_prob=True), experts(
        8, 3, own_size, lambda writer: writer.add_expert_feed_forward_length(40))),
    'olmoe': (tiny.FAMILIES['olmoe'], experts(6, 4)),
    'granitemoe': (tiny.FAMILIES['granitemoe'], experts(
        4, 2, granite, lambda writer: writer.add_key_length(16))),
    'llama mixtral': (tiny.FAMILIES['mixtral'], experts(5, 2, own_size, windows(40))),
    'qwen2moe': (lambda: tiny.described(
        'qwen2_moe', head_dim=16, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=40,
        shared_expert_intermediate_size=112), experts(6, 2, shared)),
    'gpt-oss': (lambda: tiny.described(
        'gpt_oss', num_local_experts=6, num_experts_per_tok=2, sliding_window=40,
        rope_parameters=tiny.yarn() | {'truncate': False}), experts(6, 2, gpt_oss)),
    'mistral3': (lambda: tiny.FAMILIES['ministral3'](sliding_window=None), mistral3),
    'hunyuan-dense': (tiny.FAMILIES['hunyuan_v1_dense'], own_size),
    'command-r': (tiny.FAMILIES['cohere'], cohere()),
    'command-r norms': (tiny.FAMILIES['cohere norms'], cohere()),
    'cohere2': (lambda: tiny.described(
        'cohere2', head_dim=16, sliding_window=40, logit_scale=0.5, **LAYERS),
                cohere(windows(40))),
    'nemotron': (tiny.FAMILIES['nemotron'], partial(12, 24)),
    'lfm2': (lambda: tiny.RECURRENT['lfm2'](block_auto_adjust_ff_dim=False), short_conv),
    'qwen35': (lambda: tiny.qwen3_5('qwen3_5_text', ('linear', 'full') * 2), delta(2)),
    'qwen35 guesses': (lambda: tiny.qwen3_5('qwen3_5_text', ('linear', 'full')), delta(
        2, one_that_guesses(2))),
    'qwen35moe': (lambda: tiny.qwen3_5(
        'qwen3_5_moe_text', ('linear', 'linear', 'full'), num_experts=6, num_experts_per_tok=2,
        moe_intermediate_size=40, shared_expert_intermediate_size=48), experts(
        6, 2, delta(3), lambda writer: writer.add_expert_feed_forward_length(40),
        lambda writer: writer.add_expert_shared_feed_forward_length(48))),
    'granitehybrid': (tiny.RECURRENT['granitemoehybrid'], space(
        sizes(4, 32, 16, 1), granite, lambda writer: writer.add_rope_scaling_finetuned(False))),
    'granitehybrid experts': (lambda: tiny.granite_hybrid(
        num_local_experts=4, num_experts_per_tok=2, intermediate_size=40, mamba_n_groups=2,
        position_embedding_type='rope'), experts(
        4, 2, space(sizes(4, 32, 16, 2)), granite,
        lambda writer: writer.add_rope_scaling_finetuned(True),
        lambda writer: writer.add_expert_shared_feed_forward_length(96))),
    'falcon-h1': (lambda: tiny.falcon_h1(mamba_n_groups=1), space(sizes(4, 16, 32, 1), short_key)),
    'falcon-h1 norm': (lambda: tiny.falcon_h1(
        mamba_n_groups=2, mamba_rms_norm=True, mamba_norm_before_gate=False),
        space(sizes(4, 16, 32, 2), short_key)),
    'nemotron_h': (tiny.RECURRENT['nemotron_h'], space(
        sizes(4, 48, 16, 2), own_size,
        lambda writer: writer.add_feed_forward_length([0, 96, 0, 0, 96]))),
    'nemotron_h_moe': (lambda: tiny.RECURRENT['nemotron_h experts'](layers_block_type=[
        'linear_attention', 'moe', 'full_attention', 'moe']), experts(8, 3, space(
            sizes(4, 48, 16, 2), own_size, routed(2.5),
            lambda writer: writer.add_feed_forward_length([0, 40, 0, 40])))),
    'gemma2': (lambda: tiny.described(
        'gemma2', sliding_window=33, query_pre_attn_scalar=24, attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0, **LAYERS), gemma2),
    'gemma3': (lambda: tiny.described(
        'gemma3_text', sliding_window=33, query_pre_attn_scalar=24, rope_parameters={
            'full_attention': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 1e6},
            'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4}}, **LAYERS), gemma3),
    'smollm3': (lambda: tiny.described('smollm3', **LAYERS), own_size),
    'granite': (tiny.FAMILIES['granite'], lambda writer: (own_size(writer), granite(writer))),
    'olmo2': (tiny.FAMILIES['olmo2'], own_size),
    'exaone4': (lambda: tiny.described('exaone4', sliding_window=40, sliding_window_pattern=4,
                                       **LAYERS),
                lambda writer: (own_size(writer), windows(40)(writer))),
    'glm4': (tiny.FAMILIES['glm4'], partial(12, 24)),
    'ernie4_5': (tiny.FAMILIES['ernie4_5'], own_size),
    'seed_oss': (tiny.FAMILIES['seed_oss'], own_size),
    'phi3': (tiny.FAMILIES['phi3'], partial(18, 24)),
    'phi3 longrope': (lambda: tiny.described(
        'phi3', head_dim=16, max_position_embeddings=512, original_max_position_embeddings=128,
        rope_parameters={
            'rope_type': 'longrope', 'rope_theta': 10000.0, 'attention_factor': 1.25,
            'original_max_position_embeddings': 128} | FACTORS), longrope),
}


def write(path, name, types=()):
    """Write the file of a family; return its model with the weights of the file.

    `types` are as `gguf_files.write` takes them; the model is then another.
    """
    make, describe = FILES[name]
    config = make()
    model = tiny.model(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = parameter.data.half().float()
    rope = [(f'rope_factors_{which}.weight', torch.tensor(FACTORS[f'{which}_factor']).numpy())
            for which in ('short', 'long')] if 'longrope' in name else ()
    state = {key: value for key, value in model.state_dict().items()
             if key != 'lm_head.weight' or not config.tie_word_embeddings}

    def more(writer):
        gguf_files.add_bytes(writer)
        if describe is not None:
            describe(writer)
    kv_heads = {'lfm2': [0, 2, 0], 'granitehybrid': [0, 2, 0], 'nemotron_h': [
        0, 0, 0, 2, 0], 'nemotron_h_moe': [0, 0, 2, 0]}.get(name.split()[0])
    gguf_files.write(path, name.split()[0], config, state, rope, kv_heads, more, types)
    return model


@torch.no_grad()
def greedy(model, tokens, count):
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens


def test_every_architecture_has_a_file():
    assert {name.split()[0] for name in FILES} | {'mistral'} == set(ARCHITECTURES)


@pytest.mark.parametrize('name', FILES)
def test_answers_are_those_of_the_model(name, tmp_path):
    model = write(tmp_path / 'model.gguf', name)
    engine = load_engine(EngineConfig(str(tmp_path / 'model.gguf'), weights='fp32',
                                      max_context=128, slots=2))
    assert engine.info.path == 'flat batch'
    for length in (5, 33, 90):   # the last is beyond all windows
        prompt = torch.randint(0, 256, (length,),
                               generator=torch.Generator().manual_seed(length)).tolist()
        sequence = engine.open(prompt, 12, Sampling())
        while not sequence.finish_reason:
            engine.step([(sequence, min(sequence.pending, 40))])
        engine.close(sequence)
        wanted = greedy(model, prompt, 12)
        assert sequence.tokens == wanted[:len(sequence.tokens)]
        assert len(sequence.tokens) > length


@pytest.mark.parametrize('name', ['granitehybrid', 'falcon-h1 norm', 'nemotron_h', 'qwen35'])
def test_codes_of_layers_with_states_are_kept(name, tmp_path):
    """But for the rows of its time steps; what differs is that activations have 8 bits."""
    write(tmp_path / 'model.gguf', name, (('in_proj', 'Q4_0'), ('out_proj', 'Q8_0')))
    found = {}
    for weights in ('auto', 'fp32'):
        engine = load_engine(EngineConfig(str(tmp_path / 'model.gguf'), weights=weights,
                                          max_context=64, slots=1))
        if 'native' not in engine.info.kernels:
            pytest.skip('the native kernels are not built')
        tokens, slot = list(range(7, 47)), engine._slots.take()
        engine._slots.reserve([(slot, len(tokens))])
        found[weights] = torch.as_tensor(engine._runner.forward(
            [Segment(slot, 0, tokens, True)]))[0].clone()
        kinds = engine.info.weights
        assert ('int4' in kinds and 'int8' in kinds) == (weights == 'auto')
    off = (found['auto'] - found['fp32']).abs().max() / found['fp32'].abs().max()
    assert 0 < off < 0.05


@pytest.mark.parametrize('name', sampled(
    ['lfm2', 'granitehybrid experts', 'falcon-h1', 'nemotron_h_moe', 'qwen35', 'qwen35moe'],
    ['nemotron_h_moe', 'qwen35moe']))
def test_strange_numbers_of_layers_with_states_are_refused_or_run(name, tmp_path, monkeypatch):
    path, read = tmp_path / 'model.gguf', gguf_file.read_header
    write(path, name)
    whole, tensors = read(path)
    strange = [(key, value) for key in whole if key.startswith(name.split()[0])
               for value in (None, 0, 3, 2.5, 'x', (1,), 1 << 40)]
    refused, tried = 0, random.Random(name).sample(strange, 16)
    for key, value in tried:
        monkeypatch.setattr(gguf_file, 'read_header', lambda *given, key=key, value=value: (
            read(*given)[0] | {key: value}, tensors))
        try:
            load_engine(EngineConfig(str(path), max_context=64, slots=1))
        except ModelError as error:
            refused += 1
            assert '\n' not in str(error) and len(str(error)) < 1000
    assert refused > len(tried) // 4


def test_a_tensor_that_the_family_does_not_speak_of_is_refused(tmp_path):
    config = tiny.qwen2()
    state = dict(tiny.model(config).state_dict())
    gguf_files.write(tmp_path / 'model.gguf', 'qwen2', config, state,
                     [('blk.0.attn_q_norm.weight', torch.ones(16).numpy())],
                     describe=gguf_files.add_bytes)
    with pytest.raises(ModelError, match='blk.0.attn_q_norm.weight is in no model'):
        load_engine(EngineConfig(str(tmp_path / 'model.gguf'), max_context=64, slots=1))


def test_a_billion_blocks_are_refused_before_each_is_given_a_kind(tmp_path, monkeypatch):
    write(tmp_path / 'model.gguf', 'gemma3')
    read = gguf_file.read_header

    def damaged(*given):
        metadata, tensors = read(*given)
        return dict(metadata) | {'gemma3.block_count': 10 ** 9}, tensors
    monkeypatch.setattr(gguf_file, 'read_header', damaged)
    with pytest.raises(ModelError, match='gemma3.block_count is 1000000000'):
        load_engine(EngineConfig(str(tmp_path / 'model.gguf'), max_context=64, slots=1))
