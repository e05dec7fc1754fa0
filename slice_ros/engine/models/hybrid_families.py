# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The families with state spaces of Mamba-2: what their configs say beside those of a decoder.

Each function takes the decoder that `families` makes of a config, and returns it with what is
different.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from slice_ros.engine.models.architecture import (
    Architecture, DOWN, EMBEDDING, FINAL_NORM, GATE_UP, Layer, MAMBA, MAMBA_CONV, MAMBA_IN,
    MAMBA_JOINT, MAMBA_NORM, MAMBA_OUT, MAMBA_RATES, OUT, QKV, shared_part)
from slice_ros.engine.models.expert_families import MOE, NEMOTRON, sparse
from slice_ros.engine.models.recurrences import Mamba
from slice_ros.engine.models.rope import Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_RECURRENT, _ATTENTION = 'linear_attention', 'full_attention'
_MLPS = ('mlp', MOE)
_FEED_FORWARD = {part: part.replace('mlp.', 'feed_forward.') for part in (*GATE_UP, DOWN)}
# Nemotron-H calls whatever a layer computes its mixer.
_MIXER = {part: f'mixer.{part.rpartition(".")[2]}' for part in (
    *QKV, OUT, GATE_UP[1], DOWN, MAMBA_JOINT, MAMBA_OUT, MAMBA_NORM, MAMBA_CONV)} | {
        MAMBA: 'mixer'} | {shared_part(part): part.replace('mlp.', 'mixer.shared_experts.')
                           for part in (GATE_UP[1], DOWN)}


def granite_layers(config: 'PreTrainedConfig') -> tuple[Layer, ...]:
    """Return the layers of Granite 4. Raises ``Unsupported``."""
    kinds = _kinds(config, {_RECURRENT, _ATTENTION})
    rope = 0 if config.position_embedding_type == 'rope' else None
    return tuple(Layer(rope=rope, recurrent=kind == _RECURRENT) for kind in kinds)


def granite_hybrid(config: 'PreTrainedConfig', made: Architecture) -> Architecture:
    """Return `made`, of Granite with experts or without, with state spaces and shared MLPs."""
    wide = config.shared_intermediate_size
    # Without experts, the shared MLP is that of the layer.
    parts = [shared_part(part) if made.experts else part for part in (*GATE_UP, DOWN)]
    return replace(
        made, experts=made.experts and replace(made.experts, shared=wide), intermediate=wide,
        fused={} if _flat(config) else {'shared_mlp.input_linear': tuple(parts[:2])},
        renamed={} if _flat(config) else {parts[2]: 'shared_mlp.output_linear'},
        recurrence=Mamba(
            config.mamba_n_heads, config.mamba_d_head, config.mamba_n_groups,
            config.mamba_d_state, config.mamba_d_conv, bool(config.mamba_conv_bias),
            _steps(config.time_step_limit), norm_parts=config.mamba_n_groups,
            flat=_flat(config)))


def falcon_h1(config: 'PreTrainedConfig', made: Architecture) -> Architecture:
    """Return `made` with state spaces beside attention.

    All outputs of matrices are scaled, which here their weights are. Raises ``Unsupported``.
    """
    gates, down = _numbers(config, 'mlp_multipliers', 2)
    parts = _numbers(config, 'ssm_multipliers', 5)
    attention, queries = config.attention_out_multiplier, config.attention_in_multiplier
    keys, space = config.key_multiplier, config.ssm_in_multiplier
    outputs = {QKV[1]: keys, OUT: attention, GATE_UP[0]: gates, DOWN: down,
               MAMBA_OUT: config.ssm_out_multiplier, **dict(zip((*MAMBA_IN, MAMBA_RATES), parts))}
    inputs = dict.fromkeys(QKV, queries) | dict.fromkeys((*MAMBA_IN, MAMBA_RATES), space)
    factors = {f'{part}.bias': factor for part, factor in outputs.items()}
    for part in outputs | inputs:
        factors[f'{part}.weight'] = outputs.get(part, 1.0) * inputs.get(part, 1.0)
    return replace(
        made, norms={'attention_norm': 'input_layernorm', 'mlp_norm': 'pre_ff_layernorm'},
        renamed={} if _flat(config) else _FEED_FORWARD | {FINAL_NORM: 'model.final_layernorm'},
        embedding_scale=config.embedding_multiplier, logit_scale=config.lm_head_multiplier,
        factors=factors,
        layers=(Layer(recurrent=True, beside=True),) * config.num_hidden_layers,
        recurrence=Mamba(
            config.mamba_n_heads, config.mamba_d_head, config.mamba_n_groups,
            config.mamba_d_state, config.mamba_d_conv, bool(config.mamba_conv_bias),
            _steps(config.time_step_limit),
            norm_parts=config.mamba_n_groups if config.mamba_rms_norm else 0,
            norm_first=bool(config.mamba_norm_before_gate), flat=_flat(config)))


