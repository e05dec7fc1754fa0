# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a config of a known family and of its tensors' shapes, before memory is taken."""

import math
from typing import TYPE_CHECKING

from slice_ros.engine.checkpoints.hf_directory import MOST_LAYERS
from slice_ros.engine.models.expert_families import expert_count
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.models.rope import head_dim
from slice_ros.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_COUNTS = ('hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads',
           'num_key_value_heads', 'vocab_size')
_OPTIONAL_COUNTS = ('head_dim', 'sliding_window', 'max_position_embeddings',
                    'shared_intermediate_size')
_ROPE = ('rope_theta', 'factor', 'low_freq_factor', 'high_freq_factor',
         'original_max_position_embeddings', 'alpha', 'llama_4_scaling_beta')
_OF_EXPERTS = ('num_experts_per_tok', 'moe_intermediate_size', 'decoder_sparse_step',
               'shared_expert_intermediate_size', 'moe_shared_expert_intermediate_size')
_OF_RECURRENCE = (
    'linear_num_key_heads', 'linear_num_value_heads', 'linear_key_head_dim',
    'linear_value_head_dim', 'linear_conv_kernel_dim', 'conv_L_cache', 'block_multiple_of',
    'mamba_n_heads', 'mamba_num_heads', 'mamba_d_head', 'mamba_head_dim', 'mamba_n_groups',
    'n_groups', 'mamba_d_state', 'ssm_state_size', 'mamba_d_conv', 'conv_kernel')
_GROUPED = (('mamba_n_heads', 'mamba_n_groups'), ('mamba_num_heads', 'n_groups'),
            ('linear_num_value_heads', 'linear_num_key_heads'))
_MOST_EXPERTS = 1024    # kMaxExperts of native/src/runner.hpp
_MOST_HEAD = 1 << 16    # the frequencies of its rope are computed before the tensors
_SCALES = ('query_pre_attn_scalar', 'embedding_multiplier', 'residual_multiplier',
           'block_ffn_dim_multiplier', 'attention_multiplier', 'logits_scaling',
           'attn_logit_softcapping', 'final_logit_softcapping', 'logit_scale', 'swiglu_alpha',
           'swiglu_limit', 'lm_head_multiplier', 'key_multiplier', 'attention_in_multiplier',
           'attention_out_multiplier', 'ssm_in_multiplier', 'ssm_out_multiplier',
           'routed_scaling_factor')
_LISTS = ('mlp_multipliers', 'ssm_multipliers')   # of scales
_EPS = ('rms_norm_eps', 'layer_norm_eps', 'layer_norm_epsilon', 'norm_eps')
_MOST = 1 << 31  # the kernels count in int32


def check_numbers(path: object, config: 'PreTrainedConfig') -> None:
    """Raise ``ModelError`` when a number of the config is outside the range of any model."""
    for name in (*_COUNTS, *_OPTIONAL_COUNTS):
        if name == 'intermediate_size' and not hasattr(config, name):
            name = 'moe_intermediate_size'   # where all layers have experts
        value = getattr(config, name, None)
        absent = value is None or name == 'sliding_window' and value == 0
        if not (absent and name in _OPTIONAL_COUNTS):
            _check_count(path, name, value)
    if config.num_hidden_layers > MOST_LAYERS:
        raise _useless(path, 'num_hidden_layers', config.num_hidden_layers,
                       f'at most {MOST_LAYERS}')
    if head_dim(config) > _MOST_HEAD:
        raise _useless(path, 'head_dim', head_dim(config), f'at most {_MOST_HEAD}')
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        raise _useless(path, 'num_key_value_heads', kv_heads,
                       f'a divisor of num_attention_heads, {heads}')
    eps = next((name for name in _EPS if hasattr(config, name)), _EPS[0])
    if not _number(value := getattr(config, eps, None)) or not 0 <= value < 1:
        raise _useless(path, eps, value, 'a number from 0 to 1')
    rope = getattr(config, 'rope_parameters', None) or {}
    if isinstance(rope, dict):
        # One for all layers, or one for each kind of layers.
        by_kind = {kind: part for kind, part in rope.items() if isinstance(part, dict)}
        for kind, part in (by_kind or {'': rope}).items():
            for name in _ROPE:
                _check_positive(path, part.get(name), _at(kind, name))
            share = part.get('partial_rotary_factor')
            if share is not None and not (_number(share) and 0 < share <= 1):
                raise _useless(path, _at(kind, 'partial_rotary_factor'), share,
                               'a number above 0, at most 1')
    for name in _SCALES:
        _check_positive(path, getattr(config, name, None), name)
    _check_experts(path, config)
    _check_recurrence(path, config)


