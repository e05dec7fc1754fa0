"""Keys and values of every request in progress, in slots allocated once."""

from collections.abc import Sequence
import ctypes
import mmap

import torch


class KvCache:
    """One tensor [layers, slots, 2 * kv_heads, max_context, head_dim]: keys, then values.

    A request's keys of one head lie one behind the other, so that attention reads them in place
    by slot and length. On CPU the memory is reserved here and taken page by page when written.
    """

    def __init__(self, layers: int, slots: int, kv_heads: int, max_context: int, head_dim: int,
                 dtype: torch.dtype, device: torch.device) -> None:
        self.kv_heads = kv_heads
        self.max_context = max_context
        self.data = torch.empty(layers, slots, 2 * kv_heads, max_context, head_dim,
                                dtype=dtype, device=device)
        # By [slot, position], for writing: a tuple with one view a layer.
        self._release = None
        if device.type == 'cpu' and hasattr(mmap, 'MADV_DONTNEED'):
            self._release = ctypes.CDLL(None).madvise
            self._release.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._by_position = self.data.transpose(2, 3).unbind(0)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def write(self, layer: int, slots: torch.Tensor, positions: torch.Tensor,
              kv: torch.Tensor) -> None:
        """Store `kv` [tokens, 2 * kv_heads, head_dim] at (`slots`, `positions`), each [tokens]."""
        self._by_position[layer][slots, positions] = kv.to(self.data.dtype)

    def read(self, slot: int, length: int) -> tuple[tuple[torch.Tensor, ...], ...]:
        """Return views of the first `length` keys and values of a slot.

        Two tuples with one view [kv_heads, 1, length, head_dim] a layer.
        """
        both = self.data[:, slot, :, :length].unsqueeze(2)
        return both[:, :self.kv_heads].unbind(0), both[:, self.kv_heads:].unbind(0)

    def copy(self, source: int, slot: int, length: int) -> None:
        """Copy the first `length` positions of a slot to another."""
        self.data[:, slot, :, :length] = self.data[:, source, :, :length]

    def forget(self, slot: int) -> None:
        """Give the memory of a slot back to the system, where it is the system's (CPU, Linux)."""
        if self._release is None:
            return
        for layer in range(len(self.data)):
            part = self.data[layer, slot]
            first = -(-part.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
            last = (part.data_ptr() + part.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
            if first < last:
                self._release(first, last - first, mmap.MADV_DONTNEED)

    def fill(self, slots: Sequence[int], length: int) -> None:
        """Write numbers into the first `length` positions of slots, quickly."""
        first = self.data[:, slots[0], :, :length].normal_()
        for slot in slots[1:]:
            self.data[:, slot, :, :length] = first
