# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The forward pass of the Llama family over one flat batch of tokens."""

from collections.abc import Callable, Sequence

from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.runners.fetch import fetch
from slice_ros.engine.runners.runner import flatten, RunnerInfo, Segment
from slice_ros.engine.runners.torch.attention import TorchAttention
from slice_ros.engine.runners.torch.batch import Batch
from slice_ros.engine.runners.torch.weights import LlamaWeights
import torch
from torch.nn import functional as F


class TorchRunner:
    """A `Runner` that computes all segments, decodes and prefill chunks alike, in one pass."""

    def __init__(self, weights: LlamaWeights, cache: KvCache) -> None:
        self.weights = weights
        self.cache = cache
        self.attention = TorchAttention(cache, weights.heads, weights.head_dim)
        self.device = weights.embedding.device
        self.info = RunnerInfo(
            path='flat batch', kernels=f'{weights.linears} linears, {self.attention.name}',
            pages=cache.pages, weight_bytes=weights.nbytes,
            streamed_bytes=weights.streamed_bytes, kv_bytes=cache.nbytes, shares_prefixes=True,
            asynchronous=self.device.type != 'cpu')

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """As `Runner.forward`."""
        w, cache, attention = self.weights, self.cache, self.attention
        batch = self._batch(segments)
        cos, sin = w.cos[batch.positions], w.sin[batch.positions]
        rotated = w.heads + w.kv_heads
        attend = attention.prepare(segments, batch.pages)
        h = w.embedding[batch.ids].to(w.norm.dtype)
        shape, hidden = (len(h), rotated + w.kv_heads, w.head_dim), h.shape[1:]
        for i, layer in enumerate(w.layers):
            qkv = layer.qkv(F.rms_norm(h, hidden, layer.input_norm, w.norm_eps)).view(shape)
            _rotate(qkv[:, :rotated], cos, sin)
            cache.write(i, batch.places, qkv[:, w.heads:])
            h = h + layer.output(attend(i, qkv[:, :w.heads]))
            x = layer.gate_up(F.rms_norm(h, hidden, layer.post_norm, w.norm_eps))
            x = F.silu(x[:, :w.intermediate]).mul_(x[:, w.intermediate:])
            h = h + layer.down(x)
        if not len(batch.last):
            return h.new_empty(0, 0)
        h = h if len(batch.last) == len(h) else h[batch.last]
        return w.head(F.rms_norm(h, hidden, w.norm, w.norm_eps)).float()

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


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    # Rotary position embedding of [tokens, heads, head_dim], in place. With the first half of
    # `sin` negated, "rotate half" is a swap of halves.
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), -1)
    x.mul_(cos).add_(swapped.mul_(sin))
