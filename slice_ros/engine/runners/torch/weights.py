# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of a described decoder as torch holds them, and how they come from a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass

from slice_ros.engine.models.architecture import (
    Architecture, DOWN, EMBEDDING, FINAL_NORM, GATE_UP, HEAD, layer_name, NORMS, OUT, QK_NORMS,
    QKV)
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.models.rope import rope_tables
from slice_ros.engine.runners.torch.linear import Linear, make_linear, MakeLinear
import torch


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Weights of one decoder layer, query-key-value and gate-up fused; norms where it has them."""

    qkv: Linear
    output: Linear
    gate_up: Linear
    down: Linear
    attention_norm: torch.Tensor | None
    attention_out_norm: torch.Tensor | None
    mlp_norm: torch.Tensor | None
    mlp_out_norm: torch.Tensor | None
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """Weights of a decoder, and what its forward needs beside them."""

    made: Architecture
    embedding: torch.Tensor      # [vocab, hidden]
    layers: tuple[DecoderLayer, ...]
    norm: torch.Tensor           # [hidden]
    head: Linear
    # Cosines and sines of each rope, [max_context, 1, rotary_dim]; the first half of the sines is
    # negated: see `torch_runner.rotate`.
    ropes: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    linears: str                 # their implementation, in words
    nbytes: int
    streamed_bytes: int          # of these, what each step reads: not the embedding


def build_weights(made: Architecture, tensors: ModelTensors, weights: str,
                  device: torch.device, max_context: int, progress: Callable[[float], None],
                  make_linear: MakeLinear = make_linear) -> DecoderWeights:
    """Convert the tensors of a checkpoint to `weights` on `device`.

    `progress` is called with the share that is done, from 0 to 1. `make_linear` builds each
    linear layer. Raises ``KeyError`` or ``ModelError`` for a missing tensor.
    """
    streamed = 0

    def norm(name: str) -> torch.Tensor | None:
        found = tensors.get(f'{name}.weight')
        # A copy: a view would keep the whole file that it was read from in memory.
        return None if found is None else found.to(device, torch.float32, copy=True)

    def linear(*names: str):
        nonlocal streamed
        weight = torch.cat([tensors[f'{n}.weight'] for n in names])
        biases = [tensors.get(f'{n}.bias') for n in names]
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat([torch.zeros(tensors[f'{n}.weight'].shape[0]) if b is None
                              else b.float() for n, b in zip(names, biases)])
        streamed += _bytes(weight, weights)
        return make_linear(weight, bias, weights, device)

    layers = []
    for i in range(len(made.layers)):
        def at(part: str, i: int = i) -> str:
            return layer_name(i, part)
        layers.append(DecoderLayer(
            qkv=linear(*map(at, QKV)), output=linear(at(OUT)), gate_up=linear(*map(at, GATE_UP)),
            down=linear(at(DOWN)),
            **{part: norm(at(part)) if part in made.norms else None for part in NORMS},
            **dict(zip(('query_norm', 'key_norm'), (
                norm(at(part)) if made.qk_norm else None for part in QK_NORMS)))))
        progress((i + 1) / (len(made.layers) + 1))
    embedding = tensors[f'{EMBEDDING}.weight'].to(device, _dtype(weights), copy=True)
    tied = f'{HEAD}.weight' not in tensors
    fbgemm = weights == 'fp16' and device.type == 'cpu'
    shared = tied and not fbgemm and weights != 'int8'  # these pack the head into a copy
    if tied:
        head = make_linear(embedding, None, weights, device)
        streamed += _bytes(embedding, weights)
    else:
        head = linear(HEAD)
    return DecoderWeights(
        made=made, embedding=embedding, layers=tuple(layers), norm=norm(FINAL_NORM), head=head,
        ropes=tuple((torch.cat((cos, cos), -1)[:, None].to(device),
                     torch.cat((-sin, sin), -1)[:, None].to(device))
                    for cos, sin in zip(*rope_tables(made, max_context))),
        linears={'int8': 'Triton int8'}.get(weights, 'fbgemm fp16' if fbgemm else 'torch'),
        nbytes=streamed + (0 if shared else embedding.nbytes), streamed_bytes=streamed)


def _dtype(weights: str) -> torch.dtype:
    return {'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32,
            'int8': torch.float16}[weights]  # of the embedding, beside int8 linears


def _bytes(weight: torch.Tensor, weights: str) -> int:
    if weights == 'int8':  # and a float32 scale for each output
        return weight.numel() + 4 * len(weight)
    return weight.numel() * _dtype(weights).itemsize
