# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention over the pages of a cache with torch's operators: one call for each segment."""

from collections.abc import Callable, Sequence
import math

from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import PAGE_TOKENS
import torch
from torch.nn import functional as F

_MASK_COLUMNS = 16  # the row length of a mask is a multiple of this


class TorchAttention:
    """Scaled dot-product attention of each segment over a copy of its own pages.

    Its result depends on its own queries, keys and values only.
    """

    name = 'torch attention'

    def __init__(self, cache: KvCache, heads: int, head_dim: int) -> None:
        self._cache = cache
        self._kv_heads = cache.kv_heads
        self._group = heads // cache.kv_heads
        self._head_dim = head_dim

    def prepare(self, segments: Sequence, pages: torch.Tensor
                ) -> Callable[[int, torch.Tensor], torch.Tensor]:
        """Return attend(layer, queries [tokens, heads, head_dim]) -> [tokens, heads * head_dim].

        `attend` is valid for one step over `segments`. Their keys and values must be written
        before it is called, to `pages` [segments, pages of a slot], int32.
        """
        plan = []
        for s, row in zip(segments, pages):
            tokens, length = len(s.ids), s.start + len(s.ids)
            plan.append((tokens, row[:-(-length // PAGE_TOKENS)], length,
                         self._mask(s.start, tokens), tokens > 1 and s.start == 0))
        sizes = [p[0] for p in plan]
        shape = (-1, self._kv_heads, self._group, self._head_dim)
        dtype = self._cache.data.dtype

        def attend(layer: int, queries: torch.Tensor) -> torch.Tensor:
            out = []
            queries = queries.to(dtype).view(shape)
            for q, (tokens, used, length, mask, causal) in zip(queries.split(sizes), plan):
                k, v = self._cache.read(layer, used, length)
                if tokens == 1:
                    # The heads of a group are passed as queries of one key-value head.
                    x = F.scaled_dot_product_attention(q, k.transpose(0, 1), v.transpose(0, 1))
                    out.append(x.view(1, -1))
                else:
                    x = F.scaled_dot_product_attention(
                        q.permute(1, 2, 0, 3), k.expand(-1, self._group, -1, -1),
                        v.expand(-1, self._group, -1, -1), attn_mask=mask, is_causal=causal)
                    out.append(x.permute(2, 0, 1, 3).reshape(tokens, -1))
            return out[0] if len(out) == 1 else torch.cat(out)
        return attend

    def _mask(self, start: int, tokens: int) -> torch.Tensor | None:
        # A chunk after cached tokens: query i sees keys 0 .. start + i.
        if tokens == 1 or start == 0:
            return None
        data, keys = self._cache.data, start + tokens
        if data.device.type == 'cpu':
            return torch.ones(tokens, keys, dtype=torch.bool).tril_(start)
        # In the layout of the GPU kernels: others are converted again in every layer.
        wide = -(-keys // _MASK_COLUMNS) * _MASK_COLUMNS
        mask = torch.full((tokens, wide), -math.inf, dtype=data.dtype, device=data.device)
        return mask.triu_(start + 1)[:, :keys]
