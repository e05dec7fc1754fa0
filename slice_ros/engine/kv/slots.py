# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Who holds which part of the KV cache: slots, their pages, and prefixes kept for later requests.

A slot is a row of the page table; a page holds the keys and values of `PAGE_TOKENS` neighbouring
positions. A slot that its request gave up is kept, with what it holds, until its room is needed:
the next request that begins with the same tokens takes them over. Pages are counted by the slots
that name them and written to only by the slot that took them.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

PAGE_TOKENS = 32   # tokens in a page of keys and values; the native kernels have the same number


def page_table(slots: int, max_context: int) -> np.ndarray:
    """Return an empty page table, int32 [slots, pages of `max_context` tokens]: -1 is no page."""
    return np.full((slots, -(-max_context // PAGE_TOKENS)), -1, np.int32)


class Slots:
    """Slots and pages of a KV cache; `table` [slots, pages of a slot], int32, says where they are.

    -1 is no page. The forward pass reads the same table, or keeps a slot's positions in a place
    of its own and uses the pages as a count alone.
    """

    def __init__(self, table: np.ndarray, pages: int) -> None:
        table.fill(-1)
        self.count = len(table)
        self._table = table
        self._free = list(range(self.count - 1, -1, -1))  # slots are handed out lowest first
        self._free_pages = list(range(pages - 1, -1, -1))
        self._named = np.zeros(pages, np.int32)   # by how many slots a page is named
        self._length = [0] * self.count           # pages of each slot
        self._kept: OrderedDict[int, Sequence[int]] = OrderedDict()  # slot -> tokens, oldest first
        self.dropped: list[int] = []              # slots that lost what they held

    @property
    def free(self) -> int:
        """Slots that no request holds."""
        return len(self._free) + len(self._kept)

    def take(self) -> int:
        """Return an empty slot. Raises ``IndexError`` when requests hold them all."""
        if not self._free and self._kept:
            self._drop()
        return self._free.pop()

    def give(self, slot: int) -> None:
        """Return a slot that was taken, and what it holds."""
        names = self._table[slot, :self._length[slot]]
        self._named[names] -= 1
        self._free_pages += names[self._named[names] == 0].tolist()
        self._table[slot] = -1
        self._length[slot] = 0
        self._free.append(slot)
        self.dropped.append(slot)

    def keep(self, slot: int, tokens: Sequence[int]) -> None:
        """Return a slot that holds the keys and values of `tokens`, for a later request."""
        if len(tokens) < PAGE_TOKENS:
            self.give(slot)
        else:
            self._kept[slot] = tokens

    def reserve(self, needs: Iterable[tuple[int, int]]) -> None:
        """Have pages for the first `length` positions of each (slot, length).

        Raises ``MemoryError`` when requests hold all pages; nothing has changed then but for
        prefixes that are kept no more.
        """
        wanted = []
        missing = 0
        for slot, length in needs:
            more = -(-length // PAGE_TOKENS) - self._length[slot]
            if more > 0:
                wanted.append((slot, more))
                missing += more
        while missing > len(self._free_pages):
            if not self._kept:
                raise MemoryError(f'the KV cache is full: {missing} pages of {PAGE_TOKENS} tokens '
                                  f'are needed, {len(self._free_pages)} are left')
            self._drop()
        for slot, more in wanted:
            taken = self._free_pages[-more:]
            del self._free_pages[-more:]
            self._add(slot, taken)

    def share(self, source: int, tokens: int) -> int | None:
        """Return a slot with pages for the first `tokens` positions of another, None if no room.

        It names the other's whole pages; the rest, a part of a page, is to be copied.
        """
        kept = self._kept.pop(source, None)  # it must not be dropped meanwhile
        try:
            if not self.free:
                return None
            slot = self.take()
            self._add(slot, self._table[source, :tokens // PAGE_TOKENS].copy())
            try:
                self.reserve([(slot, tokens)])
            except MemoryError:
                self.give(slot)
                return None
            return slot
        finally:
            if kept is not None:
                self._kept[source] = kept  # used just now

    def longest_prefix(self, tokens: Sequence[int],
                       live: Iterable[tuple[int, Sequence[int], int]]) -> tuple[int, int]:
        """Return (slot, how many) of the most first `tokens` held, by a kept slot or a live one.

        `live` are (slot, its tokens, how many of them are held). Less than a page is not worth
        the while: it is (-1, 0) then.
        """
        best, most = -1, PAGE_TOKENS - 1
        for slot, held, length in [*live, *((s, t, len(t)) for s, t in self._kept.items())]:
            same = _common(tokens, held, min(length, len(tokens) - 1), most)
            if same > most:
                best, most = slot, same
        return (best, most) if best >= 0 else (-1, 0)

    def _add(self, slot: int, pages: Sequence[int]) -> None:
        at = self._length[slot]
        self._table[slot, at:at + len(pages)] = pages
        self._length[slot] += len(pages)
        self._named[pages] += 1

    def _drop(self) -> None:
        slot, _ = self._kept.popitem(last=False)
        self.give(slot)


def _common(a: Sequence[int], b: Sequence[int], limit: int, least: int) -> int:
    """Return how many first numbers are equal, up to `limit`; 0 if not more than `least`."""
    if limit <= least or a[:least] != b[:least]:
        return 0
    low, high = least, limit  # equal up to low; not known beyond
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
