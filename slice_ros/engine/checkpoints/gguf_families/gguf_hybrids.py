# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The architectures of GGUF files with layers that keep a state."""

import numpy as np
from slice_ros.engine.checkpoints.gguf_families.gguf_family import (
    by_layer, expert_numbers, EXPERTS, GgufFamily, granite_numbers, LLAMA, QK_NORMS, SHARED, Value)

_LFM2 = {
    'attn_norm': 'operator_norm', 'ffn_norm': 'ffn_norm', 'attn_q': 'self_attn.q_proj',
    'attn_k': 'self_attn.k_proj', 'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.out_proj', 'attn_q_norm': 'self_attn.q_layernorm',
    'attn_k_norm': 'self_attn.k_layernorm', 'ffn_gate': 'feed_forward.w1',
    'ffn_up': 'feed_forward.w3', 'ffn_down': 'feed_forward.w2',
    'shortconv.in_proj': 'conv.in_proj', 'shortconv.out_proj': 'conv.out_proj',
    'shortconv.conv': 'conv.conv'}
_SPACE = {'ssm_in': 'mamba.in_proj', 'ssm_conv1d': 'mamba.conv1d', 'ssm_norm': 'mamba.norm',
          'ssm_out': 'mamba.out_proj'}
_BARE_SPACE = {'ssm_a': 'mamba.A_log', 'ssm_d': 'mamba.D', 'ssm_dt.bias': 'mamba.dt_bias'}
# Of Qwen3.5, whose norm behind attention has no name of its own.
_DELTA = LLAMA | QK_NORMS | {
    'post_attention_norm': 'post_attention_layernorm', 'attn_qkv': 'linear_attn.in_proj_qkv',
    'attn_gate': 'linear_attn.in_proj_z', 'ssm_beta': 'linear_attn.in_proj_b',
    'ssm_alpha': 'linear_attn.in_proj_a', 'ssm_conv1d': 'linear_attn.conv1d',
    'ssm_norm': 'linear_attn.norm', 'ssm_out': 'linear_attn.out_proj'}
_BARE_DELTA = {'ssm_a': 'linear_attn.A_log', 'ssm_dt.bias': 'linear_attn.dt_bias'}
_OF_VALUES = ('attn_gate.weight', 'ssm_beta.weight', 'ssm_alpha.weight', *_BARE_DELTA)
_BEHIND_KEYS = ('attn_qkv.weight', 'ssm_conv1d.weight')   # their rows begin with queries and keys
_ATTENTION_PERIOD = 4   # of Qwen3.5: every so many layers have attention


def _lfm2(value: Value) -> dict:
    return {'layer_types': ['full_attention' if heads else 'conv'
                            for heads in by_layer(value, 'attention.head_count_kv')],
            'conv_L_cache': value('shortconv.l_cache'), 'conv_bias': False,
            'flat_convolution': True, 'block_auto_adjust_ff_dim': False,
            'norm_eps': value('attention.layer_norm_rms_epsilon')}


