# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The paged KV cache of the torch and CUDA runners: keys and values of all slots."""

from collections.abc import Sequence
import ctypes
import mmap

import numpy as np
from slice_ros.engine.kv.slot_memory import SlotMemory
from slice_ros.engine.kv.slots import PAGE_TOKENS
import torch


class KvCache:
    """One tensor [layers, 2 * kv_heads, pages + 1, PAGE_TOKENS, head_dim]: keys, then values.

    `table` is the page table [slots, pages of a slot], int32, which `Slots` fills: the page of
    each 32 positions of a slot. A place is an index into all positions of all pages. The page
    `scratch` belongs to no slot. On CPU the memory is reserved here and taken from the system
    when it is first written.
    """

    def __init__(self, layers: int, table: np.ndarray, pages: int, kv_heads: int, head_dim: int,
                 dtype: torch.dtype, device: torch.device) -> None:
        self.kv_heads = kv_heads
        self.table = table
        self.pages = self.scratch = pages
        self.data = torch.empty(layers, 2 * kv_heads, pages + 1, PAGE_TOKENS, head_dim,
                                dtype=dtype, device=device)
        self.nbytes = self.data[:, :, :pages].nbytes
        self._release = None
        if device.type == 'cpu' and hasattr(mmap, 'MADV_DONTNEED'):
            self._release = ctypes.CDLL(None).madvise
            self._release.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        # For writing, one view of each layer: [places, 2 * kv_heads, head_dim].
        self._by_place = self.data.flatten(2, 3).transpose(1, 2).unbind(0)

    def places(self, slots: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return the places [tokens] of `positions` of `slots`, each [tokens]."""
        return (self.table[slots, positions // PAGE_TOKENS] * PAGE_TOKENS
                + positions % PAGE_TOKENS)

    def write(self, layer: int, places: torch.Tensor, kv: torch.Tensor) -> None:
        """Store `kv` [tokens, 2 * kv_heads, head_dim] at `places` [tokens]."""
        self._by_place[layer][places] = kv.to(self.data.dtype)

    def read(self, layer: int, pages: torch.Tensor, length: int
             ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return copies of the first `length` keys and values in `pages`, one after the other.

        Each is [kv_heads, 1, length, head_dim].
        """
        both = self.data[layer].index_select(1, pages).flatten(1, 2)[:, None, :length]
        return both[:self.kv_heads], both[self.kv_heads:]

    def share(self, source: int, slot: int, tokens: int) -> None:
        """Copy the part of a page at the end of the first `tokens` positions of slot `source`.

        The whole pages before it are in the row of `slot` in the page table already.
        """
        whole, rest = divmod(tokens, PAGE_TOKENS)
        if rest:
            target, page = self.table[slot, whole], self.table[source, whole]
            self.data[:, :, int(target)] = self.data[:, :, int(page)]

    def forget(self) -> None:
        """Return the memory to the system when no slot has a page. Does nothing on a GPU."""
        if self._release is None or (self.table >= 0).any():
            return
        first = -(-self.data.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (self.data.data_ptr() + self.data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last:
            self._release(first, last - first, mmap.MADV_DONTNEED)

    def memory(self, made_by: str) -> SlotMemory | None:
        """Return all pages as bytes, [layers, pages, 2 * kv_heads, PAGE_TOKENS, bytes of a head].

        None on a GPU.
        """
        if self.data.device.type != 'cpu':
            return None
        rows = self.data.view(torch.uint8).numpy().swapaxes(1, 2)
        return SlotMemory(f'{made_by} {self.data.dtype}', [rows], [], _blank)

    def fill(self, slots: list[int], length: int) -> None:
        """Write random numbers to the pages of the first `length` positions of slots."""
        pages = self.table[slots, :-(-length // PAGE_TOKENS)].ravel()
        self.data[:, :, torch.from_numpy(pages).to(self.data.device)] = torch.randn_like(
            self.data[:, :, :1])


def _blank(copies: Sequence[np.ndarray], first: int) -> None:
    for copy in copies:
        copy[:, :, first:] = 0
