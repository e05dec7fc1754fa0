# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The forward pass of a described decoder over one flat batch of tokens."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.runners.fetch import fetch
from slice_ros.engine.runners.runner import (
    flatten, inputs_of, rope_positions_of, RunnerInfo, Segment)
from slice_ros.engine.runners.torch.attention import TorchAttention
from slice_ros.engine.runners.torch.batch import Batch
from slice_ros.engine.runners.torch.low_rank_sums import adapted_rows
from slice_ros.engine.runners.torch.weights import DecoderLayer, DecoderWeights
import torch
from torch.nn import functional as F

_ACTIVATIONS = {'silu': F.silu, 'gelu': partial(F.gelu, approximate='tanh')}
_LEAST_SUM = 1e-20   # kLeastSum of native/src/step_experts.cpp


class TorchRunner:
    """A `Runner` that computes all segments, decodes and prefill chunks alike, in one pass."""

    def __init__(self, weights: DecoderWeights, cache: KvCache) -> None:
        self.weights = weights
        self.cache = cache
        self.attention = TorchAttention(cache, weights.made)
        self._activate = _ACTIVATIONS.get(weights.made.activation)
        self.device = weights.embedding.device
        self.memory = cache.memory(f'torch {torch.__version__} '
                                   f'{torch.backends.cpu.get_cpu_capability()}')
        self.info = RunnerInfo(
            path='flat batch', kernels=f'{weights.linears} linears, {self.attention.name}',
            pages=cache.pages, weight_bytes=weights.nbytes,
            streamed_bytes=weights.streamed_bytes, kv_bytes=cache.nbytes,
            kv_bits=8 * cache.data.itemsize, shares_prefixes=True,
            asynchronous=self.device.type != 'cpu', verifies=False, hidden=weights.made.hidden,
            adapters=weights.adapters.names,
            weights=weights.kinds)

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment], states: np.ndarray | None = None
                ) -> torch.Tensor:
        """As `Runner.forward`."""
        w, cache, made = self.weights, self.cache, self.weights.made
        batch = self._batch(segments)
        turns = self._turns(batch, rope_positions_of(segments))
        grown = None if w.query_scales is None else w.query_scales[batch.positions]
        attend = self.attention.prepare(segments, batch.pages)
        runs, add = adapted_rows(segments), w.adapters.add
        h = w.embedding[batch.ids].to(w.norm.dtype)
        if made.embedding_scale != 1:
            h = h * made.embedding_scale
        if (inputs := inputs_of(segments)) is not None:
            given = inputs.row >= 0
            given, rows = torch.from_numpy(given), inputs.values[inputs.row[given]]
            levels = torch.from_numpy(rows).to(h).split(made.hidden, 1)
            h[given] = levels[0]
        shape = (len(h), made.heads + 2 * made.kv_heads, made.head_dim)
        for i, (layer, kind) in enumerate(zip(w.layers, made.layers)):
            if inputs is not None and 0 < i <= made.input_levels:
                h[given] += levels[i]
            x = self._normed(h, layer.attention_norm)
            qkv = add(layer.qkv(x), x, i, 0, runs).view(shape)
            self._mark(qkv, layer, None if kind.rope is None else turns[kind.rope])
            if grown is not None:
                qkv[:, :made.heads] *= grown
            cache.write(i, batch.places, qkv[:, made.heads:])
            x = attend(i, qkv[:, :made.heads], layer.sinks)
            attended = self._added(h, add(layer.output(x), x, i, 1, runs),
                                   layer.attention_out_norm)
            x = self._normed(h if made.parallel else attended, layer.mlp_norm)
            if layer.router is None:
                (gate_up, down), = layer.mlp
                x = self._gated(add(gate_up(x), x, i, 2, runs))
                x = add(down(x), x, i, 3, runs)
            else:
                x = self._experts(layer, x)
            h = self._added(attended, x, layer.mlp_out_norm)
        if states is not None:
            states[:] = self._normed(h, w.norm).float().cpu().numpy()
        if not len(batch.last):
            return h.new_empty(0, 0)
        h = h if len(batch.last) == len(h) else h[batch.last]
        return self.logits(self._normed(h, w.norm))

    def _turns(self, batch: Batch, positions: np.ndarray | None
               ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return cosines and sines of all tokens for each rope."""
        ropes = self.weights.ropes
        if positions is None:
            return [(cos[batch.positions], sin[batch.positions]) for cos, sin in ropes]
        (cos, sin), = ropes
        axes = torch.tensor(self.weights.made.ropes[0].axes * 2, device=self.device)
        at = torch.from_numpy(positions).to(self.device, torch.int64)[:, axes]
        return [tuple(table[:, 0].gather(0, at)[:, None] for table in (cos, sin))]

    def _gated(self, x: torch.Tensor) -> torch.Tensor:
        made, width = self.weights.made, x.shape[1] // 2
        if made.activation == 'relu2':
            return x.relu().square()
        if made.activation == 'clamped':
            (scale, limit), gate = made.clamp, x[:, :width]
            gate = gate.clamp(max=limit)
            return gate * torch.sigmoid(scale * gate) * (x[:, width:].clamp(-limit, limit) + 1)
        return self._activate(x[:, :width]).mul_(x[:, width:])

    def _experts(self, layer: DecoderLayer, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of the experts that each token of `x` chooses."""
        experts = self.weights.made.experts
        scores = F.linear(x.float(), layer.router, layer.router_bias)
        scores = scores.sigmoid() if experts.sigmoid else scores.softmax(-1)
        biased = scores if layer.choice_bias is None else scores + layer.choice_bias
        chosen = biased.topk(experts.chosen).indices
        weights = scores.gather(1, chosen)
        if experts.normalized:
            weights = weights / (weights.sum(-1, keepdim=True) + _LEAST_SUM)
        weights = weights * experts.scale
        out = x.new_zeros(x.shape, dtype=torch.float32)
        if layer.shared is not None:
            gate_up, down = layer.shared
            out += down(self._gated(gate_up(x))).float()
            if layer.shared_gate is not None:
                out *= torch.sigmoid(F.linear(x.float(), layer.shared_gate))
        for expert in chosen.unique().tolist():
            rows, rank = (chosen == expert).nonzero(as_tuple=True)
            gate_up, down = layer.mlp[expert]
            part = down(self._gated(gate_up(x[rows])))
            out.index_add_(0, rows, part.float() * weights[rows, rank, None])
        return out.to(x.dtype)

    def logits(self, normed: torch.Tensor) -> torch.Tensor:
        """Return float32 logits [tokens, vocab] of the input of the head."""
        made = self.weights.made
        logits = self.weights.head(normed).float()
        if made.logit_scale != 1:
            logits = logits * made.logit_scale
        cap = made.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def _normed(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        made = self.weights.made
        if weight is None or made.norm == 'rms':
            return self._rms(x, weight)
        weight, bias = weight if made.norm == 'biased' else (weight, None)
        return F.layer_norm(x, weight.shape, weight, bias, made.norm_eps)

    def _rms(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        return x if weight is None else F.rms_norm(x, weight.shape, weight,
                                                   self.weights.made.norm_eps)

    def _added(self, h: torch.Tensor, x: torch.Tensor, norm: torch.Tensor | None) -> torch.Tensor:
        x, scale = self._normed(x, norm), self.weights.made.residual_scale
        return h + (x if scale == 1 else x * scale)

    def _mark(self, qkv: torch.Tensor, layer: DecoderLayer,
              turn: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        """Norm queries and keys of `qkv` [tokens, heads, head_dim], and rotate them, in place."""
        made = self.weights.made
        last = made.heads + made.kv_heads
        if made.qk_norm_last and turn is not None:
            rotate(qkv[:, :last, :turn[0].shape[-1]], *turn)
            turn = None
        if made.qk_norm:
            for part, norm in ((qkv[:, :made.heads], layer.query_norm),
                               (qkv[:, made.heads:last], layer.key_norm)):
                part.copy_(self._normed_heads(part, norm))
        if turn is not None:
            rotate(qkv[:, :last, :turn[0].shape[-1]], *turn)

    def _normed_heads(self, part: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        made = self.weights.made
        if made.qk_norm == 'own':
            normed = F.layer_norm(part, part.shape[2:], eps=made.norm_eps)
            return normed * weight.view(part.shape[1:])
        whole = part.flatten(1) if made.qk_norm == 'all' else part
        return self._rms(whole, weight).view(part.shape)

    def _batch(self, segments: Sequence[Segment]) -> Batch:
        numbers = flatten(segments)
        batch = Batch(self.cache, len(numbers[0]), len(segments), self.device)
        return batch.set(*numbers, [s.slot for s in segments])

    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """As `Runner.greedy`."""
        return fetch(self.forward(segments).argmax(-1))

    def share(self, source: int, slot: int, tokens: int) -> None:
        """As `Runner.share`."""
        self.cache.share(source, slot, tokens)

    def forget(self, slot: int) -> None:
        """As `Runner.forget`: on CPU, memory goes back to the system when no slot has a page."""
        self.cache.forget()

    def fill(self, slots: Sequence[int], ids: Sequence[int]) -> None:
        """As `Runner.fill`, with random numbers."""
        self.cache.fill(list(slots), len(ids))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Apply the rotary position embedding to [tokens, heads, rotary_dim], in place.

    With the first half of `sin` negated, "rotate half" is a swap of halves.
    """
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), -1)
    x.mul_(cos).add_(swapped.mul_(sin))