def _space(value: Value) -> dict:
    heads = value('ssm.time_step_rank')
    return {'flat_space': True, 'mamba_n_heads': heads, 'mamba_num_heads': heads,
            'mamba_d_head': (dim := value('ssm.inner_size') // heads), 'mamba_head_dim': dim,
            'mamba_n_groups': value('ssm.group_count'), 'n_groups': value('ssm.group_count'),
            'mamba_d_state': value('ssm.state_size'), 'ssm_state_size': value('ssm.state_size'),
            'mamba_d_conv': value('ssm.conv_kernel'), 'conv_kernel': value('ssm.conv_kernel'),
            'mamba_conv_bias': True, 'use_conv_bias': True,
            'time_step_limit': None, 'time_step_min': 0.0}


def _granite_hybrid(value: Value) -> dict:
    wide = value('expert_shared_feed_forward_length') if value('expert_count') else None
    return granite_numbers(value) | expert_numbers(value) | _space(value) | {
        'num_local_experts': value('expert_count') or 0,
        'shared_intermediate_size': wide or value('feed_forward_length'),
        'position_embedding_type': 'rope' if value('rope.scaling.finetuned') else None,
        'layer_types': ['full_attention' if n else 'linear_attention'
                        for n in by_layer(value, 'attention.head_count_kv')]}


def _falcon_h1(value: Value) -> dict:
    # The multipliers are in the weights of the file.
    return _space(value) | dict.fromkeys((
        'attention_in_multiplier', 'attention_out_multiplier', 'key_multiplier',
        'ssm_in_multiplier', 'ssm_out_multiplier', 'embedding_multiplier',
        'lm_head_multiplier'), 1.0) | {
            'mlp_multipliers': [1.0] * 2, 'ssm_multipliers': [1.0] * 5,
            'mamba_norm_before_gate': False}


def _nemotron_h(value: Value) -> dict:
    kinds = ['full_attention' if heads else 'mlp' if wide else 'linear_attention'
             for heads, wide in zip(by_layer(value, 'attention.head_count_kv'),
                                    by_layer(value, 'feed_forward_length'))]
    return _space(value) | {
        'layer_types': kinds, 'mlp_hidden_act': 'relu2', 'mamba_hidden_act': 'silu',
        'layer_norm_epsilon': value('attention.layer_norm_rms_epsilon')
        or value('attention.layer_norm_epsilon')}   # as the config called it that was converted


def _nemotron_h_moe(value: Value) -> dict:
    made = _nemotron_h(value)
    return made | expert_numbers(value) | {
        'layer_types': ['moe' if kind == 'mlp' else kind for kind in made['layer_types']],
        'moe_shared_expert_intermediate_size': value('expert_shared_feed_forward_length'),
        'moe_latent_size': value('moe_latent_size'), 'n_group': value('expert_group_count') or 1,
        'norm_topk_prob': bool(value('expert_weights_norm')),
        'routed_scaling_factor': value('expert_weights_scale') or 1.0}


def _qwen3_5(value: Value) -> dict:
    period, heads = value('full_attention_interval') or _ATTENTION_PERIOD, value(
        'ssm.time_step_rank')
    recurrent = value('attention.recurrent_layers', whole=True)
    if recurrent is None:
        recurrent = [(i + 1) % period for i in range(value('block_count'))]
    return {'layer_types': ['linear_attention' if one else 'full_attention' for one in recurrent],
            'linear_num_key_heads': value('ssm.group_count'), 'linear_num_value_heads': heads,
            'linear_key_head_dim': value('ssm.state_size'),
            'linear_value_head_dim': value('ssm.inner_size') // heads,
            'linear_conv_kernel_dim': value('ssm.conv_kernel'), 'flat_delta': True,
            'norm_offset': 0.0}   # it is in the weights of the file


def _qwen3_5_moe(value: Value) -> dict:
    return _qwen3_5(value) | expert_numbers(value) | {
        'shared_expert_intermediate_size': value('expert_shared_feed_forward_length')}


def _value_rows(value: Value, part: str, rows: int) -> np.ndarray | None:
    keys = 2 * value('ssm.group_count') * value('ssm.state_size') if part in _BEHIND_KEYS else 0
    if not keys and part not in _OF_VALUES:
        return None
    return np.concatenate((np.arange(keys), keys + _by_key_head(value, rows - keys)))


def _value_inputs(value: Value, part: str, inputs: int) -> np.ndarray | None:
    return _by_key_head(value, inputs) if part == 'ssm_out.weight' else None


def _by_key_head(value: Value, count: int) -> np.ndarray:
    """Return where numbers of value heads are: a file has the first of each key head first.

    Raises ``ValueError`` where so many are not of these heads.
    """
    keys = value('ssm.group_count')
    shared = value('ssm.time_step_rank') // keys
    return np.arange(count).reshape(shared, keys, -1).swapaxes(0, 1).reshape(-1)


HYBRIDS = {
    'granitehybrid': GgufFamily(
        'granitemoehybrid', LLAMA | EXPERTS | SHARED | _SPACE, _BARE_SPACE, paired=True,
        more=_granite_hybrid),
    'falcon-h1': GgufFamily('falcon_h1', LLAMA | _SPACE, _BARE_SPACE | {
        'ffn_norm': 'pre_ff_layernorm.weight'}, more=_falcon_h1),
    'nemotron_h': GgufFamily(
        'nemotron_h', LLAMA | _SPACE | {'attn_norm': 'norm'}, _BARE_SPACE, more=_nemotron_h),
    'nemotron_h_moe': GgufFamily(
        'nemotron_h', LLAMA | EXPERTS | SHARED | _SPACE | {'attn_norm': 'norm'}, _BARE_SPACE | {
            'exp_probs_b.bias': 'mlp.gate.e_score_correction_bias'}, more=_nemotron_h_moe),
    'qwen35': GgufFamily('qwen3_5_text', _DELTA, _BARE_DELTA, more=_qwen3_5, rows=_value_rows,
                         inputs=_value_inputs),
    'qwen35moe': GgufFamily('qwen3_5_moe_text', _DELTA | EXPERTS | SHARED, _BARE_DELTA,
                            more=_qwen3_5_moe, rows=_value_rows, inputs=_value_inputs),
    'lfm2': GgufFamily('lfm2', _LFM2, more=_lfm2),
}