def nemotron_layers(config: 'PreTrainedConfig') -> tuple[Layer, ...]:
    """Return the layers of Nemotron-H, each with one part. Raises ``Unsupported``."""
    return tuple(
        Layer(rope=None, recurrent=kind == _RECURRENT, mixes=kind not in _MLPS,
              mlp=kind in _MLPS, sparse=kind == MOE)
        for kind in _kinds(config, {_RECURRENT, _ATTENTION, *_MLPS}))


def nemotron_h(config: 'PreTrainedConfig', made: Architecture) -> Architecture:
    """Return `made` with layers of one part and MLPs without gates. Raises ``Unsupported``."""
    if (config.mlp_hidden_act, config.mamba_hidden_act) != ('relu2', 'silu'):
        raise Unsupported(f'activation {config.mlp_hidden_act!r:.80} of the MLP, '
                          f'{config.mamba_hidden_act!r:.80} of the state space')
    if any(layer.sparse for layer in made.layers):
        made = _nemotron_experts(config, made)
    return replace(
        made, norm_eps=config.layer_norm_epsilon, activation='relu2',
        norms={'attention_norm': 'norm', 'mlp_norm': 'norm'},
        renamed={} if _flat(config) else _MIXER | {
            FINAL_NORM: 'model.norm_f', EMBEDDING: 'model.embeddings'},
        recurrence=Mamba(
            config.mamba_num_heads, config.mamba_head_dim, config.n_groups,
            config.ssm_state_size, config.conv_kernel, bool(config.use_conv_bias),
            (config.time_step_min, float('inf')),
            norm_parts=config.n_groups, flat=_flat(config)))


def _nemotron_experts(config: 'PreTrainedConfig', made: Architecture) -> Architecture:
    if config.n_group != 1 or config.moe_latent_size is not None:
        raise Unsupported(f'n_group {config.n_group!r:.80}, moe_latent_size '
                          f'{config.moe_latent_size!r:.80}')
    experts = sparse(config, made, NEMOTRON, config.norm_topk_prob).experts
    return replace(made, experts=replace(
        experts, shared=config.moe_shared_expert_intermediate_size, sigmoid=True,
        scale=config.routed_scaling_factor))


def _flat(config: 'PreTrainedConfig') -> bool:
    """Return whether the file is llama.cpp's, with names of its own."""
    return getattr(config, 'flat_space', False)


def _kinds(config: 'PreTrainedConfig', known: set[str]) -> list[str]:
    kinds = config.layer_types
    if not isinstance(kinds, list) or len(kinds) != config.num_hidden_layers \
            or not {*map(str, kinds)} <= known:
        raise Unsupported(f'layer_types {kinds!r:.80}')
    if _ATTENTION not in kinds:   # pages of keys and values could not be counted
        raise Unsupported('no layer with attention')
    return kinds


def _steps(limits: object) -> tuple[float, float]:
    return (0.0, float('inf')) if limits is None else tuple(map(float, limits))


def _numbers(config: 'PreTrainedConfig', name: str, count: int) -> list[float]:
    found = getattr(config, name)
    if not isinstance(found, (list, tuple)) or len(found) != count:
        raise Unsupported(f'{name} {found!r:.80}')
    return found
