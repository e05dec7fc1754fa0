# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A decoder of Llama's kind by its config, from which each family differs in something."""

from typing import TYPE_CHECKING

from slice_ros.engine.models.architecture import Architecture, Layer
from slice_ros.engine.models.rope import head_dim, rope_of, Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_ACTIVATIONS = {'silu': 'silu', 'gelu_pytorch_tanh': 'gelu', 'gelu_tanh': 'gelu'}
_SLIDING = 'sliding_attention'
BEFORE = {'attention_norm': 'input_layernorm', 'mlp_norm': 'post_attention_layernorm'}


def decoder(config: 'PreTrainedConfig', **changes) -> Architecture:
    """Return a decoder of Llama's kind with `changes`; `layers` may differ in window and rope."""
    dim = head_dim(config)
    rope, most = rope_of(config, changes.pop(
        'rope_parameters', getattr(config, 'rope_parameters', None)))
    if 'activation' not in changes:
        changes['activation'] = _activation(config)
    described = {
        'hidden': config.hidden_size,
        # A family whose layers all have experts may not speak of other MLPs.
        'intermediate': getattr(config, 'intermediate_size', None) or config.moe_intermediate_size,
        'vocabulary': config.vocab_size, 'heads': config.num_attention_heads,
        'kv_heads': config.num_key_value_heads or config.num_attention_heads, 'head_dim': dim,
        'norm_eps': getattr(config, 'rms_norm_eps', None), 'norms': BEFORE,
        'attention_scale': dim ** -0.5, 'ropes': (rope,),
        'tied': config.tie_word_embeddings, 'max_context': most}
    if 'layers' not in changes:
        changes['layers'] = tuple(map(Layer, [0] * config.num_hidden_layers, windows(config)))
    return Architecture(**described | changes)


def _activation(config: 'PreTrainedConfig') -> str:
    activation = getattr(config, 'hidden_act', None) or getattr(
        config, 'hidden_activation', 'silu')
    if activation not in _ACTIVATIONS:
        raise Unsupported(f'activation {activation!r:.80}')
    return _ACTIVATIONS[activation]


def windows(config: 'PreTrainedConfig') -> list[int | None]:
    """Return the sliding window of each layer."""
    window, kinds = getattr(config, 'sliding_window', None), getattr(config, 'layer_types', None)
    if kinds is None:
        return [window or None] * config.num_hidden_layers
    if not set(kinds) <= {_SLIDING, 'full_attention'} or len(kinds) != config.num_hidden_layers:
        raise Unsupported(f'layers of the kinds {", ".join(sorted(set(kinds)))!r:.80}')
    return [window or None if kind == _SLIDING else None for kind in kinds]


def ropes_by_kind(config: 'PreTrainedConfig') -> dict:
    """Return ropes and layers where sliding layers have a rope of their own."""
    kinds = ('full_attention', _SLIDING)
    by_kind = config.rope_parameters or {}
    ropes = tuple(rope_of(config, by_kind.get(kind), kind)[0] for kind in kinds)
    return {'ropes': ropes, 'max_context': None, 'layers': tuple(
        Layer(kinds.index(kind), window)
        for kind, window in zip(config.layer_types, windows(config)))}
