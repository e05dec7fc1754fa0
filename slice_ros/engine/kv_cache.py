"""Keys and values of every request in progress, in slots allocated once."""

from collections.abc import Sequence

import torch


class Slots:
    """Which slots are free; slots are handed out lowest first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """Return a free slot. Raises ``IndexError`` when there is none."""
        return self._free.pop()

    def give(self, slot: int) -> None:
        """Return a slot that was taken."""
        self._free.append(slot)


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
        self._by_position = self.data.transpose(2, 3).unbind(0)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def write(self, layer: int, slots: torch.Tensor, positions: torch.Tensor,
              kv: torch.Tensor) -> None:
        """Store `kv` [tokens, 2 * kv_heads, head_dim] at (`slots`, `positions`), each [tokens]."""
        self._by_position[layer][slots, positions] = kv

    def read(self, slot: int, length: int) -> tuple[tuple[torch.Tensor, ...], ...]:
        """Return views of the first `length` keys and values of a slot.

        Two tuples with one view [kv_heads, 1, length, head_dim] a layer.
        """
        both = self.data[:, slot, :, :length].unsqueeze(2)
        return both[:, :self.kv_heads].unbind(0), both[:, self.kv_heads:].unbind(0)

    def fill(self, slots: Sequence[int], length: int) -> None:
        """Write numbers into the first `length` positions of slots, quickly."""
        first = self.data[:, slots[0], :, :length].normal_()
        for slot in slots[1:]:
            self.data[:, slot, :, :length] = first
