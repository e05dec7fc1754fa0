# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The Llama family: its members, and what their configs define of heads and rotations."""

import torch
from transformers import PreTrainedConfig

FAMILY = ('llama', 'qwen2', 'mistral')
_ROPE_TYPES = ('default', 'linear', 'llama3', 'yarn')


def unsupported(config: PreTrainedConfig) -> str | None:
    """Return why the flat batch cannot run this model, None if it can."""
    if config.model_type not in FAMILY:
        return f'model type {config.model_type}'
    if getattr(config, 'hidden_act', 'silu') != 'silu':
        return f'activation {config.hidden_act}'
    rope = config.rope_parameters
    if rope is not None and not isinstance(rope, dict):
        return f'rope_parameters {rope!r:.80}'
    rope_type = (rope or {}).get('rope_type', 'default')
    if rope_type in ('dynamic', 'longrope'):
        return f'rope type {rope_type}, whose frequencies change with the length'
    return None if rope_type in _ROPE_TYPES else f'rope type {rope_type!r:.80}'


def head_dim(config: PreTrainedConfig) -> int:
    """Return the size of one attention head."""
    return getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads


def sliding_window(config: PreTrainedConfig) -> int | None:
    """Return how many tokens attention sees, None if all."""
    window = getattr(config, 'sliding_window', None)
    layers = getattr(config, 'layer_types', None)
    return window if window and (not layers or 'sliding_attention' in layers) else None


def rope_tables(config: PreTrainedConfig, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines [length, 1, head_dim], the first half of the sines negated.

    float32. Frequencies of scaled rope types are computed by transformers, for every type that
    does not depend on the length of the text.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    rope = config.rope_parameters or {}
    rope_type = rope.get('rope_type', 'default')
    if rope_type == 'default':
        dim = head_dim(config)
        base = rope.get('rope_theta', 10000.0)
        frequencies = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float) / dim))
        scale = 1.0
    else:
        frequencies, scale = ROPE_INIT_FUNCTIONS[rope_type](config)
    angles = torch.arange(length).float()[:, None, None] * frequencies
    cos, sin = angles.cos() * scale, angles.sin() * scale
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
