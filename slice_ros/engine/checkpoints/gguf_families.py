# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What GGUF files of each architecture call the tensors and numbers of a Hugging Face model.

`value(key)` of a `GgufFamily` reads a number of the architecture from the metadata, None if there
is none; `value(key, whole=True)` reads those of the layers where they differ.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import re

Value = Callable[..., object]

_BARE = re.compile(r'blk\.(\d+)\.([\w.]+)')   # of names that end otherwise
_OF_LAYER = re.compile(r'blk\.(\d+)\.([\w.]+)\.(weight|bias)')
_OUTER = {'token_embd': 'model.embed_tokens', 'token_embd_norm': 'model.embedding_norm',
          'output_norm': 'model.norm', 'output': 'lm_head'}
_LLAMA = {
    'attn_norm': 'input_layernorm', 'ffn_norm': 'post_attention_layernorm',
    'attn_q': 'self_attn.q_proj', 'attn_k': 'self_attn.k_proj', 'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.o_proj', 'ffn_gate': 'mlp.gate_proj', 'ffn_up': 'mlp.up_proj',
    'ffn_down': 'mlp.down_proj',
}
_QK_NORMS = {'attn_q_norm': 'self_attn.q_norm', 'attn_k_norm': 'self_attn.k_norm'}
_BEHIND = {'post_attention_norm': 'post_attention_layernorm',
           'post_ffw_norm': 'post_feedforward_layernorm'}
_LFM2 = {
    'attn_norm': 'operator_norm', 'ffn_norm': 'ffn_norm', 'attn_q': 'self_attn.q_proj',
    'attn_k': 'self_attn.k_proj', 'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.out_proj', 'attn_q_norm': 'self_attn.q_layernorm',
    'attn_k_norm': 'self_attn.k_layernorm', 'ffn_gate': 'feed_forward.w1',
    'ffn_up': 'feed_forward.w3', 'ffn_down': 'feed_forward.w2',
    'shortconv.in_proj': 'conv.in_proj', 'shortconv.out_proj': 'conv.out_proj',
    'shortconv.conv': 'conv.conv'}
_EXPERTS = {'ffn_gate_inp': 'mlp.gate', 'ffn_gate_exps': 'mlp.experts.gate_proj',
            'ffn_up_exps': 'mlp.experts.up_proj', 'ffn_down_exps': 'mlp.experts.down_proj'}
_SHARED = {'ffn_gate_inp_shexp': 'mlp.shared_expert_gate'} | {
    f'ffn_{part}_shexp': f'mlp.shared_expert.{part}_proj' for part in ('gate', 'up', 'down')}
_SPACE = {'ssm_in': 'mamba.in_proj', 'ssm_conv1d': 'mamba.conv1d', 'ssm_norm': 'mamba.norm',
          'ssm_out': 'mamba.out_proj'}
_BARE_SPACE = {'ssm_a': 'mamba.A_log', 'ssm_d': 'mamba.D', 'ssm_dt.bias': 'mamba.dt_bias'}
_FUSED_UP = {'ffn_up': 'mlp.gate_up_proj'}
# Where some layers have a window, every so many layers have none.
_GEMMA2_PERIOD, _GEMMA3_PERIOD, _EXAONE4_PERIOD, _COHERE2_PERIOD, _GPT_OSS_PERIOD = 2, 6, 4, 4, 2
_SMOLLM3_NO_ROPE = 4
# Models of Gemma whose attention is scaled by hidden / heads, not by the size of a head: 27B.
_SCALED_BY_HIDDEN = {(4608, 46), (5376, 62)}


