# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention over the pages of a cache with torch's operators: one call for each segment."""

from collections.abc import Callable, Sequence
from functools import partial
import math

from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.models.architecture import Architecture
from slice_ros.engine.runners.runner import Segment
import torch
from torch.nn import functional as F

_MASK_COLUMNS = 16  # the row length of a mask is a multiple of this


class TorchAttention:
    """Scaled dot-product attention of each segment over a copy of its own pages.

    Its result depends on its own queries, keys and values only.
    """

    name = 'torch attention'

    def __init__(self, cache: KvCache, made: Architecture) -> None:
        self._cache = cache
        self._windows = [layer.window for layer in made.layers]
        self._shape = (-1, cache.kv_heads, made.heads // cache.kv_heads, made.head_dim)
        self._cap = made.attention_softcap
        self._scale = made.attention_scale

    def prepare(self, segments: Sequence, pages: torch.Tensor
                ) -> Callable[..., torch.Tensor]:
        """Return attend(layer, queries [tokens, heads, head_dim]) -> [tokens, heads * head_dim].

        It may be given the sinks [heads] of the layer too. `attend` is valid for one step over
        `segments`. Their keys and values must be written before it is called, to `pages`
        [segments, pages of a slot], int32.
        """
        spans = [(len(s.ids), s.start + len(s.ids)) for s in segments]
        used = [row[:-(-length // PAGE_TOKENS)] for (_, length), row in zip(spans, pages)]
        masks = {window: [
            self._mask(tokens, length, window) if s.last_seen is None or tokens == 1
            else (self._mask_of(s, window), False) for s, (tokens, length) in zip(segments, spans)]
            for window in set(self._windows)}
        sizes = [tokens for tokens, _ in spans]
        dtype, group = self._cache.data.dtype, self._shape[2]

        def attend(layer: int, queries: torch.Tensor, sinks: torch.Tensor | None = None
                   ) -> torch.Tensor:
            out, window, run = [], self._windows[layer], self._function(sinks)
            queries = queries.to(dtype).view(self._shape)
            for q, (tokens, length), row, (mask, causal) in zip(
                    queries.split(sizes), spans, used, masks[window]):
                k, v = self._cache.read(layer, row, length)
                if tokens == 1:
                    k, v = (x[..., -(window or length):, :] for x in (k, v))
                if tokens == 1 and sinks is None:
                    # The heads of a group are passed as queries of one key-value head.
                    k, v = k.transpose(0, 1), v.transpose(0, 1)
                    out.append(run(q, k, v).view(1, -1))
                else:
                    x = run(
                        q.permute(1, 2, 0, 3), k.expand(-1, group, -1, -1),
                        v.expand(-1, group, -1, -1), attn_mask=mask, is_causal=causal)
                    out.append(x.permute(2, 0, 1, 3).reshape(tokens, -1))
            return out[0] if len(out) == 1 else torch.cat(out)
        return attend

    def _function(self, sinks: torch.Tensor | None) -> Callable[..., torch.Tensor]:
        """Return what computes attention, with the sinks of a layer or none."""
        if not self._cap and sinks is None:
            return partial(F.scaled_dot_product_attention, scale=self._scale)
        grouped = None if sinks is None else sinks.view(*self._shape[1:3], 1, 1)
        return partial(_explicit, scale=self._scale, cap=self._cap, sinks=grouped)

    def _mask_of(self, segment: Segment, window: int | None) -> torch.Tensor:
        """Return which keys each token sees of a segment in which some see later ones."""
        tokens, data = len(segment.ids), self._cache.data
        own = torch.arange(segment.start, segment.start + tokens)[:, None]
        keys = torch.arange(segment.start + tokens)
        seen = keys <= torch.from_numpy(segment.last_seen)[:, None]
        if window:
            seen &= keys > own - window
        if data.device.type == 'cpu':
            return seen
        wide = -(-len(keys) // _MASK_COLUMNS) * _MASK_COLUMNS   # as below
        mask = torch.full((tokens, wide), -math.inf, dtype=data.dtype, device=data.device)
        mask = mask[:, :len(keys)]
        return mask.masked_fill_(seen.to(data.device), 0.0)

    def _mask(self, tokens: int, length: int, window: int | None
              ) -> tuple[torch.Tensor | None, bool]:
        """Return which of `length` keys each of the last `tokens` sees, and if that is `causal`.

        Query i sees the last `window` keys of 0 .. start + i, all without a window.
        """
        start = length - tokens
        if tokens == 1 or start == 0 and not (window and window < length):
            return None, tokens > 1
        data = self._cache.data
        if data.device.type == 'cpu':
            seen = torch.ones(tokens, length, dtype=torch.bool).tril_(start)
            return (seen.triu_(start + 1 - window) if window else seen), False
        # In the layout of the GPU kernels: others are converted again in every layer.
        wide = -(-length // _MASK_COLUMNS) * _MASK_COLUMNS
        mask = torch.full((tokens, wide), -math.inf, dtype=data.dtype, device=data.device)
        hidden = mask.triu(start + 1)
        if window:
            hidden += mask.tril(start - window)
        return hidden[:, :length], False


def _explicit(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, cap: float,
              sinks: torch.Tensor | None, attn_mask: torch.Tensor | None = None,
              is_causal: bool = False) -> torch.Tensor:
    """As `scaled_dot_product_attention`, with scores x as cap * tanh(x / cap), unless cap is 0.

    `sinks` [key-value heads, heads of a group, 1, 1] are scores that no value belongs to.
    """
    scores = q.float() @ k.float().transpose(-1, -2) * scale
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril_()
    if attn_mask is not None:
        scores = (scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool
                  else scores + attn_mask)
    if sinks is None:
        return (scores.softmax(-1) @ v.float()).to(q.dtype)
    column = sinks.expand(*scores.shape[:-1], 1)
    return (torch.cat((scores, column), -1).softmax(-1)[..., :-1] @ v.float()).to(q.dtype)
