# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the slots of a model keep between steps: keys and values, and the states of some layers."""

import math
import mmap

import numpy as np
from slice_ros.engine.models.architecture import Architecture, kept_layers, state_shape
from slice_ros.engine.runners.native.library import Library


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

    def give_back(self) -> None:
        """Return the memory of all pages and states to the system; they are lost."""
        if hasattr(mmap, 'MADV_REMOVE'):
            for memory in self._memory:
                try:
                    memory.madvise(mmap.MADV_REMOVE)
                except OSError:
                    pass  # not supported by this kernel: the memory is kept for later requests