def _check_recurrence(path: object, config: 'PreTrainedConfig') -> None:
    for name in _OF_RECURRENCE:
        if hasattr(config, name):
            _check_count(path, name, getattr(config, name), _MOST_HEAD)
    for heads, groups in _GROUPED:
        count = getattr(config, heads, None)
        if count is not None and count % (getattr(config, groups, None) or 1):
            raise _useless(path, groups, getattr(config, groups), f'a divisor of {heads}, {count}')
    for name in _LISTS:
        for value in getattr(config, name, None) or ():
            _check_positive(path, value, name)
    for name in ('time_step_limit', 'time_step_min'):
        limits = getattr(config, name, None)
        for value in () if limits is None else limits if isinstance(limits, (list, tuple)) else (
                limits,):
            if not (_number(value) or value == math.inf) or value < 0:
                raise _useless(path, name, limits, 'numbers of at least 0')


def _check_experts(path: object, config: 'PreTrainedConfig') -> None:
    if (count := expert_count(config)) is None:
        return
    _check_count(path, 'the number of experts', count, _MOST_EXPERTS)
    for name in _OF_EXPERTS:
        value = getattr(config, name, None)
        if value is not None or name == 'num_experts_per_tok':
            _check_count(path, name, value, count if name == 'num_experts_per_tok' else _MOST - 1)


def _check_count(path: object, name: str, value: object, most: int = _MOST - 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise _useless(path, name, value, 'a whole number of at least 1' + (
            f', at most {most}' if most < _MOST - 1 else ''))


def _at(kind: str, name: str) -> str:
    return '.'.join(filter(None, ('rope_parameters', kind, name)))


def _check_positive(path: object, value: object, name: str) -> None:
    if value is not None and not (_number(value) and 0 < value < 1e12):
        raise _useless(path, name, value, 'a number above 0')


def check_tensors(path: object, tensors: ModelTensors) -> None:
    """Raise ``ModelError`` when tensors do not have the shapes that the config defines.

    Tensors are no larger than their files. So a config that passes asks for no more memory than
    its files have. A tensor that the family does not speak of is refused: without it the answers
    would be wrong.
    """
    for name, wanted in tensors.needed():
        shape = tensors.stored.shape(name)
        if _without_ones(shape) != _without_ones(wanted):
            raise ModelError(f'{path}: tensor {name} has the shape {list(shape)}, and the config '
                             f'speaks of {list(wanted)}: they are of different models, or damaged')
    unused = tensors.unused()
    if unused is not None:
        raise ModelError(f'{path}: tensor {unused} is in no model of this type that is known: '
                         'take the config that belongs to the weights')


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without ones in front: a matrix of one row may be stored as a vector."""
    return _without_ones(shape[1:]) if len(shape) > 1 and shape[0] == 1 else shape


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (
        not isinstance(value, float) or math.isfinite(value))


def _useless(path: object, name: str, value: object, wanted: str) -> ModelError:
    return ModelError(f'{path}: {name} of the config is {value!r:.80}, which must be {wanted}: '
                      'take the config that belongs to the weights')
