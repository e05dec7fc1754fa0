# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a decoder computes, layer by layer, as data: every runner works from this description.

A layer adds two parts to the residual stream h [tokens, hidden], attention and then the MLP, or
the sum of some experts, which are such MLPs:

    h += residual_scale * out_norm(part(norm(h)))

where each norm is one of the kind `norm`, or none; or both to the same h. `families` makes the
description from a config, `model_tensors` presents the tensors of a checkpoint under the names
below.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from slice_ros.engine.models.recurrences import Delta, Mamba, ShortConv

# Norms of a layer by their names here; a family without one has no tensor of that name.
NORMS = ('attention_norm', 'attention_out_norm', 'mlp_norm', 'mlp_out_norm')
QKV = ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj')  # joined in this order
QK_NORMS = ('self_attn.q_norm', 'self_attn.k_norm')
GATE_UP = ('mlp.gate_proj', 'mlp.up_proj')
SHARED, SHARED_GATE = 'mlp.shared_expert.', 'mlp.shared_expert_gate'
SINKS = 'self_attn.sinks'
OUT, DOWN = 'self_attn.o_proj', 'mlp.down_proj'
GATES = 'self_attn.gate'   # of the output of attention: in files, rows of `QKV[0]`
DELTA_IN = ('linear_attn.in_proj_qkv', 'linear_attn.in_proj_z')   # joined, as are
DELTA_RATES = ('linear_attn.in_proj_b', 'linear_attn.in_proj_a')
DELTA_OUT, DELTA_CONV = 'linear_attn.out_proj', 'linear_attn.conv1d.weight'
DELTA_NORM = 'linear_attn.norm.weight'
DELTA_BIAS, DELTA_DECAY = 'linear_attn.dt_bias', 'linear_attn.A_log'
CONV_IN, CONV_OUT, CONV = 'conv.in_proj', 'conv.out_proj', 'conv.conv.weight'
MAMBA, MAMBA_OUT, MAMBA_NORM = 'mamba', 'mamba.out_proj', 'mamba.norm'
MAMBA_CONV, MAMBA_JOINT = 'mamba.conv1d', 'mamba.in_proj'
MAMBA_IN, MAMBA_RATES = ('mamba.gates', 'mamba.x', 'mamba.B', 'mamba.C'), 'mamba.dt'  # of `JOINT`
ROUTER, OF_EXPERTS = 'mlp.gate', 'mlp.experts.'
CHOICE_BIAS = 'e_score_correction_bias'   # a tensor of `ROUTER`
EMBEDDING, FINAL_NORM, HEAD = 'model.embed_tokens', 'model.norm', 'lm_head'


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding of the first 2 * len(frequencies) numbers of a head.

    Number i turns with number i + len(frequencies), by position * frequencies[i]; cosines and
    sines are multiplied by `scale`. With `axes`, positions have three numbers, as in Qwen-VL:
    axes[i] is the index of that which turns number i. Text has the same number three times.
    """

    frequencies: tuple[float, ...]
    scale: float = 1.0
    axes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """What may differ from layer to layer."""

    rope: int | None = 0        # index in `Architecture.ropes`; None: positions are not marked
    window: int | None = None   # tokens that a token attends to, itself included; None: all
    sparse: bool = False        # it has experts
    recurrent: bool = False     # it keeps a state, in place of keys and values
    beside: bool = False        # or beside them: the outputs of both are added
    mixes: bool = True          # it has attention or a state
    mlp: bool = True            # it has an MLP, or experts

    @property
    def attends(self) -> bool:
        """Whether it keeps keys and values."""
        return self.mixes and (self.beside or not self.recurrent)


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of a layer: a token goes through the `chosen` ones with the highest scores.

    Scores are a softmax of router @ x; or, if `sigmoid`, sigmoids, which are chosen by with
    `CHOICE_BIAS` added. Each chosen expert is multiplied by its own, divided by the sum of those
    of the chosen if `normalized`, and by `scale`. `files` has what files call `ROUTER`, `GATE_UP`
    and `DOWN`: with `{}` for the number of the expert, else one tensor [count, rows, inputs], in
    which parts of the same name follow each other in each expert. `biased` says that router and
    experts have biases.

    Beside them, every token goes through an MLP of `shared`, if that is not 0, multiplied by the
    sigmoid of `SHARED_GATE` @ x if `shared_gate`.
    """

    count: int
    chosen: int
    intermediate: int
    normalized: bool
    files: Mapping[str, str]
    biased: bool = False
    shared: int = 0
    shared_gate: bool = False
    sigmoid: bool = False
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder with grouped attention and an MLP, which has a gate unless it is 'relu2'."""

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
    experts: Experts | None = None    # of the layers that are `sparse`
    recurrence: Delta | ShortConv | Mamba | None = None   # of the layers that are `recurrent`
    renamed: Mapping[str, str] = field(default_factory=dict)  # parts, and `FINAL_NORM`, in files
    # Of tensors of layers by part and 'weight' or 'bias': what those of files are multiplied by.
    factors: Mapping[str, float] = field(default_factory=dict)
    gated: bool = False               # attention's output is multiplied by sigmoid(gates)
    # '' | 'head': of each head | 'all': of all heads together | 'own': a layer norm of each head,
    # which has its own weights.
    qk_norm: str = ''
    qk_norm_last: bool = False        # behind the rope; only for 'head'
    # Of the gate: 'silu' | 'gelu' (its tanh approximation) | 'clamped' (see `clamp`); or 'relu2':
    # the square of what is above zero, without a gate.
    activation: str = 'silu'
    clamp: tuple[float, float] = (1.0, 0.0)   # scale in the sigmoid of the gate, and limit
    norm: str = 'rms'                 # 'rms' | 'layer' (without its mean) | 'biased' (the same)
    parallel: bool = False            # attention and MLP add to the same residual
    sinks: bool = False               # each head has a score `SINKS` that no value belongs to
    # Queries at position p are multiplied by 1 + query_growth * log(1 + p // growth_length).
    query_growth: float = 0.0
    growth_length: int = 1
    interleaved: bool = False         # files pair numbers 2i and 2i + 1 of a head for the rope
    norm_offset: float = 0.0          # added to the weights of norms
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    attention_softcap: float = 0.0    # x becomes cap * tanh(x / cap); 0: none
    logit_softcap: float = 0.0
    # Behind each of the first so many layers, an image adds rows of its own (DeepStack).
    input_levels: int = 0
    max_context: int | None = None    # tokens beyond which this description is not the model's


def state_shape(architecture: Architecture, slots: int) -> tuple[int, int, int]:
    """Return the shape of the states of recurrent layers: layers, slots, float32 numbers."""
    layers = sum(layer.recurrent for layer in architecture.layers)
    return layers, slots, architecture.recurrence.state_numbers if layers else 0


def kept_layers(architecture: Architecture) -> int:
    """Return the number of layers that keep keys and values."""
    return sum(layer.attends for layer in architecture.layers)


def within(architecture: Architecture, context: int) -> Architecture:
    """Return the same for texts of at most `context` tokens: wider windows are none."""
    return replace(architecture, layers=tuple(
        replace(layer, window=None) if layer.window and layer.window >= context else layer
        for layer in architecture.layers))


def mlp_parts(architecture: Architecture) -> tuple[str, ...]:
    """Return the parts of an MLP that its input is multiplied by."""
    return GATE_UP[1:] if architecture.activation == 'relu2' else GATE_UP


def shared_part(part: str) -> str:
    """Return the part of a layer that is `part`, as for an expert, of the shared one."""
    return SHARED + part.removeprefix('mlp.')


def expert_part(expert: int, part: str) -> str:
    """Return the part of a layer that is `part`, one of `GATE_UP` and `DOWN`, of an expert."""
    return f'{OF_EXPERTS}{expert}.{part.removeprefix("mlp.")}'


def layer_name(layer: int, part: str) -> str:
    """Return the full name of a part of a layer."""
    return f'model.layers.{layer}.{part}'