@dataclass(frozen=True, slots=True)
class GgufFamily:
    """An architecture of GGUF files."""

    model_type: str
    names: Mapping[str, str] = field(default_factory=lambda: _LLAMA)   # of parts of a layer
    bare: Mapping[str, str] = field(default_factory=dict)   # of those that end otherwise
    paired: bool = False        # llama.cpp interleaves the two halves that the rope pairs
    more: Callable[[Value], dict] = lambda value: {}   # more of the config

    def name(self, gguf: str) -> str | None:
        """Return the Hugging Face name of a tensor, None for one that has none."""
        bare = _BARE.fullmatch(gguf)
        if bare is not None and bare[2] in self.bare:
            return f'model.layers.{bare[1]}.{self.bare[bare[2]]}'
        found = _OF_LAYER.fullmatch(gguf)
        if found is None:
            part, _, kind = gguf.rpartition('.')
            return f'{_OUTER[part]}.{kind}' if part in _OUTER else None
        layer, part, kind = found.groups()
        return f'model.layers.{layer}.{self.names[part]}.{kind}' if part in self.names else None


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


def _granite(value: Value) -> dict:
    return {'embedding_multiplier': value('embedding_scale') or 1.0,
            'residual_multiplier': value('residual_scale') or 1.0,
            'attention_multiplier': value('attention.scale'),
            'logits_scaling': value('logit_scale') or 1.0}


def _experts(value: Value) -> dict:
    wide = value('expert_feed_forward_length')
    return {'num_experts': value('expert_count'), 'num_local_experts': value('expert_count'),
            'num_experts_per_tok': value('expert_used_count'), 'stacked_experts': True} | (
                {'moe_intermediate_size': wide} if wide else {})


def _llama(value: Value) -> dict:
    return {'model_type': 'mixtral'} | _experts(value) if value('expert_count') else {}


def _lfm2(value: Value) -> dict:
    heads = value('attention.head_count_kv', whole=True)   # none in layers without attention
    if not isinstance(heads, tuple):
        heads = (heads,) * value('block_count')
    return {'layer_types': ['full_attention' if n else 'conv' for n in heads],
            'conv_L_cache': value('shortconv.l_cache'), 'conv_bias': False,
            'flat_convolution': True, 'block_auto_adjust_ff_dim': False,
            'norm_eps': value('attention.layer_norm_rms_epsilon')}


def _qwen2_moe(value: Value) -> dict:
    return _experts(value) | {
        'norm_topk_prob': False,
        'shared_expert_intermediate_size': value('expert_shared_feed_forward_length')
        or value('feed_forward_length')}


def _gpt_oss(value: Value) -> dict:
    rope = {'truncate': False}   # of the frequencies that are scaled partly
    return _experts(value) | _layer_types(value, _GPT_OSS_PERIOD) | {
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


def _by_layer(value: Value, key: str) -> tuple:
    """Return a number of each layer."""
    found = value(key, whole=True)
    return found if isinstance(found, tuple) else (found,) * value('block_count')


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
    return _granite(value) | _experts(value) | _space(value) | {
        'num_local_experts': value('expert_count') or 0,
        'shared_intermediate_size': wide or value('feed_forward_length'),
        'position_embedding_type': 'rope' if value('rope.scaling.finetuned') else None,
        'layer_types': ['full_attention' if n else 'linear_attention'
                        for n in _by_layer(value, 'attention.head_count_kv')]}


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
             for heads, wide in zip(_by_layer(value, 'attention.head_count_kv'),
                                    _by_layer(value, 'feed_forward_length'))]
    return _space(value) | {
        'layer_types': kinds, 'mlp_hidden_act': 'relu2', 'mamba_hidden_act': 'silu',
        'layer_norm_epsilon': value('attention.layer_norm_rms_epsilon')}


def _smollm3(value: Value) -> dict:
    return {'use_sliding_window': False, 'no_rope_layers': [
        int((i + 1) % _SMOLLM3_NO_ROPE != 0) for i in range(value('block_count'))]}


def _exaone4(value: Value) -> dict:
    window = value('attention.sliding_window')
    return _layer_types(value, _EXAONE4_PERIOD) if window else {}


_GEMMA = _LLAMA | _QK_NORMS | _BEHIND | {'ffn_norm': 'pre_feedforward_layernorm'}
_NO_NORMS_BEFORE = {name: to for name, to in _LLAMA.items() if 'norm' not in name}

