# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The families that the flat batch runs: from a config to an `Architecture`.

A new family is an entry in `FAMILIES`, and a line in the tests.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from slice_ros.engine.models.architecture import (
    Architecture, DOWN, FINAL_NORM, GATE_UP, Layer, OUT, QK_NORMS, QKV)
from slice_ros.engine.models.decoder_config import BEFORE, decoder, ropes_by_kind, windows
from slice_ros.engine.models.expert_families import (
    expert_count, EXPERTS, GPT_OSS, GRANITE, MIXTRAL, sparse, with_shared)
from slice_ros.engine.models.hybrid_families import (
    falcon_h1, granite_hybrid, granite_layers, nemotron_h, nemotron_layers)
from slice_ros.engine.models.recurrences import Delta, ShortConv
from slice_ros.engine.models.rope import head_dim, Unsupported, with_axes

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_AFTER = {'attention_out_norm': 'post_attention_layernorm',
          'mlp_out_norm': 'post_feedforward_layernorm'}
_GEMMA = _AFTER | {'attention_norm': 'input_layernorm', 'mlp_norm': 'pre_feedforward_layernorm'}
_GLM4 = BEFORE | {'attention_out_norm': 'post_self_attn_layernorm',
                  'mlp_out_norm': 'post_mlp_layernorm'}
_LFM2 = {OUT: 'self_attn.out_proj', FINAL_NORM: 'model.embedding_norm',
         **dict(zip(QK_NORMS, ('self_attn.q_layernorm', 'self_attn.k_layernorm'))),
         **dict(zip((*GATE_UP, DOWN), (f'feed_forward.{name}' for name in ('w1', 'w3', 'w2'))))}
_HUNYUAN = dict(zip(QK_NORMS, ('self_attn.query_layernorm', 'self_attn.key_layernorm')))
_ONE_NORM = dict.fromkeys(('attention_norm', 'mlp_norm'), 'input_layernorm')
_FUSED_GATE_UP = {'mlp.gate_up_proj': GATE_UP}


def describe(config: 'PreTrainedConfig') -> Architecture | str:
    """Return the architecture of a model, or why there is no description of it."""
    make = FAMILIES.get(config.model_type)
    if make is None:
        return f'model type {config.model_type}'
    try:
        return make(config)
    except Unsupported as reason:
        return str(reason)


def _gemma(config: 'PreTrainedConfig', **changes) -> Architecture:
    # transformers rounds the scale of embeddings to the type of the weights.
    return decoder(
        config, norms=_GEMMA, norm_offset=getattr(config, 'norm_offset', 1.0),
        embedding_scale=config.hidden_size ** 0.5,
        attention_scale=config.query_pre_attn_scalar ** -0.5,
        attention_softcap=getattr(config, 'attn_logit_softcapping', None) or 0.0,
        logit_softcap=getattr(config, 'final_logit_softcapping', None) or 0.0, **changes)


def _gemma3(config: 'PreTrainedConfig') -> Architecture:
    if getattr(config, 'use_bidirectional_attention', None):
        raise Unsupported('attention to later tokens')
    return _gemma(config, qk_norm='head', **ropes_by_kind(config))


def _granite(config: 'PreTrainedConfig', **changes) -> Architecture:
    return decoder(config, embedding_scale=config.embedding_multiplier,
                   residual_scale=config.residual_multiplier,
                   attention_scale=config.attention_multiplier,
                   logit_scale=1.0 / config.logits_scaling, **changes)


def _granite_hybrid(config: 'PreTrainedConfig') -> Architecture:
    made = _granite(config, layers=granite_layers(config))
    return granite_hybrid(config, made if expert_count(config) is None else sparse(
        config, made, GRANITE))


def _smollm3(config: 'PreTrainedConfig') -> Architecture:
    slide = windows(config) if config.use_sliding_window else [None] * config.num_hidden_layers
    return decoder(config, layers=tuple(
        Layer(0 if has_rope else None, window)
        for has_rope, window in zip(config.no_rope_layers, slide)))


