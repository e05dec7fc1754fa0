# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The families that the flat batch runs: from a config to an `Architecture`.

A new family is an entry in `FAMILIES`, and a line in the tests.
"""

from collections.abc import Callable

from slice_ros.engine.models.architecture import Architecture, GATE_UP, Layer, QKV, Rope
import torch
from transformers import PreTrainedConfig

_ROPE_TYPES = ('default', 'linear', 'llama3', 'yarn', 'longrope')
_ACTIVATIONS = {'silu': 'silu', 'gelu_pytorch_tanh': 'gelu', 'gelu_tanh': 'gelu'}
_SLIDING = 'sliding_attention'

_BEFORE = {'attention_norm': 'input_layernorm', 'mlp_norm': 'post_attention_layernorm'}
_AFTER = {'attention_out_norm': 'post_attention_layernorm',
          'mlp_out_norm': 'post_feedforward_layernorm'}
_GEMMA = _AFTER | {'attention_norm': 'input_layernorm', 'mlp_norm': 'pre_feedforward_layernorm'}
_GLM4 = _BEFORE | {'attention_out_norm': 'post_self_attn_layernorm',
                   'mlp_out_norm': 'post_mlp_layernorm'}
_FUSED_GATE_UP = {'mlp.gate_up_proj': GATE_UP}


class _Unsupported(Exception):
    """A model that the description cannot express; says why."""


def describe(config: PreTrainedConfig) -> Architecture | str:
    """Return the architecture of a model, or why there is no description of it."""
    make = FAMILIES.get(config.model_type)
    if make is None:
        return f'model type {config.model_type}'
    try:
        return make(config)
    except _Unsupported as reason:
        return str(reason)


def head_dim(config: PreTrainedConfig) -> int:
    """Return the size of one attention head."""
    return getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads


def _decoder(config: PreTrainedConfig, **changes) -> Architecture:
    """Return a decoder of Llama's kind with `changes`; `layers` may differ in window and rope."""
    activation = getattr(config, 'hidden_act', None) or getattr(
        config, 'hidden_activation', 'silu')
    if activation not in _ACTIVATIONS:
        raise _Unsupported(f'activation {activation!r:.80}')
    dim = head_dim(config)
    rope, most = _rope(config, config.rope_parameters)
    described = {
        'hidden': config.hidden_size, 'intermediate': config.intermediate_size,
        'vocabulary': config.vocab_size, 'heads': config.num_attention_heads,
        'kv_heads': config.num_key_value_heads or config.num_attention_heads, 'head_dim': dim,
        'norm_eps': config.rms_norm_eps, 'norms': _BEFORE, 'attention_scale': dim ** -0.5,
        'layers': tuple(map(Layer, [0] * config.num_hidden_layers, _windows(config))),
        'ropes': (rope,), 'tied': config.tie_word_embeddings, 'max_context': most,
        'activation': _ACTIVATIONS[activation]}
    return Architecture(**described | changes)


def _windows(config: PreTrainedConfig) -> list[int | None]:
    """Return the sliding window of each layer."""
    window, kinds = getattr(config, 'sliding_window', None), getattr(config, 'layer_types', None)
    if kinds is None:
        return [window or None] * config.num_hidden_layers
    if not set(kinds) <= {_SLIDING, 'full_attention'} or len(kinds) != config.num_hidden_layers:
        raise _Unsupported(f'layers of the kinds {", ".join(sorted(set(kinds)))!r:.80}')
    return [window or None if kind == _SLIDING else None for kind in kinds]


def _rope(config: PreTrainedConfig, parameters: object, kind: str | None = None
          ) -> tuple[Rope, int | None]:
    """Return a rope, and the context that it is made for where it changes beyond that.

    Frequencies of scaled types are computed by transformers; `kind` is that of the layers, where
    parameters differ by it.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    if parameters is not None and not isinstance(parameters, dict):
        raise _Unsupported(f'rope_parameters {parameters!r:.80}')
    rope = parameters or {}
    name = rope.get('rope_type', 'default')
    if name not in _ROPE_TYPES:
        raise _Unsupported(f'rope type {name!r:.80}')
    if name == 'default':
        dim = int(head_dim(config) * rope.get('partial_rotary_factor', 1.0))
        base = rope.get('rope_theta', 10000.0)
        frequencies, scale = 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim)), 1.0
    else:
        frequencies, scale = ROPE_INIT_FUNCTIONS[name](
            config, **({} if kind is None else {'layer_type': kind}))
    if not 0 < 2 * len(frequencies) <= head_dim(config):
        raise _Unsupported(f'a rope of {2 * len(frequencies)} numbers in heads of '
                           f'{head_dim(config)}')
    # Of `longrope`, the frequencies for texts within the original context.
    most = rope.get('original_max_position_embeddings') if name == 'longrope' else None
    return Rope(tuple(frequencies.tolist()), float(scale)), most


def _ropes_by_kind(config: PreTrainedConfig) -> dict:
    """Return ropes and layers where sliding layers have a rope of their own."""
    kinds = ('full_attention', _SLIDING)
    by_kind = config.rope_parameters or {}
    ropes = tuple(_rope(config, by_kind.get(kind), kind)[0] for kind in kinds)
    return {'ropes': ropes, 'max_context': None, 'layers': tuple(
        Layer(kinds.index(kind), window)
        for kind, window in zip(config.layer_types, _windows(config)))}


def _gemma(config: PreTrainedConfig, **changes) -> Architecture:
    # transformers rounds the scale of embeddings to the type of the weights.
    return _decoder(
        config, norms=_GEMMA, norm_offset=getattr(config, 'norm_offset', 1.0),
        embedding_scale=config.hidden_size ** 0.5,
        attention_scale=config.query_pre_attn_scalar ** -0.5,
        attention_softcap=getattr(config, 'attn_logit_softcapping', None) or 0.0,
        logit_softcap=getattr(config, 'final_logit_softcapping', None) or 0.0, **changes)


def _gemma3(config: PreTrainedConfig) -> Architecture:
    if getattr(config, 'use_bidirectional_attention', None):
        raise _Unsupported('attention to later tokens')
    return _gemma(config, qk_norm='head', **_ropes_by_kind(config))


def _granite(config: PreTrainedConfig) -> Architecture:
    return _decoder(config, embedding_scale=config.embedding_multiplier,
                    residual_scale=config.residual_multiplier,
                    attention_scale=config.attention_multiplier,
                    logit_scale=1.0 / config.logits_scaling)


def _smollm3(config: PreTrainedConfig) -> Architecture:
    windows = _windows(config) if config.use_sliding_window else [None] * config.num_hidden_layers
    return _decoder(config, layers=tuple(
        Layer(0 if has_rope else None, window)
        for has_rope, window in zip(config.no_rope_layers, windows)))


def _exaone4(config: PreTrainedConfig) -> Architecture:
    # Where some layers slide, the others do not mark positions.
    windows = _windows(config)
    return _decoder(config, norms=_AFTER, qk_norm='head', layers=tuple(
        Layer(0 if window or not config.sliding_window else None, window) for window in windows))


FAMILIES: dict[str, Callable[[PreTrainedConfig], Architecture]] = {
    'llama': _decoder,
    'mistral': _decoder,
    'ministral': _decoder,
    'qwen2': _decoder,
    'seed_oss': _decoder,
    'qwen3': lambda config: _decoder(config, qk_norm='head'),
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
