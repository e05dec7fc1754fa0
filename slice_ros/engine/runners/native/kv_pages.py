# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the slots of a model keep between steps: keys and values, and the states of some layers."""

from collections.abc import Sequence
import math
import mmap

import numpy as np
from slice_ros.engine.kv.slot_memory import SlotMemory
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.models.architecture import Architecture, kept_layers, state_shape
from slice_ros.engine.runners.native.library import Library

_KEY_TOKENS = 16   # neighbours in a page of keys, number by number; see src/slice_kernels.h


class KvPages:
    """Keys and values of all slots in 16 bit floats, 32 if `wide`, in pages of 32 tokens.

    `table` is the page table [slots, pages of a slot], int32, which `Slots` changes in place: the
    page of each 32 positions of a slot, -1 for none. Two slots may name the same page for a
    prefix that they share, as long as neither writes to it. `states` [recurrent layers, slots,
    numbers of a state] are of the layers that keep no keys; the native step clears one before the
    first token of a slot. Memory is taken from the system when it is first written.
    """

    def __init__(self, library: Library, made: Architecture, table: np.ndarray, pages: int,
                 wide: bool = False) -> None:
        self.pages, self.table = pages, table
        self.wide = wide
        self._layers, self._kv_heads = kept_layers(made), made.kv_heads
        nbytes = kept_layers(made) * self.pages * library.slice_page_bytes(
            wide, made.kv_heads, made.head_dim)
        self._memory = [mmap.mmap(-1, max(nbytes, 1)) for _ in range(2)]
        self.keys, self.values = (np.frombuffer(memory, np.uint8) for memory in self._memory)
        shape = state_shape(made, len(table))
        self._memory.append(mmap.mmap(-1, max(math.prod(shape) * np.float32().itemsize, 1)))
        self.states = np.frombuffer(self._memory[-1], np.float32, math.prod(shape)).reshape(shape)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes + self.states.nbytes

    def memory(self, made_by: str) -> SlotMemory:
        """Return all pages and states as bytes, for copies of prefixes."""
        kept = (self.keys, self.values) if self._layers else ()
        return SlotMemory(
            made_by, [rows.reshape(self._layers, self.pages, -1) for rows in kept],
            [self.states.view(np.uint8)] if self.states.size else [], self._blank)

    def _blank(self, copies: Sequence[np.ndarray], first: int) -> None:
        """Clear the positions from `first` on in copies of a page, [layers, bytes]."""
        if not copies:
            return
        width = np.float32 if self.wide else np.uint16
        keys, values = (copy.view(width).reshape(self._layers, self._kv_heads, PAGE_TOKENS, -1)
                        for copy in copies)
        values[:, :, first:] = 0
        keys = keys.reshape(self._layers, self._kv_heads, PAGE_TOKENS // _KEY_TOKENS, -1,
                            _KEY_TOKENS)
        for part in range(PAGE_TOKENS // _KEY_TOKENS):
            keys[:, :, part, :, max(first - part * _KEY_TOKENS, 0):] = 0

    def give_back(self) -> None:
        """Return the memory of all pages and states to the system; they are lost."""
        if hasattr(mmap, 'MADV_REMOVE'):
            for memory in self._memory:
                try:
                    memory.madvise(mmap.MADV_REMOVE)
                except OSError:
                    pass  # not supported by this kernel: the memory is kept for later requests