def _exaone4(config: 'PreTrainedConfig') -> Architecture:
    # Where some layers slide, the others do not mark positions.
    slide = windows(config)
    return decoder(config, norms=_AFTER, qk_norm='head', layers=tuple(
        Layer(0 if window or not config.sliding_window else None, window) for window in slide))


def _qwen3_5(config: 'PreTrainedConfig') -> Architecture:
    kinds = config.layer_types
    if not isinstance(kinds, list) or len(kinds) != config.num_hidden_layers \
            or not {*map(str, kinds)} <= {'linear_attention', 'full_attention'}:
        raise Unsupported(f'layer_types {kinds!r:.80}')
    made = decoder(
        config, qk_norm='head', norm_offset=getattr(config, 'norm_offset', 1.0), gated=True,
        layers=tuple(Layer(recurrent=kind == 'linear_attention') for kind in kinds),
        recurrence=Delta(
            config.linear_num_key_heads, config.linear_num_value_heads,
            config.linear_key_head_dim, config.linear_value_head_dim,
            config.linear_conv_kernel_dim, getattr(config, 'flat_delta', False)))
    return _with_axes(config, made, (11, 11, 10), True)


def _with_axes(config: 'PreTrainedConfig', made: Architecture, sections: tuple[int, ...],
               interleaved: bool) -> Architecture:
    """Return a decoder whose positions have three numbers, with these `sections` by default."""
    given = (config.rope_parameters or {}).get('mrope_section')
    if given is None and sum(sections) != len(made.ropes[0].frequencies):
        return made   # which sees nothing
    return replace(made, ropes=(with_axes(
        made.ropes[0], sections if given is None else given, interleaved),))


def _qwen2_vl(config: 'PreTrainedConfig') -> Architecture:
    return _with_axes(config, decoder(config), (16, 24, 24), False)


def _qwen3_vl(config: 'PreTrainedConfig') -> Architecture:
    levels = getattr(config, 'input_levels', 0)
    if levels >= config.num_hidden_layers:
        raise Unsupported(f'deepstack_visual_indexes for {levels} layers')
    made = decoder(config, qk_norm='head', input_levels=levels)
    return _with_axes(config, made, (24, 20, 20), True)


