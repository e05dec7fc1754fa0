# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What GGUF files call the tensors and numbers of a Hugging Face model: what families share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import re

import numpy as np

Value = Callable[..., object]

_BARE = re.compile(r'blk\.(\d+)\.([\w.]+)')   # of names that end otherwise
_OF_LAYER = re.compile(r'blk\.(\d+)\.([\w.]+)\.(weight|bias)')
_OUTER = {'token_embd': 'model.embed_tokens', 'token_embd_norm': 'model.embedding_norm',
          'output_norm': 'model.norm', 'output': 'lm_head'}
LLAMA = {
    'attn_norm': 'input_layernorm', 'ffn_norm': 'post_attention_layernorm',
    'attn_q': 'self_attn.q_proj', 'attn_k': 'self_attn.k_proj', 'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.o_proj', 'ffn_gate': 'mlp.gate_proj', 'ffn_up': 'mlp.up_proj',
    'ffn_down': 'mlp.down_proj',
}
QK_NORMS = {'attn_q_norm': 'self_attn.q_norm', 'attn_k_norm': 'self_attn.k_norm'}
EXPERTS = {'ffn_gate_inp': 'mlp.gate'} | {
    f'ffn_{part}_exps': f'mlp.experts.{part}_proj' for part in ('gate', 'up', 'down')}
SHARED = {'ffn_gate_inp_shexp': 'mlp.shared_expert_gate'} | {
    f'ffn_{part}_shexp': f'mlp.shared_expert.{part}_proj' for part in ('gate', 'up', 'down')}


@dataclass(frozen=True, slots=True)
class GgufFamily:
    """An architecture of GGUF files."""

    model_type: str
    names: Mapping[str, str] = field(default_factory=lambda: LLAMA)   # of parts of a layer
    bare: Mapping[str, str] = field(default_factory=dict)   # of those that end otherwise
    paired: bool = False        # llama.cpp interleaves the two halves that the rope pairs
    more: Callable[[Value], dict] = lambda value: {}   # more of the config
    # Of a part of a layer and its rows, which row of the file each of Hugging Face's is; the same
    # of its inputs. None: they are the same.
    rows: Callable[[Value, str, int], np.ndarray | None] = lambda value, part, rows: None
    inputs: Callable[[Value, str, int], np.ndarray | None] = lambda value, part, inputs: None

    def name(self, gguf: str) -> str | None:
        """Return the Hugging Face name of a tensor, None for one that has none."""
        bare = _BARE.fullmatch(gguf)
        if bare is not None and bare[2] in self.bare:
            return f'model.layers.{bare[1]}.{self.bare[bare[2]]}'
        found = _OF_LAYER.fullmatch(gguf)
        if found is None:
            part, _, kind = gguf.rpartition('.')
            return f'{_OUTER[part]}.{kind}' if part in _OUTER else None
        layer, part, kind = found.groups()
        return f'model.layers.{layer}.{self.names[part]}.{kind}' if part in self.names else None


def granite_numbers(value: Value) -> dict:
    """Return what a config of Granite has beside those of a decoder."""
    return {'embedding_multiplier': value('embedding_scale') or 1.0,
            'residual_multiplier': value('residual_scale') or 1.0,
            'attention_multiplier': value('attention.scale'),
            'logits_scaling': value('logit_scale') or 1.0}


def expert_numbers(value: Value) -> dict:
    """Return what a config says of experts."""
    wide = value('expert_feed_forward_length')
    return {'num_experts': value('expert_count'), 'num_local_experts': value('expert_count'),
            'num_experts_per_tok': value('expert_used_count'), 'stacked_experts': True} | (
                {'moe_intermediate_size': wide} if wide else {})


def by_layer(value: Value, key: str) -> tuple:
    """Return a number of each layer."""
    found = value(key, whole=True)
    return found if isinstance(found, tuple) else (found,) * value('block_count')
