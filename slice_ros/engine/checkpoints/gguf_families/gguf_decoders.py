# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The architectures of GGUF files whose layers all have attention alone."""

from slice_ros.engine.checkpoints.gguf_families.gguf_family import (
    expert_numbers, EXPERTS, GgufFamily, granite_numbers, LLAMA, QK_NORMS, SHARED, Value)

_BEHIND = {'post_attention_norm': 'post_attention_layernorm',
           'post_ffw_norm': 'post_feedforward_layernorm'}
_FUSED_UP = {'ffn_up': 'mlp.gate_up_proj'}
# Where some layers have a window, every so many layers have none.
_GEMMA2_PERIOD, _GEMMA3_PERIOD, _EXAONE4_PERIOD, _COHERE2_PERIOD, _GPT_OSS_PERIOD = 2, 6, 4, 4, 2
_SMOLLM3_NO_ROPE = 4
# Models of Gemma whose attention is scaled by hidden / heads, not by the size of a head: 27B.
_SCALED_BY_HIDDEN = {(4608, 46), (5376, 62)}


def _layer_types(value: Value, period: int) -> dict:
    kinds = ['full_attention' if (i + 1) % period == 0 else 'sliding_attention'
             for i in range(value('block_count'))]
    return {'layer_types': kinds}


def _gemma(value: Value, period: int) -> dict:
    hidden, heads = value('embedding_length'), value('attention.head_count')
    by_hidden = (hidden, value('block_count')) in _SCALED_BY_HIDDEN
    return _layer_types(value, period) | {
        'hidden_act': None, 'hidden_activation': 'gelu_pytorch_tanh',
        'norm_offset': 0.0,   # it is in the weights of the file
        'query_pre_attn_scalar': hidden // heads if by_hidden else value('attention.key_length'),
        'attn_logit_softcapping': value('attn_logit_softcapping'),
        'final_logit_softcapping': value('final_logit_softcapping')}


def _gemma3(value: Value) -> dict:
    scaled = ({'rope_type': 'linear', 'factor': value('rope.scaling.factor')}
              if value('rope.scaling.type') == 'linear' else {'rope_type': 'default'})
    return _gemma(value, _GEMMA3_PERIOD) | {'rope_parameters': {
        'full_attention': scaled | {'rope_theta': value('rope.freq_base') or 1e6},
        'sliding_attention': {'rope_type': 'default',
                              'rope_theta': value('rope.freq_base_swa') or 1e4}}}


def _llama(value: Value) -> dict:
    return {'model_type': 'mixtral'} | expert_numbers(value) if value('expert_count') else {}


def _qwen2_moe(value: Value) -> dict:
    return expert_numbers(value) | {
        'norm_topk_prob': False,
        'shared_expert_intermediate_size': value('expert_shared_feed_forward_length')
        or value('feed_forward_length')}


def _gpt_oss(value: Value) -> dict:
    rope = {'truncate': False}   # of the frequencies that are scaled partly
    return expert_numbers(value) | _layer_types(value, _GPT_OSS_PERIOD) | {
        'swiglu_alpha': 1.702, 'swiglu_limit': 7.0, 'more_of_rope': rope}


def _mistral3(value: Value) -> dict:
    rope = {'llama_4_scaling_beta': value('attention.temperature_scale') or None,
            'original_max_position_embeddings': value('rope.scaling.original_context_length')}
    if scale := value('rope.scaling.yarn_log_multiplier'):
        rope |= {'mscale': 1.0, 'mscale_all_dim': scale}
    return {'more_of_rope': {name: number for name, number in rope.items() if number}}


def _cohere(value: Value) -> dict:
    return {'layer_norm_eps': value('attention.layer_norm_epsilon'),
            'logit_scale': value('logit_scale') or 1.0}


def _nemotron(value: Value) -> dict:
    return {'hidden_act': 'relu2', 'norm_eps': value('attention.layer_norm_epsilon'),
            'norm_offset': 0.0}   # it is in the weights of the file


def _smollm3(value: Value) -> dict:
    return {'use_sliding_window': False, 'no_rope_layers': [
        int((i + 1) % _SMOLLM3_NO_ROPE != 0) for i in range(value('block_count'))]}


def _exaone4(value: Value) -> dict:
    window = value('attention.sliding_window')
    return _layer_types(value, _EXAONE4_PERIOD) if window else {}


_GEMMA = LLAMA | QK_NORMS | _BEHIND | {'ffn_norm': 'pre_feedforward_layernorm'}
_NO_NORMS_BEFORE = {name: to for name, to in LLAMA.items() if 'norm' not in name}

DECODERS = {
    'llama': GgufFamily('llama', LLAMA | EXPERTS, paired=True, more=_llama),
    'mistral': GgufFamily('mistral', paired=True),
    'mistral3': GgufFamily('ministral3', paired=True, more=_mistral3),
    'qwen2': GgufFamily('qwen2'),
    'qwen2moe': GgufFamily('qwen2_moe', LLAMA | EXPERTS | SHARED, more=_qwen2_moe),
    'qwen3': GgufFamily('qwen3', LLAMA | QK_NORMS),
    'qwen3moe': GgufFamily('qwen3_moe', LLAMA | QK_NORMS | EXPERTS, more=lambda value: (
        expert_numbers(value) | {'norm_topk_prob': True})),
    'olmoe': GgufFamily('olmoe', LLAMA | QK_NORMS | EXPERTS, more=lambda value: (
        expert_numbers(value) | {'norm_topk_prob': False})),
    'granitemoe': GgufFamily('granitemoe', LLAMA | EXPERTS, paired=True, more=lambda value: (
        granite_numbers(value) | expert_numbers(value))),
    'gpt-oss': GgufFamily('gpt_oss', LLAMA | EXPERTS | {
        'post_attention_norm': 'post_attention_layernorm', 'attn_sinks': 'self_attn.sinks'},
        more=_gpt_oss),
    'gemma2': GgufFamily('gemma2', _GEMMA, more=lambda value: _gemma(value, _GEMMA2_PERIOD)),
    'gemma3': GgufFamily('gemma3_text', _GEMMA, more=_gemma3),
    'smollm3': GgufFamily('smollm3', paired=True, more=_smollm3),
    'granite': GgufFamily('granite', paired=True, more=granite_numbers),
    'olmo2': GgufFamily('olmo2', _NO_NORMS_BEFORE | QK_NORMS | _BEHIND),
    'exaone4': GgufFamily('exaone4', _NO_NORMS_BEFORE | QK_NORMS | _BEHIND, more=_exaone4),
    'glm4': GgufFamily('glm4', LLAMA | _FUSED_UP | {
        'post_attention_norm': 'post_self_attn_layernorm', 'post_ffw_norm': 'post_mlp_layernorm'}),
    'ernie4_5': GgufFamily('ernie4_5'),
    'hunyuan-dense': GgufFamily('hunyuan_v1_dense', LLAMA | {
        'attn_q_norm': 'self_attn.query_layernorm', 'attn_k_norm': 'self_attn.key_layernorm'}),
    'command-r': GgufFamily('cohere', LLAMA | QK_NORMS, more=_cohere),
    'cohere2': GgufFamily('cohere2', more=lambda value: _cohere(value) | _layer_types(
        value, _COHERE2_PERIOD)),
    'nemotron': GgufFamily('nemotron', more=_nemotron),
    'seed_oss': GgufFamily('seed_oss', LLAMA | {
        'post_attention_norm': 'post_attention_layernorm'}),
    'phi3': GgufFamily('phi3', LLAMA | _FUSED_UP | {'attn_qkv': 'self_attn.qkv_proj'}),
}
