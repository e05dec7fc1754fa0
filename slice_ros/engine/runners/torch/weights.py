# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of a described decoder as torch holds them, and how they come from a checkpoint."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slice_ros.engine.adapters.low_rank import Adapter
from slice_ros.engine.models.architecture import (
    Architecture, CHOICE_BIAS, DOWN, EMBEDDING, expert_part, FINAL_NORM, HEAD, layer_name,
    mlp_parts, NORMS, OUT, QK_NORMS, QKV, ROUTER, SHARED_GATE, shared_part, SINKS)
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.models.rope import query_scales, rope_tables
from slice_ros.engine.runners.torch.linear import (
    Embedding, Linear, make_embedding, make_linear, MakeEmbedding, MakeLinear, Part)
from slice_ros.engine.runners.torch.low_rank_sums import LowRankSums
import torch


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Weights of one decoder layer, query-key-value and gate-up fused; norms where it has them.

    A norm with biases is [2, hidden], which are the second row.
    """

    qkv: Linear
    output: Linear
    mlp: tuple[tuple[Linear, Linear], ...]  # gate-up and down: one pair, or of each expert
    router: torch.Tensor | None             # [experts, hidden], float32
    router_bias: torch.Tensor | None        # [experts]
    choice_bias: torch.Tensor | None        # [experts]
    shared: tuple[Linear, Linear] | None    # gate-up and down of the expert of all tokens
    shared_gate: torch.Tensor | None        # [1, hidden], float32
    sinks: torch.Tensor | None              # [heads]
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
    embedding: Embedding         # [vocab, hidden]
    layers: tuple[DecoderLayer, ...]
    norm: torch.Tensor           # [hidden]; as those of the layers
    head: Linear
    # Cosines and sines of each rope, [max_context, 1, rotary_dim]; the first half of the sines is
    # negated: see `torch_runner.rotate`.
    ropes: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    query_scales: torch.Tensor | None   # [max_context, 1, 1]
    linears: str                 # their implementation, in words
    kinds: str                   # of the weights of the layers: 'int4+int8', most bytes first
    nbytes: int
    streamed_bytes: int          # of these, what each step reads: not the embedding
    adapters: LowRankSums


def build_weights(made: Architecture, tensors: ModelTensors, weights: str, floats: str,
                  device: torch.device, max_context: int, progress: Callable[[float], None],
                  make_linear: MakeLinear = make_linear,
                  make_embedding: MakeEmbedding = make_embedding,
                  adapters: Sequence[Adapter] = ()) -> DecoderWeights:
    """Convert the tensors of a checkpoint to `weights` on `device`.

    `floats` is the format of torch that rows of the embedding have. With 'int4' embedding and
    head have 8 bits, because each token depends on them directly, unless the file has them in 4.
    `progress` is called with the share that is done, from 0 to 1. Raises ``KeyError`` or
    ``ModelError`` for a missing tensor.
    """
    def floats_of(name: str, kind: str = 'weight') -> torch.Tensor | None:
        found = tensors.get(f'{name}.{kind}')
        # A copy: a view would keep the whole file that it was read from in memory.
        return None if found is None else found.to(device, torch.float32, copy=True)

    def norm_of(name: str) -> torch.Tensor:
        weight = floats_of(name)
        return weight if made.norm != 'biased' else torch.stack((weight, floats_of(name, 'bias')))

    def pair(part: Callable[[str], str]) -> tuple[Linear, Linear]:
        return linear(*map(part, mlp_parts(made))), linear(part(DOWN))

    def linear(*names: str) -> Linear:
        parts = [tensors.as_stored(f'{n}.weight') for n in names]
        biases = [tensors.get(f'{n}.bias') for n in names]
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat([torch.zeros(part.shape[0]) if b is None else b.float()
                              for part, b in zip(parts, biases)])
        return make_linear(parts, bias, weights, device)

    layers = []
    for i in range(len(made.layers)):
        def at(part: str, i: int = i) -> str:
            return layer_name(i, part)
        layers.append(DecoderLayer(
            qkv=linear(*map(at, QKV)), output=linear(at(OUT)),
            sinks=floats_of(at(SINKS)) if made.sinks else None,
            **_experts(made, i, pair, floats_of),
            **{part: norm_of(at(part)) if part in made.norms else None for part in NORMS},
            **dict(zip(('query_norm', 'key_norm'), (
                floats_of(at(part)) if made.qk_norm else None for part in QK_NORMS)))))
        progress((i + 1) / (len(made.layers) + 1))
    embedding, head, tied = _outer_parts(tensors, weights, floats, device, make_linear,
                                         make_embedding)
    kinds = _bytes_by_kind(layers)
    fbgemm = weights == 'fp16' and device.type == 'cpu'
    shared = tied and not fbgemm  # fbgemm packs the head into a copy
    names = '+'.join(kind for kind, _ in kinds.most_common())
    streamed = kinds.total() + head.nbytes
    return DecoderWeights(
        made=made, embedding=embedding, layers=tuple(layers), norm=norm_of(FINAL_NORM),
        head=head,
        **_of_positions(made, max_context, device),
        linears=f'Triton {names}' if 'int' in names else 'fbgemm fp16' if fbgemm else 'torch',
        kinds=names, nbytes=streamed + (0 if shared else embedding.nbytes),
        streamed_bytes=streamed, adapters=LowRankSums(adapters, made, device))


def _experts(made: Architecture, number: int,
             pair: Callable[[Callable[[str], str]], tuple[Linear, Linear]],
             floats_of: Callable[..., torch.Tensor | None]) -> dict:
    """Return MLP, experts and router of a layer."""
    def at(part: str) -> str:
        return layer_name(number, part)
    found = dict.fromkeys(('router', 'router_bias', 'choice_bias', 'shared', 'shared_gate'))
    if not made.layers[number].sparse:
        return found | {'mlp': (pair(at),)}
    found['mlp'] = tuple(pair(lambda part, e=e: at(expert_part(e, part)))
                         for e in range(made.experts.count))
    found['router'], found['router_bias'] = floats_of(at(ROUTER)), floats_of(at(ROUTER), 'bias')
    if made.experts.sigmoid:
        found['choice_bias'] = floats_of(at(ROUTER), CHOICE_BIAS)
    if made.experts.shared:
        found['shared'] = pair(lambda part: at(shared_part(part)))
    if made.experts.shared_gate:
        found['shared_gate'] = floats_of(at(SHARED_GATE)).reshape(1, -1)
    return found


def _outer_parts(tensors: ModelTensors, weights: str, floats: str, device: torch.device,
                 make_linear: MakeLinear, make_embedding: MakeEmbedding
                 ) -> tuple[Embedding, Linear, bool]:
    """Return embedding and head, and whether they have the same weights."""
    part = tensors.as_stored(f'{EMBEDDING}.weight')
    embedding, tied_head = make_embedding(part, _outer(part, weights), floats, device)
    tied = f'{HEAD}.weight' not in tensors
    part = tied_head if tied else tensors.as_stored(f'{HEAD}.weight')
    return embedding, make_linear([part], None, _outer(part, weights), device), tied


def _of_positions(made: Architecture, length: int, device: torch.device) -> dict:
    """Return the ropes and what queries are multiplied by."""
    scales = query_scales(made, length)
    return {
        'ropes': tuple((torch.cat((cos, cos), -1)[:, None].to(device),
                        torch.cat((-sin, sin), -1)[:, None].to(device))
                       for cos, sin in zip(*map(torch.from_numpy, rope_tables(made, length)))),
        'query_scales': None if scales is None else (
            torch.from_numpy(scales)[:, None, None].to(device))}


def _outer(part: Part, weights: str) -> str:
    """Return the format of embedding or head in a model of `weights`."""
    return 'int8' if weights == 'int4' and getattr(part, 'kind', None) != 'int4' else weights


def _bytes_by_kind(layers: list[DecoderLayer]) -> Counter[str]:
    """Return the bytes of the matrices of all layers, by the kind of their weights."""
    kinds = Counter()
    for layer in layers:
        for part in (layer.qkv, layer.output, *(layer.shared or ()),
                     *(part for pair in layer.mlp for part in pair)):
            kinds[part.kind] += part.nbytes
    return kinds
