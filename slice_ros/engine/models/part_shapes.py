# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The shapes of the tensors that a described decoder needs."""

from slice_ros.engine.models.architecture import (
    Architecture, CONV, CONV_IN, CONV_OUT, DELTA_BIAS, DELTA_CONV, DELTA_DECAY, DELTA_IN,
    DELTA_NORM, DELTA_OUT, DELTA_RATES, DOWN, GATE_UP, Layer, MAMBA, MAMBA_CONV, MAMBA_IN,
    MAMBA_JOINT, MAMBA_NORM, MAMBA_OUT, MAMBA_RATES, mlp_parts, NORMS, OUT, QK_NORMS, QKV, ROUTER,
    SHARED_GATE, shared_part, SINKS)
from slice_ros.engine.models.recurrences import Mamba, ShortConv

_MIXER = (*QKV, *QK_NORMS, OUT, SINKS)
_MLP = (*GATE_UP, DOWN)


def part_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of each part of a layer, but for chosen experts and recurrences."""
    made = architecture
    queries, keys = made.heads * made.head_dim, made.kv_heads * made.head_dim
    normed = {'head': ((made.head_dim,),) * 2, 'all': ((queries,), (keys,)),
              'own': tuple((n, made.head_dim) for n in (made.heads, made.kv_heads))}
    return {
        **{norm: (made.hidden,) for norm in NORMS},
        **dict(zip(QKV, ((queries, made.hidden), (keys, made.hidden), (keys, made.hidden)))),
        **dict(zip(QK_NORMS, normed.get(made.qk_norm, ()))),
        **({SINKS: (made.heads,)} if made.sinks else {}),
        OUT: (made.hidden, queries), DOWN: (made.hidden, made.intermediate),
        **{part: (made.intermediate, made.hidden) for part in mlp_parts(made)},
        **shared_shapes(made)}


def recurrence_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a recurrence, by its full name in the layer."""
    delta, hidden = architecture.recurrence, architecture.hidden
    if isinstance(delta, Mamba):
        return _mamba_shapes(delta, hidden)
    if isinstance(delta, ShortConv):
        return {f'{CONV_IN}.weight': (3 * hidden, hidden), f'{CONV_OUT}.weight': (hidden, hidden),
                CONV: (hidden, delta.taps) if delta.flat else (hidden, 1, delta.taps)}
    return {
        f'{DELTA_IN[0]}.weight': (delta.channels, hidden),
        f'{DELTA_IN[1]}.weight': (delta.values, hidden),
        **{f'{part}.weight': (delta.value_heads, hidden) for part in DELTA_RATES},
        f'{DELTA_OUT}.weight': (hidden, delta.values),
        DELTA_CONV: (delta.channels, *(() if delta.flat else (1,)), delta.taps),
        DELTA_NORM: (delta.value_dim,), DELTA_BIAS: (delta.value_heads,),
        DELTA_DECAY: (delta.value_heads,)}


def _mamba_shapes(mamba: Mamba, hidden: int) -> dict[str, tuple[int, ...]]:
    return {
        f'{MAMBA_JOINT}.weight': (mamba.values + mamba.channels + mamba.heads, hidden),
        f'{MAMBA_OUT}.weight': (hidden, mamba.values),
        f'{MAMBA_CONV}.weight': (mamba.channels, *(() if mamba.flat else (1,)), mamba.taps),
        **({f'{MAMBA_CONV}.bias': (mamba.channels,)} if mamba.conv_bias else {}),
        **{f'{MAMBA}.{name}': (mamba.heads,) for name in ('A_log', 'D', 'dt_bias')},
        **({f'{MAMBA_NORM}.weight': (mamba.values,)} if mamba.norm_parts else {})}


def cut_parts(architecture: Architecture) -> dict[str, tuple[str, int, int]]:
    """Return of parts the fused one of the file, the first row there, and that after the last."""
    made, mamba, cut = architecture, architecture.recurrence, {}
    shapes, fused = part_shapes(made), dict(made.fused)
    if isinstance(mamba, Mamba):
        keys = mamba.groups * mamba.state
        shapes |= dict(zip((*MAMBA_IN, MAMBA_RATES), (
            (rows,) for rows in (mamba.values, mamba.values, keys, keys, mamba.heads))))
        fused[MAMBA_JOINT] = *MAMBA_IN, MAMBA_RATES
    for name, parts in fused.items():
        first = 0
        for part in parts:
            rows = shapes[part][0]
            cut[part] = name, first, first + rows
            first += rows
    return cut


def absent_parts(architecture: Architecture, layer: Layer) -> set[str]:
    """Return the parts of attention and MLP that a layer does not have, norms included."""
    absent = set() if layer.attends else {*_MIXER}
    if layer.sparse or not layer.mlp:
        absent |= {*_MLP}
    if not layer.sparse:
        absent |= {*shared_shapes(architecture)}
    absent |= {fused for fused, parts in architecture.fused.items() if {*parts} <= absent}
    return absent | {norm for norm in NORMS
                     if not (layer.mlp if norm.startswith('mlp') else layer.mixes)}


def expert_shapes(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """Return the shape of each part of an expert, and of the router."""
    experts, hidden = architecture.experts, architecture.hidden
    return {ROUTER: (experts.count, hidden), DOWN: (hidden, experts.intermediate),
            **{part: (experts.intermediate, hidden) for part in mlp_parts(architecture)}}


def shared_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of each part of the expert that all tokens go through, if there is one."""
    experts, hidden = architecture.experts, architecture.hidden
    if experts is None or not experts.shared:
        return {}
    return {**{shared_part(part): (experts.shared, hidden) for part in mlp_parts(architecture)},
            shared_part(DOWN): (hidden, experts.shared),
            **({SHARED_GATE: (1, hidden)} if experts.shared_gate else {})}
