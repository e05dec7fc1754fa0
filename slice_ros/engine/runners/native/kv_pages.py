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
_NUMBERS = {8: np.int8, 16: np.uint16, 32: np.float32}   # by bits


def kv_bits_of(kv: str, weights: str) -> int:
    """Return the bits of a key or value: those of `kv`; with 'auto' 16, or 32 with 'fp32'."""
    if kv == 'auto':
        return 32 if weights == 'fp32' else 16
    return int(kv)


class KvPages:
    """Keys and values of all slots in `bits` bits, in pages of 32 tokens.

    With 16 or 32 bits these are floats, with 8 codes, and a 16 bit scale for each 32 of them.
    `table` is the page table [slots, pages of a slot], int32, which `Slots` changes in place: the
    page of each 32 positions of a slot, -1 for none. Two slots may name the same page for a
    prefix that they share, as long as neither writes to it. `states` [recurrent layers, slots,
    numbers of a state] are of the layers that keep no keys; the native step clears one before the
    first token of a slot. Memory is taken from the system when it is first written.
    """

    def __init__(self, library: Library, made: Architecture, table: np.ndarray, pages: int,
                 bits: int) -> None:
        self.pages, self.table = pages, table
        self.bits, self._layers = bits, kept_layers(made)
        self._kv_heads, self._width = made.kv_heads, -(-made.head_dim // _KEY_TOKENS) * _KEY_TOKENS
        nbytes = kept_layers(made) * self.pages * library.slice_page_bytes(
            bits, made.kv_heads, made.head_dim)
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
        end = PAGE_TOKENS * self._width * self.bits // 8   # of the numbers of a head
        for copy in copies:
            heads = copy.reshape(self._layers, self._kv_heads, -1)
            numbers = heads[..., :end].view(_NUMBERS[self.bits])
            if copy is copies[0]:
                keys = numbers.reshape(*heads.shape[:2], -1, self._width, _KEY_TOKENS)
                for part in range(PAGE_TOKENS // _KEY_TOKENS):
                    keys[:, :, part, :, max(first - part * _KEY_TOKENS, 0):] = 0
            else:
                numbers.reshape(*heads.shape[:2], PAGE_TOKENS, -1)[:, :, first:] = 0
            scales = heads[..., end:].view(np.uint16)
            scales.reshape(*heads.shape[:2], -1, PAGE_TOKENS)[..., first:] = 0

    def give_back(self) -> None:
        """Return the memory of all pages and states to the system; they are lost."""
        if hasattr(mmap, 'MADV_REMOVE'):
            for memory in self._memory:
                try:
                    memory.madvise(mmap.MADV_REMOVE)
                except OSError:
                    pass  # not supported by this kernel: the memory is kept for later requests