ARCHITECTURES = {
    'llama': GgufFamily('llama', _LLAMA | _EXPERTS, paired=True, more=_llama),
    'mistral': GgufFamily('mistral', paired=True),
    'mistral3': GgufFamily('ministral3', paired=True, more=_mistral3),
    'qwen2': GgufFamily('qwen2'),
    'qwen2moe': GgufFamily('qwen2_moe', _LLAMA | _EXPERTS | _SHARED, more=_qwen2_moe),
    'qwen3': GgufFamily('qwen3', _LLAMA | _QK_NORMS),
    'qwen3moe': GgufFamily('qwen3_moe', _LLAMA | _QK_NORMS | _EXPERTS, more=lambda value: (
        _experts(value) | {'norm_topk_prob': True})),
    'olmoe': GgufFamily('olmoe', _LLAMA | _QK_NORMS | _EXPERTS, more=lambda value: (
        _experts(value) | {'norm_topk_prob': False})),
    'granitemoe': GgufFamily('granitemoe', _LLAMA | _EXPERTS, paired=True, more=lambda value: (
        _granite(value) | _experts(value))),
    'gpt-oss': GgufFamily('gpt_oss', _LLAMA | _EXPERTS | {
        'post_attention_norm': 'post_attention_layernorm', 'attn_sinks': 'self_attn.sinks'},
        more=_gpt_oss),
    'granitehybrid': GgufFamily(
        'granitemoehybrid', _LLAMA | _EXPERTS | _SHARED | _SPACE, _BARE_SPACE, paired=True,
        more=_granite_hybrid),
    'falcon-h1': GgufFamily('falcon_h1', _LLAMA | _SPACE, _BARE_SPACE | {
        'ffn_norm': 'pre_ff_layernorm.weight'}, more=_falcon_h1),
    'nemotron_h': GgufFamily(
        'nemotron_h', _LLAMA | _SPACE | {'attn_norm': 'norm'}, _BARE_SPACE, more=_nemotron_h),
    'lfm2': GgufFamily('lfm2', _LFM2, more=_lfm2),
    'gemma2': GgufFamily('gemma2', _GEMMA, more=lambda value: _gemma(value, _GEMMA2_PERIOD)),
    'gemma3': GgufFamily('gemma3_text', _GEMMA, more=_gemma3),
    'smollm3': GgufFamily('smollm3', paired=True, more=_smollm3),
    'granite': GgufFamily('granite', paired=True, more=_granite),
    'olmo2': GgufFamily('olmo2', _NO_NORMS_BEFORE | _QK_NORMS | _BEHIND),
    'exaone4': GgufFamily('exaone4', _NO_NORMS_BEFORE | _QK_NORMS | _BEHIND, more=_exaone4),
    'glm4': GgufFamily('glm4', _LLAMA | _FUSED_UP | {
        'post_attention_norm': 'post_self_attn_layernorm', 'post_ffw_norm': 'post_mlp_layernorm'}),
    'ernie4_5': GgufFamily('ernie4_5'),
    'hunyuan-dense': GgufFamily('hunyuan_v1_dense', _LLAMA | {
        'attn_q_norm': 'self_attn.query_layernorm', 'attn_k_norm': 'self_attn.key_layernorm'}),
    'command-r': GgufFamily('cohere', _LLAMA | _QK_NORMS, more=_cohere),
    'cohere2': GgufFamily('cohere2', more=lambda value: _cohere(value) | _layer_types(
        value, _COHERE2_PERIOD)),
    'nemotron': GgufFamily('nemotron', more=_nemotron),
    'seed_oss': GgufFamily('seed_oss', _LLAMA | {
        'post_attention_norm': 'post_attention_layernorm'}),
    'phi3': GgufFamily('phi3', _LLAMA | _FUSED_UP | {'attn_qkv': 'self_attn.qkv_proj'}),
}
