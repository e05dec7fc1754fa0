# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The families that the flat batch runs: from a config to an `Architecture`.

A new family is an entry in `FAMILIES`, and a line in the tests.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from slice_ros.engine.models.architecture import (
    Architecture, Delta, DOWN, Experts, FINAL_NORM, GATE_UP, Layer, OUT, QK_NORMS, QKV,
    ROUTER, ShortConv)
from slice_ros.engine.models.rope import head_dim, rope_of, Unsupported, with_axes

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_ACTIVATIONS = {'silu': 'silu', 'gelu_pytorch_tanh': 'gelu', 'gelu_tanh': 'gelu'}
_SLIDING = 'sliding_attention'

_BEFORE = {'attention_norm': 'input_layernorm', 'mlp_norm': 'post_attention_layernorm'}
_AFTER = {'attention_out_norm': 'post_attention_layernorm',
          'mlp_out_norm': 'post_feedforward_layernorm'}
_GEMMA = _AFTER | {'attention_norm': 'input_layernorm', 'mlp_norm': 'pre_feedforward_layernorm'}
_GLM4 = _BEFORE | {'attention_out_norm': 'post_self_attn_layernorm',
                   'mlp_out_norm': 'post_mlp_layernorm'}
# What files call the router and the parts of experts; see `Experts.files`.
_EXPERTS = {ROUTER: ROUTER} | {
    part: part.replace('mlp.', 'mlp.experts.{}.') for part in (*GATE_UP, DOWN)}
_STACKED = {ROUTER: ROUTER} | {
    part: part.replace('mlp.', 'mlp.experts.') for part in (*GATE_UP, DOWN)}   # of GGUF
_MIXTRAL = {ROUTER: 'block_sparse_moe.gate'} | {
    part: f'block_sparse_moe.experts.{{}}.{name}'
    for part, name in zip((*GATE_UP, DOWN), ('w1', 'w3', 'w2'))}
_GRANITE_EXPERTS = {ROUTER: 'block_sparse_moe.router.layer',
                    DOWN: 'block_sparse_moe.output_linear'} | dict.fromkeys(
                        GATE_UP, 'block_sparse_moe.input_linear')
_LFM2 = {OUT: 'self_attn.out_proj', FINAL_NORM: 'model.embedding_norm',
         **dict(zip(QK_NORMS, ('self_attn.q_layernorm', 'self_attn.k_layernorm'))),
         **dict(zip((*GATE_UP, DOWN), (f'feed_forward.{name}' for name in ('w1', 'w3', 'w2'))))}
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


def expert_count(config: 'PreTrainedConfig') -> int | None:
    """Return the number of experts of a layer; None for a family without."""
    if config.model_type not in SPARSE:
        return None
    return getattr(config, 'num_experts', None) or config.num_local_experts


def _decoder(config: 'PreTrainedConfig', **changes) -> Architecture:
    """Return a decoder of Llama's kind with `changes`; `layers` may differ in window and rope."""
    activation = getattr(config, 'hidden_act', None) or getattr(
        config, 'hidden_activation', 'silu')
    if activation not in _ACTIVATIONS:
        raise Unsupported(f'activation {activation!r:.80}')
    dim = head_dim(config)
    rope, most = rope_of(config, config.rope_parameters)
    described = {
        'hidden': config.hidden_size, 'intermediate': config.intermediate_size,
        'vocabulary': config.vocab_size, 'heads': config.num_attention_heads,
        'kv_heads': config.num_key_value_heads or config.num_attention_heads, 'head_dim': dim,
        'norm_eps': getattr(config, 'rms_norm_eps', None), 'norms': _BEFORE,
        'attention_scale': dim ** -0.5, 'ropes': (rope,),
        'tied': config.tie_word_embeddings, 'max_context': most,
        'activation': _ACTIVATIONS[activation]}
    if 'layers' not in changes:
        changes['layers'] = tuple(map(Layer, [0] * config.num_hidden_layers, _windows(config)))
    return Architecture(**described | changes)


