# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a config of the Llama family and of its tensors' shapes, before memory is taken."""

import math

from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.models.llama import head_dim
from slice_ros.errors import ModelError
from transformers import PreTrainedConfig

_COUNTS = ('hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads',
           'num_key_value_heads', 'vocab_size')
_OPTIONAL_COUNTS = ('head_dim', 'sliding_window', 'max_position_embeddings')
_ROPE = ('rope_theta', 'factor', 'low_freq_factor', 'high_freq_factor',
         'original_max_position_embeddings')
_MOST = 1 << 31  # the kernels count in int32


def check_numbers(path: object, config: PreTrainedConfig) -> None:
    """Raise ``ModelError`` when a number of the config is outside the range of any model."""
    for name in (*_COUNTS, *_OPTIONAL_COUNTS):
        value = getattr(config, name, None)
        if value is None and name in _OPTIONAL_COUNTS:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < _MOST:
            raise _useless(path, name, value, 'a whole number of at least 1')
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        raise _useless(path, 'num_key_value_heads', kv_heads,
                       f'a divisor of num_attention_heads, {heads}')
    if not _number(config.rms_norm_eps) or not 0 <= config.rms_norm_eps < 1:
        raise _useless(path, 'rms_norm_eps', config.rms_norm_eps, 'a number from 0 to 1')
    rope = config.rope_parameters or {}
    for name in _ROPE:
        value = rope.get(name)
        if value is not None and not (_number(value) and 0 < value < 1e12):
            raise _useless(path, f'rope_parameters.{name}', value, 'a number above 0')


def check_shapes(path: object, config: PreTrainedConfig, tensors: Tensors) -> None:
    """Raise ``ModelError`` when the tensors do not have the shapes that the config defines.

    Tensors are no larger than their files. So a config that passes asks for no more memory than
    its files have.
    """
    hidden, dim = config.hidden_size, head_dim(config)
    queries, keys = config.num_attention_heads * dim, config.num_key_value_heads * dim
    wanted = {'model.embed_tokens.weight': (config.vocab_size, hidden),
              'model.norm.weight': (hidden,)}
    if 'lm_head.weight' in tensors and not config.tie_word_embeddings:
        wanted['lm_head.weight'] = (config.vocab_size, hidden)
    for name, shape in wanted.items():
        _check_shape(path, name, shape, tensors)
    # From the last layer: a false number of layers fails at once.
    for layer in range(config.num_hidden_layers - 1, -1, -1):
        at = f'model.layers.{layer}.'
        for name, shape in {
                'input_layernorm': (hidden,), 'self_attn.q_proj': (queries, hidden),
                'self_attn.k_proj': (keys, hidden), 'self_attn.v_proj': (keys, hidden),
                'self_attn.o_proj': (hidden, queries), 'post_attention_layernorm': (hidden,),
                'mlp.gate_proj': (config.intermediate_size, hidden),
                'mlp.up_proj': (config.intermediate_size, hidden),
                'mlp.down_proj': (hidden, config.intermediate_size)}.items():
            _check_shape(path, f'{at}{name}.weight', shape, tensors)


def _check_shape(path: object, name: str, wanted: tuple[int, ...], tensors: Tensors) -> None:
    shape = tensors.shape(name)
    if shape != wanted:
        raise ModelError(f'{path}: tensor {name} has the shape {list(shape)}, and the config '
                         f'speaks of {list(wanted)}: they are of different models, or damaged')


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (
        not isinstance(value, float) or math.isfinite(value))


def _useless(path: object, name: str, value: object, wanted: str) -> ModelError:
    return ModelError(f'{path}: {name} of the config is {value!r:.80}, which must be {wanted}: '
                      'take the config that belongs to the weights')
