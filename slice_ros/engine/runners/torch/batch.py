# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The index numbers of a step, sent to the device in one copy."""

import numpy as np
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import PAGE_TOKENS
import torch

_ALIGNED = 4  # int32: Triton compiles again for pointers that are no multiple of 16 bytes


class Batch:
    """The index numbers of a step over `tokens` of `requests`, int32 on the device.

    `ids`, `positions` and `places` (in `cache`) are [tokens]; `pages` [requests, pages of a slot]
    are the rows of the page table; `last` [logits] are the indices of the tokens whose logits are
    wanted. Tokens and requests that are not set use the first place of the scratch page.
    """

    def __init__(self, cache: KvCache, tokens: int, requests: int, device: torch.device,
                 pinned: bool = False) -> None:
        self._cache = cache
        wide = -(-tokens // _ALIGNED) * _ALIGNED
        self._host = torch.zeros(4 * wide + requests * cache.table.shape[1], dtype=torch.int32,
                                 pin_memory=pinned)
        self._numbers = self._host[:4 * wide].view(4, wide).numpy()
        self._table = self._host[4 * wide:].view(requests, -1).numpy()
        self._device = torch.empty_like(self._host, device=device)
        self.ids, self.positions, self.places, self._last = (
            self._device[:4 * wide].view(4, wide)[:, :tokens].unbind(0))
        self.pages = self._device[4 * wide:].view(requests, -1)
        self.last = self._last[:0]

    def set(self, ids: list[int], slots: list[int], positions: list[int], last: list[int],
            owners: list[int], at: np.ndarray | None = None) -> 'Batch':
        """Send token `ids` at `positions` of `slots`; `owners` are the slots of the requests.

        They become tokens 0, 1 ..., or those with the indices `at`. Returns before the copy is
        done; the next call must wait for it.
        """
        numbers, where = self._numbers, slice(len(ids)) if at is None else at
        numbers[:2] = 0
        numbers[2] = self._cache.scratch * PAGE_TOKENS
        numbers[0, where], numbers[1, where] = ids, positions
        numbers[2, where] = self._cache.places(slots, numbers[1, where])
        numbers[3, :len(last)] = last
        self._table[:len(owners)] = self._cache.table[owners]
        self._table[len(owners):] = self._cache.scratch
        self._device.copy_(self._host, non_blocking=True)
        self.last = self._last[:len(last)]
        return self