def _windows(config: 'PreTrainedConfig') -> list[int | None]:
    """Return the sliding window of each layer."""
    window, kinds = getattr(config, 'sliding_window', None), getattr(config, 'layer_types', None)
    if kinds is None:
        return [window or None] * config.num_hidden_layers
    if not set(kinds) <= {_SLIDING, 'full_attention'} or len(kinds) != config.num_hidden_layers:
        raise Unsupported(f'layers of the kinds {", ".join(sorted(set(kinds)))!r:.80}')
    return [window or None if kind == _SLIDING else None for kind in kinds]


def _ropes_by_kind(config: 'PreTrainedConfig') -> dict:
    """Return ropes and layers where sliding layers have a rope of their own."""
    kinds = ('full_attention', _SLIDING)
    by_kind = config.rope_parameters or {}
    ropes = tuple(rope_of(config, by_kind.get(kind), kind)[0] for kind in kinds)
    return {'ropes': ropes, 'max_context': None, 'layers': tuple(
        Layer(kinds.index(kind), window)
        for kind, window in zip(config.layer_types, _windows(config)))}


def _gemma(config: 'PreTrainedConfig', **changes) -> Architecture:
    # transformers rounds the scale of embeddings to the type of the weights.
    return _decoder(
        config, norms=_GEMMA, norm_offset=getattr(config, 'norm_offset', 1.0),
        embedding_scale=config.hidden_size ** 0.5,
        attention_scale=config.query_pre_attn_scalar ** -0.5,
        attention_softcap=getattr(config, 'attn_logit_softcapping', None) or 0.0,
        logit_softcap=getattr(config, 'final_logit_softcapping', None) or 0.0, **changes)


def _gemma3(config: 'PreTrainedConfig') -> Architecture:
    if getattr(config, 'use_bidirectional_attention', None):
        raise Unsupported('attention to later tokens')
    return _gemma(config, qk_norm='head', **_ropes_by_kind(config))


def _granite(config: 'PreTrainedConfig') -> Architecture:
    return _decoder(config, embedding_scale=config.embedding_multiplier,
                    residual_scale=config.residual_multiplier,
                    attention_scale=config.attention_multiplier,
                    logit_scale=1.0 / config.logits_scaling)


def _smollm3(config: 'PreTrainedConfig') -> Architecture:
    windows = _windows(config) if config.use_sliding_window else [None] * config.num_hidden_layers
    return _decoder(config, layers=tuple(
        Layer(0 if has_rope else None, window)
        for has_rope, window in zip(config.no_rope_layers, windows)))


def _exaone4(config: 'PreTrainedConfig') -> Architecture:
    # Where some layers slide, the others do not mark positions.
    windows = _windows(config)
    return _decoder(config, norms=_AFTER, qk_norm='head', layers=tuple(
        Layer(0 if window or not config.sliding_window else None, window) for window in windows))


def _sparse(config: 'PreTrainedConfig', made: Architecture, files: Mapping[str, str],
            normalized: bool = True) -> Architecture:
    """Return a decoder with experts in place of its MLPs, but for those that the config names."""
    if getattr(config, 'clip_qkv', None) is not None:
        raise Unsupported('clip_qkv')
    experts = Experts(
        expert_count(config), config.num_experts_per_tok,
        getattr(config, 'moe_intermediate_size', None) or config.intermediate_size, normalized,
        _STACKED if getattr(config, 'stacked_experts', False) else files)
    dense, period = getattr(config, 'mlp_only_layers', ()) or (), getattr(
        config, 'decoder_sparse_step', 1)
    if not isinstance(dense, (list, tuple)):
        raise Unsupported(f'mlp_only_layers {dense!r:.80}')
    return replace(made, experts=experts, layers=tuple(
        replace(layer, sparse=number not in dense and (number + 1) % period == 0)
        for number, layer in enumerate(made.layers)))


