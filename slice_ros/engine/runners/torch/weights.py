# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of the Llama family as torch holds them, and how they come from a checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slice_ros.engine.models.llama import head_dim, rope_tables
from slice_ros.engine.models.tensor_names import QKV
from slice_ros.engine.runners.torch.linear import Linear, make_linear, MakeLinear
import torch
from transformers import PreTrainedConfig


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Weights of one decoder layer, query-key-value and gate-up fused."""

    input_norm: torch.Tensor
    qkv: Linear
    output: Linear
    post_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class LlamaWeights:
    """Weights of a model of the Llama family, and the numbers that its forward needs."""

    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    norm_eps: float
    embedding: torch.Tensor      # [vocab, hidden]
    layers: tuple[DecoderLayer, ...]
    norm: torch.Tensor           # [hidden]
    head: Linear
    cos: torch.Tensor            # [max_context, 1, head_dim]
    sin: torch.Tensor            # the same, first half negated: see torch_runner
    linears: str                 # their implementation, in words
    nbytes: int
    streamed_bytes: int          # of these, what each step reads: not the embedding


def build_weights(config: PreTrainedConfig, tensors: Mapping[str, torch.Tensor], weights: str,
                  device: torch.device, max_context: int, progress: Callable[[float], None],
                  make_linear: MakeLinear = make_linear) -> LlamaWeights:
    """Convert the tensors of a Hugging Face checkpoint, by name, to `weights` on `device`.

    `progress` is called with the share that is done, from 0 to 1. `make_linear` builds each
    linear layer. Raises ``KeyError`` or ``ModelError`` for a missing tensor.
    """
    streamed = 0

    def tensor(name: str) -> torch.Tensor:
        # A copy: a view would keep the whole file that it was read from in memory.
        return tensors[name].to(device, torch.float32, copy=True)

    def linear(*names: str):
        nonlocal streamed
        weight = torch.cat([tensors[f'{n}.weight'] for n in names])
        biases = [tensors[f'{n}.bias'] if f'{n}.bias' in tensors else None for n in names]
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat([torch.zeros(tensors[f'{n}.weight'].shape[0]) if b is None
                              else b.float() for n, b in zip(names, biases)])
        streamed += _bytes(weight, weights)
        return make_linear(weight, bias, weights, device)

    layers = []
    for i in range(config.num_hidden_layers):
        at = f'model.layers.{i}.'
        layers.append(DecoderLayer(
            input_norm=tensor(at + 'input_layernorm.weight'),
            qkv=linear(*(at + part for part in QKV)),
            output=linear(at + 'self_attn.o_proj'),
            post_norm=tensor(at + 'post_attention_layernorm.weight'),
            gate_up=linear(at + 'mlp.gate_proj', at + 'mlp.up_proj'),
            down=linear(at + 'mlp.down_proj')))
        progress((i + 1) / (config.num_hidden_layers + 1))
    embedding = tensors['model.embed_tokens.weight'].to(device, _dtype(weights), copy=True)
    tied = config.tie_word_embeddings or 'lm_head.weight' not in tensors
    fbgemm = weights == 'fp16' and device.type == 'cpu'
    shared = tied and not fbgemm and weights != 'int8'  # these pack the head into a copy
    if tied:
        head = make_linear(embedding, None, weights, device)
        streamed += _bytes(embedding, weights)
    else:
        head = linear('lm_head')
    cos, sin = rope_tables(config, max_context)
    return LlamaWeights(
        heads=config.num_attention_heads, kv_heads=config.num_key_value_heads,
        head_dim=head_dim(config), intermediate=config.intermediate_size,
        norm_eps=config.rms_norm_eps, embedding=embedding, layers=tuple(layers),
        norm=tensor('model.norm.weight'), head=head, cos=cos.to(device),
        sin=sin.to(device), linears={'int8': 'Triton int8'}.get(
            weights, 'fbgemm fp16' if fbgemm else 'torch'),
        nbytes=streamed + (0 if shared else embedding.nbytes), streamed_bytes=streamed)


def _dtype(weights: str) -> torch.dtype:
    return {'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32,
            'int8': torch.float16}[weights]  # of the embedding, beside int8 linears


def _bytes(weight: torch.Tensor, weights: str) -> int:
    if weights == 'int8':  # and a float32 scale for each output
        return weight.numel() + 4 * len(weight)
    return weight.numel() * _dtype(weights).itemsize