def _lfm2(config: 'PreTrainedConfig') -> Architecture:
    kinds, wide = config.layer_types, config.intermediate_size
    if not isinstance(kinds, list) or len(kinds) != config.num_hidden_layers \
            or not {*map(str, kinds)} <= {'conv', 'full_attention'} or config.conv_bias:
        raise Unsupported(f'layer_types {kinds!r:.80}, conv_bias {config.conv_bias!r:.20}')
    if config.block_auto_adjust_ff_dim:
        wide = int(config.block_ffn_dim_multiplier * (2 * wide // 3))
        wide = -(-wide // config.block_multiple_of) * config.block_multiple_of
    return decoder(
        config, norm_eps=config.norm_eps, intermediate=wide, qk_norm='head',
        norms={'attention_norm': 'operator_norm', 'mlp_norm': 'ffn_norm'}, renamed=_LFM2,
        layers=tuple(Layer(recurrent=kind == 'conv') for kind in kinds),
        recurrence=ShortConv(config.hidden_size, config.conv_L_cache,
                             getattr(config, 'flat_convolution', False)))


def _hunyuan(config: 'PreTrainedConfig') -> Architecture:
    # `dynamic` is a name: with `alpha`, another base for all lengths.
    rope = config.rope_parameters
    if isinstance(rope, dict) and rope.get('rope_type') == 'dynamic' and rope.get('alpha'):
        dim = head_dim(config)
        if dim < 3:
            raise Unsupported(f'rope alpha in heads of {dim}')
        theta = rope['rope_theta'] * rope['alpha'] ** (dim / (dim - 2))
        rope = {'rope_type': 'default', 'rope_theta': theta}
    return decoder(config, rope_parameters=rope, qk_norm='head', qk_norm_last=True,
                   renamed=_HUNYUAN)


def _ministral3(config: 'PreTrainedConfig') -> Architecture:
    made, rope = decoder(config), config.rope_parameters or {}
    growth, length = (rope.get(name) for name in (
        'llama_4_scaling_beta', 'original_max_position_embeddings'))
    if growth and not length:
        raise Unsupported('llama_4_scaling_beta without original_max_position_embeddings')
    return replace(made, query_growth=growth, growth_length=length) if growth else made


def _cohere(config: 'PreTrainedConfig', **changes) -> Architecture:
    return decoder(config, norms=_ONE_NORM, norm='layer', norm_eps=config.layer_norm_eps,
                   parallel=True, interleaved=True, logit_scale=config.logit_scale, **changes)


def _cohere2(config: 'PreTrainedConfig') -> Architecture:
    # Layers without a window do not mark positions.
    return _cohere(config, layers=tuple(
        Layer(0 if window else None, window) for window in windows(config)))


def _nemotron(config: 'PreTrainedConfig') -> Architecture:
    if config.hidden_act != 'relu2':
        raise Unsupported(f'activation {config.hidden_act!r:.80}')
    return decoder(config, activation='relu2', norm='biased', norm_eps=config.norm_eps,
                   norm_offset=getattr(config, 'norm_offset', 1.0))


def _gpt_oss(config: 'PreTrainedConfig') -> Architecture:
    made = sparse(config, decoder(
        config, sinks=True, activation='clamped',
        clamp=(config.swiglu_alpha, config.swiglu_limit)), GPT_OSS)
    return replace(made, experts=replace(made.experts, biased=True))


FAMILIES: dict[str, Callable[['PreTrainedConfig'], Architecture]] = {
    'llama': decoder,
    'mistral': decoder,
    'ministral': decoder,
    'ministral3': _ministral3,
    'qwen2': decoder,
    'seed_oss': decoder,
    'qwen3': lambda config: decoder(config, qk_norm='head'),
    'qwen2_moe': lambda config: with_shared(
        config, sparse(config, decoder(config), EXPERTS, config.norm_topk_prob)),
    'qwen3_moe': lambda config: sparse(
        config, decoder(config, qk_norm='head'), EXPERTS, config.norm_topk_prob),
    'mixtral': lambda config: sparse(config, decoder(config), MIXTRAL),
    'olmoe': lambda config: sparse(
        config, decoder(config, qk_norm='all'), EXPERTS, config.norm_topk_prob),
    'granitemoe': lambda config: sparse(config, _granite(config), GRANITE),
    'granitemoehybrid': _granite_hybrid,
    'gpt_oss': _gpt_oss,
    'falcon_h1': lambda config: falcon_h1(config, decoder(config, layers=())),
    'nemotron_h': lambda config: nemotron_h(
        config, decoder(config, layers=nemotron_layers(config))),
    'qwen3_5_text': _qwen3_5,
    'qwen3_5_moe_text': lambda config: with_shared(
        config, sparse(config, _qwen3_5(config), EXPERTS)),
    'lfm2': _lfm2,
    'qwen2_vl_text': _qwen2_vl,
    'qwen2_5_vl_text': _qwen2_vl,
    'qwen3_vl_text': _qwen3_vl,
    'qwen3_vl_moe_text': lambda config: sparse(config, _qwen3_vl(config), EXPERTS),
    'gemma2': _gemma,
    'gemma3_text': _gemma3,
    'smollm3': _smollm3,
    'phi3': lambda config: decoder(
        config, fused={'self_attn.qkv_proj': QKV} | _FUSED_GATE_UP),
    'granite': _granite,
    'olmo2': lambda config: decoder(config, norms=_AFTER, qk_norm='all'),
    'olmo3': lambda config: decoder(
        config, norms=_AFTER, qk_norm='all', **ropes_by_kind(config)),
    'exaone4': _exaone4,
    'glm4': lambda config: decoder(
        config, norms=_GLM4, fused=_FUSED_GATE_UP, interleaved=True),
    'ernie4_5': lambda config: decoder(config, interleaved=True),
    'hunyuan_v1_dense': _hunyuan,
    'cohere': lambda config: _cohere(
        config, qk_norm='own' if getattr(config, 'use_qk_norm', False) else ''),
    'cohere2': _cohere2,
    'nemotron': _nemotron,
}
