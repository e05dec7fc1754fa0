# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Models of the Llama family: which are, and their weights in the form the runner wants."""

from collections.abc import Mapping

from slice_ros.engine.linear import make_linear
from slice_ros.engine.runner import Layer, LlamaWeights
import torch
from transformers import PreTrainedConfig

FAMILY = ('llama', 'qwen2', 'mistral')
_ROPE_TYPES = ('default', 'linear', 'llama3', 'yarn')
PARTS = ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj')


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
    """Return how far back attention sees, None if all the way."""
    window = getattr(config, 'sliding_window', None)
    layers = getattr(config, 'layer_types', None)
    return window if window and (not layers or 'sliding_attention' in layers) else None


def build(config: PreTrainedConfig, tensors: Mapping[str, torch.Tensor], weights: str,
          device: torch.device, max_context: int, progress) -> LlamaWeights:
    """Convert the tensors of a Hugging Face checkpoint; `progress` is told the share done."""
    streamed = 0

    def tensor(name: str) -> torch.Tensor:
        # A tensor that lived on in the mapped file would keep all of it in memory.
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
        layers.append(Layer(
            input_norm=tensor(at + 'input_layernorm.weight'),
            qkv=linear(*(at + part for part in PARTS)),
            output=linear(at + 'self_attn.o_proj'),
            post_norm=tensor(at + 'post_attention_layernorm.weight'),
            gate_up=linear(at + 'mlp.gate_proj', at + 'mlp.up_proj'),
            down=linear(at + 'mlp.down_proj')))
        progress((i + 1) / (config.num_hidden_layers + 1))
    embedding = tensors['model.embed_tokens.weight'].to(device, _dtype(weights), copy=True)
    tied = config.tie_word_embeddings or 'lm_head.weight' not in tensors
    fbgemm = weights == 'fp16' and device.type == 'cpu'
    shared = tied and not fbgemm and weights != 'int8'  # those have a form of their own
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


def rope_tables(config: PreTrainedConfig, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines [length, 1, head_dim], the first half of the sines negated.

    Frequencies of scaled rope types are transformers' own, for every type that does not depend on
    the length of the text.
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


def _dtype(weights: str) -> torch.dtype:
    return {'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32,
            'int8': torch.float16}[weights]  # beside int8 linears, of the embedding


def _bytes(weight: torch.Tensor, weights: str) -> int:
    if weights == 'int8':  # and a scale a row
        return weight.numel() + 4 * len(weight)
    return weight.numel() * _dtype(weights).itemsize
