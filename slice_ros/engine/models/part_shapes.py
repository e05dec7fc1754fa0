# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The shapes of the tensors that a described decoder needs."""

from slice_ros.engine.models.architecture import (
    Architecture, CONV, CONV_IN, CONV_OUT, DELTA_BIAS, DELTA_CONV, DELTA_DECAY, DELTA_IN,
    DELTA_NORM, DELTA_OUT, DELTA_RATES, DOWN, GATE_UP, mlp_parts, NORMS, OUT, QK_NORMS, QKV,
    ROUTER, SHARED_GATE, shared_part, ShortConv, SINKS)


def part_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of each part of a layer."""
    made = architecture
    queries, keys = made.heads * made.head_dim, made.kv_heads * made.head_dim
    normed = {'head': (made.head_dim,) * 2, 'all': (queries, keys)}.get(made.qk_norm, ())
    return {
        **{norm: (made.hidden,) for norm in NORMS},
        **dict(zip(QKV, ((queries, made.hidden), (keys, made.hidden), (keys, made.hidden)))),
        **{name: (size,) for name, size in zip(QK_NORMS, normed)},
        **({SINKS: (made.heads,)} if made.sinks else {}),
        OUT: (made.hidden, queries), DOWN: (made.hidden, made.intermediate),
        **{part: (made.intermediate, made.hidden) for part in mlp_parts(made)}}


def recurrence_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a recurrence, by its full name in the layer."""
    delta, hidden = architecture.recurrence, architecture.hidden
    if isinstance(delta, ShortConv):
        return {f'{CONV_IN}.weight': (3 * hidden, hidden), f'{CONV_OUT}.weight': (hidden, hidden),
                CONV: (hidden, delta.taps) if delta.flat else (hidden, 1, delta.taps)}
    return {
        f'{DELTA_IN[0]}.weight': (delta.channels, hidden),
        f'{DELTA_IN[1]}.weight': (delta.values, hidden),
        **{f'{part}.weight': (delta.value_heads, hidden) for part in DELTA_RATES},
        f'{DELTA_OUT}.weight': (hidden, delta.values),
        DELTA_CONV: (delta.channels, 1, delta.taps), DELTA_NORM: (delta.value_dim,),
        DELTA_BIAS: (delta.value_heads,), DELTA_DECAY: (delta.value_heads,)}


def expert_shapes(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """Return the shape of each part of an expert, and of the router."""
    experts, hidden = architecture.experts, architecture.hidden
    return {ROUTER: (experts.count, hidden), DOWN: (hidden, experts.intermediate),
            **{part: (experts.intermediate, hidden) for part in GATE_UP}}


def shared_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of each part of the expert that all tokens go through, if there is one."""
    experts, hidden = architecture.experts, architecture.hidden
    if not experts.shared:
        return {}
    return {**{shared_part(part): (experts.shared, hidden) for part in GATE_UP},
            shared_part(DOWN): (hidden, experts.shared),
            **({SHARED_GATE: (1, hidden)} if experts.shared_gate else {})}
