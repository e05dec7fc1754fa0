# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of a layer, and the structures that the native step reads them from."""

from collections.abc import Iterator
from ctypes import Array, Structure
from dataclasses import dataclass

import numpy as np
from slice_ros.engine.models.architecture import Architecture, Layer as DecoderLayer, NORMS
from slice_ros.engine.runners.native.library import Delta, Expert, Layer, Mamba, Matrix, ShortConv
from slice_ros.engine.runners.native.packing import Packed


@dataclass(frozen=True, slots=True)
class DeltaWeights:
    """A delta rule; see `recurrences.Delta`."""

    in_: Packed          # queries, keys, values, then gates
    rates: Packed        # float32: strengths, then decays
    conv: np.ndarray     # [taps, channels]
    decay: np.ndarray    # [value_heads], negative
    bias: np.ndarray     # [value_heads]
    norm: np.ndarray     # [value_dim]


@dataclass(frozen=True, slots=True)
class ShortConvWeights:
    """A short convolution; see `recurrences.ShortConv`."""

    in_: Packed          # b, c, x
    conv: np.ndarray     # [taps, channels]


@dataclass(frozen=True, slots=True)
class MambaWeights:
    """A state space; see `recurrences.Mamba`."""

    in_: Packed          # gates, then channels
    rates: Packed        # float32
    out: Packed
    conv: np.ndarray     # [taps, channels]
    conv_bias: np.ndarray | None
    decay: np.ndarray    # [heads], negative
    bias: np.ndarray     # [heads]
    skip: np.ndarray     # [heads]
    norm: np.ndarray | None   # [values]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer; norms are float32, None where there is none.

    Behind the weights of a norm with biases are these.
    """

    qkv: Packed | None                   # query, key and value heads, then gates if it is gated
    attention_out: Packed | None
    mlp: tuple[tuple[Packed, Packed], ...]  # gate-up (of packing.Interleaved) and down: one pair,
    router: Packed | None = None            # or of each expert, with a float32 router, to which
    shared: tuple[Packed, Packed] | None = None   # the gate of the expert of all tokens is joined
    recurrence: DeltaWeights | ShortConvWeights | MambaWeights | None = None
    attention_norm: np.ndarray | None = None      # [hidden]
    attention_out_norm: np.ndarray | None = None  # [hidden]
    mlp_norm: np.ndarray | None = None            # [hidden]
    mlp_out_norm: np.ndarray | None = None        # [hidden]
    query_norm: np.ndarray | None = None          # [head_dim], or of all heads
    key_norm: np.ndarray | None = None
    sinks: np.ndarray | None = None               # [heads]
    choice_bias: np.ndarray | None = None         # [experts]

    def mixer(self) -> Iterator[Packed]:
        """Yield the matrices in front of the MLP, without the small rates."""
        rule = self.recurrence
        yield from filter(None, (
            self.attention_out, self.qkv, getattr(rule, 'in_', None), getattr(rule, 'out', None)))


class CLayers:
    """Makes the C structures of layers; what they point to is added to `alive`."""

    def __init__(self, made: Architecture, alive: list) -> None:
        self._made, self._alive = made, alive

    def layer(self, layer: LayerWeights, kind: DecoderLayer) -> Layer:
        """Return the structure of a layer. Raises ``ValueError`` for a vector of another size."""
        made = self._made
        queries, keys = (made.head_dim * (1 if made.qk_norm == 'head' else n)
                         for n in (made.heads, made.kv_heads))
        return Layer(
            *(self.norm(getattr(layer, norm)) for norm in NORMS),
            self.vector(layer.query_norm, queries), self.vector(layer.key_norm, keys),
            -1 if kind.rope is None else kind.rope, kind.window or 0,
            *(Matrix() if packed is None else packed.matrix
              for packed in (layer.qkv, layer.attention_out)),
            *self._mlp(layer), *self._recurrence(layer.recurrence),
            self.vector(layer.sinks, made.heads))

    def norm(self, array: np.ndarray | None) -> int | None:
        """Return the address of a norm; None for none."""
        return self.vector(array, self._made.hidden * (2 if self._made.norm == 'biased' else 1))

    def vector(self, array: np.ndarray | None, *shape: int) -> int | None:
        """Return the address of float32 numbers; None for none."""
        if array is None:
            return None
        if np.shape(array) != shape:
            raise ValueError(f'a norm or vector of shape {np.shape(array)}, not {shape}')
        array = np.ascontiguousarray(array, np.float32)
        self._alive.append(array)
        return array.ctypes.data

    def _mlp(self, layer: LayerWeights) -> tuple:
        """Return MLP, experts, router and the bias of its choice."""
        pairs = [Expert(gate_up.matrix, down.matrix) for gate_up, down in layer.mlp]
        if layer.router is None:
            alone = pairs[0] if pairs else Expert()
            return alone.gate_up, alone.down, None, Matrix(), None
        if len(pairs) != self._made.experts.count:
            raise ValueError(f'{len(pairs)} experts in a layer of {self._made.experts.count}')
        experts = (Expert * len(pairs))(*pairs)
        self._alive.append(experts)
        shared = [part.matrix for part in layer.shared or ()] or [Matrix(), Matrix()]
        return *shared, experts, layer.router.matrix, self.vector(layer.choice_bias, len(pairs))

    def _recurrence(self, weights: DeltaWeights | ShortConvWeights | MambaWeights | None
                    ) -> tuple:
        """Return delta rule, short convolution and state space."""
        if weights is None:
            return None, None, None
        rule = self._made.recurrence
        conv = self.vector(weights.conv, rule.taps, rule.channels)
        if isinstance(weights, ShortConvWeights):
            return None, self._pointer(ShortConv(weights.in_.matrix, conv, rule.taps)), None
        if isinstance(weights, MambaWeights):
            return None, None, self._mamba(weights, conv)
        return self._pointer(Delta(
            weights.in_.matrix, weights.rates.matrix, conv,
            self.vector(weights.decay, rule.value_heads),
            self.vector(weights.bias, rule.value_heads), self.vector(weights.norm, rule.value_dim),
            rule.key_heads, rule.value_heads, rule.key_dim, rule.value_dim, rule.taps)), None, None

    def _mamba(self, weights: MambaWeights, conv: int) -> Array:
        rule = self._made.recurrence
        of_heads = [self.vector(of, rule.heads)
                    for of in (weights.decay, weights.bias, weights.skip)]
        return self._pointer(Mamba(
            weights.in_.matrix, weights.rates.matrix, weights.out.matrix, conv,
            self.vector(weights.conv_bias, rule.channels), *of_heads,
            self.vector(weights.norm, rule.values), *rule.steps, rule.heads, rule.head_dim,
            rule.groups, rule.state, rule.taps, rule.norm_parts, rule.norm_first))

    def _pointer(self, structure: Structure) -> Array:
        pointer = (type(structure) * 1)(structure)
        self._alive.append(pointer)
        return pointer


def experts_of(made: Architecture) -> tuple[int, int, int, bool, bool]:
    """Return the members of a `Model` that are about experts."""
    if made.experts is None:
        return 0, 0, 0, False, False
    experts = made.experts
    return (experts.count, experts.chosen, experts.intermediate, experts.normalized,
            experts.sigmoid)
