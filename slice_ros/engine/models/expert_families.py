# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The families with experts: what their files call them, and how a config describes them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from slice_ros.engine.models.architecture import Architecture, DOWN, Experts, GATE_UP, ROUTER
from slice_ros.engine.models.rope import Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Those with experts.
SPARSE = ('qwen2_moe', 'qwen3_moe', 'qwen3_5_moe_text', 'qwen3_vl_moe_text', 'mixtral', 'olmoe',
          'granitemoe', 'granitemoehybrid', 'gpt_oss', 'nemotron_h')
MOE = 'moe'   # the kind of a layer of Nemotron-H with experts
# What files call the router and the parts of experts; see `Experts.files`.
EXPERTS = {ROUTER: ROUTER} | {
    part: part.replace('mlp.', 'mlp.experts.{}.') for part in (*GATE_UP, DOWN)}
_STACKED = {ROUTER: ROUTER} | {
    part: part.replace('mlp.', 'mlp.experts.') for part in (*GATE_UP, DOWN)}   # of GGUF
MIXTRAL = {ROUTER: 'block_sparse_moe.gate'} | {
    part: f'block_sparse_moe.experts.{{}}.{name}'
    for part, name in zip((*GATE_UP, DOWN), ('w1', 'w3', 'w2'))}
GRANITE = {ROUTER: 'block_sparse_moe.router.layer',
           DOWN: 'block_sparse_moe.output_linear'} | dict.fromkeys(
               GATE_UP, 'block_sparse_moe.input_linear')
# As `checkpoints.expert_tensors` gives them.
GPT_OSS = EXPERTS | {ROUTER: 'mlp.router'}
NEMOTRON = {part: name.replace('mlp.', 'mixer.') for part, name in EXPERTS.items()}


def expert_count(config: 'PreTrainedConfig') -> int | None:
    """Return the number of experts of a layer; None for a family without."""
    if config.model_type not in SPARSE or (
            config.model_type == 'granitemoehybrid' and config.num_local_experts == 0) or (
            config.model_type == 'nemotron_h' and MOE not in (config.layer_types or ())):
        return None
    return getattr(config, 'num_experts', None) or config.num_local_experts


def sparse(config: 'PreTrainedConfig', made: Architecture, files: Mapping[str, str],
           normalized: bool = True) -> Architecture:
    """Return a decoder with experts in place of its MLPs, but for those that the config names."""
    if getattr(config, 'clip_qkv', None) is not None:
        raise Unsupported('clip_qkv')
    stacked = getattr(config, 'stacked_experts', False)
    experts = Experts(
        expert_count(config), config.num_experts_per_tok,
        getattr(config, 'moe_intermediate_size', None) or config.intermediate_size, normalized,
        _STACKED if stacked else files)
    dense, period = getattr(config, 'mlp_only_layers', ()) or (), getattr(
        config, 'decoder_sparse_step', 1)
    if not isinstance(dense, (list, tuple)):
        raise Unsupported(f'mlp_only_layers {dense!r:.80}')
    return replace(made, experts=experts, layers=tuple(
        replace(layer, sparse=number not in dense and (number + 1) % period == 0)
        for number, layer in enumerate(made.layers)))


def with_shared(config: 'PreTrainedConfig', made: Architecture) -> Architecture:
    """Return the same with the expert of Qwen's, behind a gate, that all tokens go through."""
    return replace(made, experts=replace(
        made.experts, shared=config.shared_expert_intermediate_size, shared_gate=True))