def _qwen3_5(config: 'PreTrainedConfig') -> Architecture:
    kinds = config.layer_types
    if not isinstance(kinds, list) or len(kinds) != config.num_hidden_layers \
            or not {*map(str, kinds)} <= {'linear_attention', 'full_attention'}:
        raise Unsupported(f'layer_types {kinds!r:.80}')
    made = _decoder(
        config, qk_norm='head', norm_offset=1.0, gated=True,
        layers=tuple(Layer(recurrent=kind == 'linear_attention') for kind in kinds),
        recurrence=Delta(
            config.linear_num_key_heads, config.linear_num_value_heads,
            config.linear_key_head_dim, config.linear_value_head_dim,
            config.linear_conv_kernel_dim))
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
    return _with_axes(config, _decoder(config), (16, 24, 24), False)


def _qwen3_vl(config: 'PreTrainedConfig') -> Architecture:
    levels = getattr(config, 'input_levels', 0)
    if levels >= config.num_hidden_layers:
        raise Unsupported(f'deepstack_visual_indexes for {levels} layers')
    made = _decoder(config, qk_norm='head', input_levels=levels)
    return _with_axes(config, made, (24, 20, 20), True)


def _lfm2(config: 'PreTrainedConfig') -> Architecture:
    kinds, wide = config.layer_types, config.intermediate_size
    if not isinstance(kinds, list) or len(kinds) != config.num_hidden_layers \
            or not {*map(str, kinds)} <= {'conv', 'full_attention'} or config.conv_bias:
        raise Unsupported(f'layer_types {kinds!r:.80}, conv_bias {config.conv_bias!r:.20}')
    if config.block_auto_adjust_ff_dim:
        wide = int(config.block_ffn_dim_multiplier * (2 * wide // 3))
        wide = -(-wide // config.block_multiple_of) * config.block_multiple_of
    return _decoder(
        config, norm_eps=config.norm_eps, intermediate=wide, qk_norm='head',
        norms={'attention_norm': 'operator_norm', 'mlp_norm': 'ffn_norm'}, renamed=_LFM2,
        layers=tuple(Layer(recurrent=kind == 'conv') for kind in kinds),
        recurrence=ShortConv(config.hidden_size, config.conv_L_cache,
                             getattr(config, 'flat_convolution', False)))


FAMILIES: dict[str, Callable[['PreTrainedConfig'], Architecture]] = {
    'llama': _decoder,
    'mistral': _decoder,
    'ministral': _decoder,
    'qwen2': _decoder,
    'seed_oss': _decoder,
    'qwen3': lambda config: _decoder(config, qk_norm='head'),
    'qwen3_moe': lambda config: _sparse(
        config, _decoder(config, qk_norm='head'), _EXPERTS, config.norm_topk_prob),
    'mixtral': lambda config: _sparse(config, _decoder(config), _MIXTRAL),
    'olmoe': lambda config: _sparse(
        config, _decoder(config, qk_norm='all'), _EXPERTS, config.norm_topk_prob),
    'granitemoe': lambda config: _sparse(config, _granite(config), _GRANITE_EXPERTS),
    'qwen3_5_text': _qwen3_5,
    'lfm2': _lfm2,
    'qwen2_vl_text': _qwen2_vl,
    'qwen2_5_vl_text': _qwen2_vl,
    'qwen3_vl_text': _qwen3_vl,
    'gemma2': _gemma,
    'gemma3_text': _gemma3,
    'smollm3': _smollm3,
    'phi3': lambda config: _decoder(
        config, fused={'self_attn.qkv_proj': QKV} | _FUSED_GATE_UP),
    'granite': _granite,
    'olmo2': lambda config: _decoder(config, norms=_AFTER, qk_norm='all'),
    'olmo3': lambda config: _decoder(
        config, norms=_AFTER, qk_norm='all', **_ropes_by_kind(config)),
    'exaone4': _exaone4,
    'glm4': lambda config: _decoder(
        config, norms=_GLM4, fused=_FUSED_GATE_UP, interleaved=True),
    'ernie4_5': lambda config: _decoder(config, interleaved=True),
}

SPARSE = ('qwen3_moe', 'mixtral', 'olmoe', 'granitemoe')   # those with experts
