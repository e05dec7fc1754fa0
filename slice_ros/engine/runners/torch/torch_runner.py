# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The forward pass of a described decoder over one flat batch of tokens."""

from collections.abc import Callable, Sequence
from functools import partial

from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.runners.fetch import fetch
from slice_ros.engine.runners.runner import flatten, RunnerInfo, Segment
from slice_ros.engine.runners.torch.attention import TorchAttention
from slice_ros.engine.runners.torch.batch import Batch
from slice_ros.engine.runners.torch.weights import DecoderLayer, DecoderWeights
import torch
from torch.nn import functional as F

_ACTIVATIONS = {'silu': F.silu, 'gelu': partial(F.gelu, approximate='tanh')}


class TorchRunner:
    """A `Runner` that computes all segments, decodes and prefill chunks alike, in one pass."""

    def __init__(self, weights: DecoderWeights, cache: KvCache) -> None:
        self.weights = weights
        self.cache = cache
        self.attention = TorchAttention(cache, weights.made)
        self._activate = _ACTIVATIONS[weights.made.activation]
        self.device = weights.embedding.device
        self.info = RunnerInfo(
            path='flat batch', kernels=f'{weights.linears} linears, {self.attention.name}',
            pages=cache.pages, weight_bytes=weights.nbytes,
            streamed_bytes=weights.streamed_bytes, kv_bytes=cache.nbytes, shares_prefixes=True,
            asynchronous=self.device.type != 'cpu', weights=weights.kinds)

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """As `Runner.forward`."""
        w, cache, made = self.weights, self.cache, self.weights.made
        batch = self._batch(segments)
        turns = [(cos[batch.positions], sin[batch.positions]) for cos, sin in w.ropes]
        attend = self.attention.prepare(segments, batch.pages)
        h = w.embedding[batch.ids].to(w.norm.dtype)
        if made.embedding_scale != 1:
            h = h * made.embedding_scale
        shape = (len(h), made.heads + 2 * made.kv_heads, made.head_dim)
        for i, (layer, kind) in enumerate(zip(w.layers, made.layers)):
            qkv = layer.qkv(self._normed(h, layer.attention_norm)).view(shape)
            self._mark(qkv, layer, None if kind.rope is None else turns[kind.rope])
            cache.write(i, batch.places, qkv[:, made.heads:])
            x = layer.output(attend(i, qkv[:, :made.heads]))
            h = self._added(h, x, layer.attention_out_norm)
            x = layer.gate_up(self._normed(h, layer.mlp_norm))
            x = self._activate(x[:, :made.intermediate]).mul_(x[:, made.intermediate:])
            h = self._added(h, layer.down(x), layer.mlp_out_norm)
        if not len(batch.last):
            return h.new_empty(0, 0)
        h = h if len(batch.last) == len(h) else h[batch.last]
        return self.logits(self._normed(h, w.norm))

    def logits(self, normed: torch.Tensor) -> torch.Tensor:
        """Return float32 logits [tokens, vocab] of the input of the head."""
        made = self.weights.made
        logits = self.weights.head(normed).float()
        if made.logit_scale != 1:
            logits = logits * made.logit_scale
        cap = made.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def _normed(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
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
        if made.qk_norm:
            for part, norm in ((qkv[:, :made.heads], layer.query_norm),
                               (qkv[:, made.heads:last], layer.key_norm)):
                whole = part.flatten(1) if made.qk_norm == 'all' else part
                part.copy_(self._normed(whole, norm).view(part.shape))
        if turn is not None:
            rotate(qkv[:, :last, :turn[0].shape[-1]], *turn)

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
