# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a decoder computes, layer by layer, as data: every runner works from this description.

A layer adds two parts to the residual stream h [tokens, hidden], attention and then the MLP:

    h += residual_scale * out_norm(part(norm(h)))

where each norm is an RMS norm, or none. `families` makes the description from a config,
`model_tensors` presents the tensors of a checkpoint under the names below.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

# Norms of a layer by their names here; a family without one has no tensor of that name.
NORMS = ('attention_norm', 'attention_out_norm', 'mlp_norm', 'mlp_out_norm')
QKV = ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj')  # joined in this order
QK_NORMS = ('self_attn.q_norm', 'self_attn.k_norm')
GATE_UP = ('mlp.gate_proj', 'mlp.up_proj')
OUT, DOWN = 'self_attn.o_proj', 'mlp.down_proj'
EMBEDDING, FINAL_NORM, HEAD = 'model.embed_tokens', 'model.norm', 'lm_head'


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding of the first 2 * len(frequencies) numbers of a head.

    Number i turns with number i + len(frequencies), by position * frequencies[i]; cosines and
    sines are multiplied by `scale`.
    """

    frequencies: tuple[float, ...]
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Layer:
    """What may differ from layer to layer."""

    rope: int | None = 0        # index in `Architecture.ropes`; None: positions are not marked
    window: int | None = None   # tokens that a token attends to, itself included; None: all


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder with grouped attention and a gated MLP."""

    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    layers: tuple[Layer, ...]
    ropes: tuple[Rope, ...]
    norms: Mapping[str, str]          # those of NORMS that layers have, and their names in files
    attention_scale: float
    tied: bool                        # the head is the embedding
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # in files: parts in order
    qk_norm: str = ''                 # '' | 'head': of each head | 'all': of all heads together
    activation: str = 'silu'          # of the gate: 'silu' | 'gelu' (its tanh approximation)
    interleaved: bool = False         # files pair numbers 2i and 2i + 1 of a head for the rope
    norm_offset: float = 0.0          # added to the weights of norms
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    attention_softcap: float = 0.0    # x becomes cap * tanh(x / cap); 0: none
    logit_softcap: float = 0.0
    max_context: int | None = None    # tokens beyond which this description is not the model's


def within(architecture: Architecture, context: int) -> Architecture:
    """Return the same for texts of at most `context` tokens: wider windows are none."""
    return replace(architecture, layers=tuple(
        replace(layer, window=None) if layer.window and layer.window >= context else layer
        for layer in architecture.layers))


def layer_name(layer: int, part: str) -> str:
    """Return the full name of a part of a layer."""
    return f'model.layers.{layer}.{part}'
