# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Rotary position embeddings: their frequencies by a config, and their tables."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.models.architecture import Architecture, Rope

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

_ROPE_TYPES = ('default', 'linear', 'llama3', 'yarn', 'longrope')
AXES = 3   # numbers of a position: time, row, column


class Unsupported(Exception):
    """A model that the description cannot express; says why."""


def rope_tables(architecture: Architecture, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and sines of positions, float32 [ropes, length, rotary_dim / 2]."""
    frequencies = np.array([rope.frequencies for rope in architecture.ropes], np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies[:, None]
    scale = np.array([rope.scale for rope in architecture.ropes], np.float32)[:, None, None]
    return np.cos(angles) * scale, np.sin(angles) * scale


def query_scales(architecture: Architecture, length: int) -> np.ndarray | None:
    """Return what queries at positions are multiplied by, float32 [length]; None for nothing."""
    if not architecture.query_growth:
        return None
    times = np.arange(length, dtype=np.float32) // np.float32(architecture.growth_length)
    return np.float32(1) + np.float32(architecture.query_growth) * np.log1p(times)


def rope_of(config: 'PreTrainedConfig', parameters: object, kind: str | None = None
            ) -> tuple[Rope, int | None]:
    """Return a rope, and the context that it is made for where it changes beyond that.

    `kind` is that of the layers, where parameters differ by it.
    """
    if parameters is not None and not isinstance(parameters, dict):
        raise Unsupported(f'rope_parameters {parameters!r:.80}')
    rope = parameters or {}
    name = rope.get('rope_type', 'default')
    if name not in _ROPE_TYPES:
        raise Unsupported(f'rope type {name!r:.80}')
    dim = int(head_dim(config) * (rope.get('partial_rotary_factor') or 1.0))
    base = rope.get('rope_theta') or 10000.0
    frequencies, scale = 1.0 / (base ** (np.arange(0, dim, 2, dtype=np.float32) / dim)), 1.0
    if name == 'linear':
        frequencies /= np.float32(rope['factor'])
    elif name == 'llama3':
        frequencies = _llama3(frequencies, rope)
    elif name != 'default':
        frequencies, scale = _by_transformers(config, name, kind)
    if not 0 < 2 * len(frequencies) <= head_dim(config):
        raise Unsupported(f'a rope of {2 * len(frequencies)} numbers in heads of '
                          f'{head_dim(config)}')
    # Of `longrope`, the frequencies for texts within the original context.
    most = rope.get('original_max_position_embeddings') if name == 'longrope' else None
    return Rope(tuple(frequencies.tolist()), float(scale)), most


def with_axes(rope: Rope, sections: object, interleaved: bool) -> Rope:
    """Return a rope whose positions have three numbers, each of which turns `sections` of it.

    One after the other, or by turns, in which those of time take what the others leave.
    """
    half = len(rope.frequencies)
    if not isinstance(sections, (list, tuple)) or len(sections) != AXES or not all(
            isinstance(n, int) and 0 <= n <= half for n in sections) or sum(sections) != half:
        raise Unsupported(f'mrope_section {sections!r:.80} of {half} frequencies')
    if not interleaved:
        return replace(rope, axes=tuple(np.repeat(range(AXES), sections).tolist()))
    axes = [0] * half
    for axis in range(1, AXES):
        for at in range(axis, min(AXES * sections[axis], half), AXES):
            axes[at] = axis
    return replace(rope, axes=tuple(axes))


def _llama3(frequencies: np.ndarray, rope: dict) -> np.ndarray:
    """Divide slow frequencies by the factor; those in between partly (as Llama 3.1 does)."""
    low, high = rope['low_freq_factor'], rope['high_freq_factor']
    turns = rope['original_max_position_embeddings'] * frequencies / np.float32(2 * np.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    return ((1 - share) / rope['factor'] + share) * frequencies


def _by_transformers(config: 'PreTrainedConfig', name: str, kind: str | None
                     ) -> tuple['torch.Tensor', float]:
    """Return frequencies and scale of the rarer scaled types."""
    from transformers import PreTrainedConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    if not isinstance(config, PreTrainedConfig):
        config = PreTrainedConfig.from_dict(vars(config))
    return ROPE_INIT_FUNCTIONS[name](config, **({} if kind is None else {'layer_type': kind}))


def head_dim(config: 'PreTrainedConfig') -> int:
    """Return the size of one attention head."""
    return getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
