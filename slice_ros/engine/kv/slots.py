# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Slots, their pages, and prefixes kept for later requests.

A slot is a row of the page table. A page has the keys and values of `PAGE_TOKENS` neighbouring
positions. A slot that its request gave up is kept, with its pages, until its room is needed: a
later request that begins with the same tokens takes them over. Several slots may name one page;
only the slot that took the page writes to it.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

KEPT_SLOTS = 4     # beyond those of requests: so many prefixes stay when requests own all others
PARKED = -2        # in place of an adapter, one that no request has
PAGE_TOKENS = 32   # tokens in a page of keys and values; the native kernels have the same number


def page_table(slots: int, max_context: int) -> np.ndarray:
    """Return an empty page table, int32 [slots, pages of `max_context` tokens]: -1 is no page."""
    return np.full((slots, -(-max_context // PAGE_TOKENS)), -1, np.int32)


class Kept(NamedTuple):
    """A prefix whose request has given up its slot."""

    tokens: Sequence[int]
    owner: str   # class of that request
    pin: bool    # it is dropped after all that are not pinned
    adapter: int = -1   # that they were computed with; -1 = none; or `PARKED`


class Slots:
    """Gives out slots and pages of a KV cache by writing to its page `table`.

    `table` is int32 [slots, pages of a slot], with -1 for no page; it is cleared. Runners read
    the same table; one with caches of its own uses the pages as a count alone. Requests own all
    slots but `spare` at most. When room is needed, the oldest prefix of the owner with the most
    is dropped: many requests of one class leave the prefixes of the others.
    """

    def __init__(self, table: np.ndarray, pages: int, spare: int = 0) -> None:
        table.fill(-1)
        self.count = len(table) - spare
        self._table = table
        self._free = list(range(len(table) - 1, -1, -1))  # the lowest slot is given out first
        self._free_pages = list(range(pages - 1, -1, -1))
        self._named = np.zeros(pages, np.int32)   # how many slots name each page
        self._length = [0] * len(table)           # pages of each slot
        self._kept: OrderedDict[int, Kept] = OrderedDict()   # by slot, oldest first
        self.dropped: list[int] = []              # slots without pages; the runner must forget

    @property
    def free(self) -> int:
        """Number of slots that requests may own, and that none owns."""
        return len(self._free) + len(self._kept) - (len(self._table) - self.count)

    def take(self) -> int:
        """Return an empty slot. Raises ``IndexError`` when requests own them all."""
        if not self._free and self._kept:
            self._drop()
        return self._free.pop()

    def give(self, slot: int) -> None:
        """Free a slot and its pages."""
        names = self._table[slot, :self._length[slot]]
        self._named[names] -= 1
        self._free_pages += names[self._named[names] == 0].tolist()
        self._table[slot] = -1
        self._length[slot] = 0
        self._free.append(slot)
        self.dropped.append(slot)

    def keep(self, slot: int, tokens: Sequence[int], owner: str = '', pin: bool = False,
             adapter: int = -1) -> None:
        """Free a slot, but keep its keys and values, of `tokens`, for a later request.

        It must have the same `adapter`. With `pin` they are dropped after all that are not pinned.
        """
        if len(tokens) < PAGE_TOKENS:
            self.give(slot)
        else:
            self._kept[slot] = Kept(tokens, owner, pin, adapter)

    def kept_slot(self, tokens: Sequence[int]) -> int | None:
        """Return a slot that keeps exactly `tokens`, computed without an adapter, or None."""
        return next((slot for slot, kept in self._kept.items()
                     if kept.adapter == -1 and kept.tokens == tokens), None)

    def pinned(self, tokens: Sequence[int]) -> bool:
        """Return whether exactly `tokens` are kept and pinned, computed without an adapter."""
        return any(kept.pin and kept.tokens == tokens and kept.adapter == -1
                   for kept in self._kept.values())

    def pin(self, tokens: Sequence[int]) -> bool:
        """Pin `tokens` where exactly they are kept, and return whether they are."""
        slot = self.kept_slot(tokens)
        if slot is None:
            return False
        self._kept[slot] = self._kept[slot]._replace(pin=True)
        return True

    def park(self, slot: int, tokens: Sequence[int]) -> None:
        """Keep a slot whose keys and values are not complete: none can share, all can drop it."""
        self._kept[slot] = Kept(tokens, '', False, PARKED)

    def unpark(self, slot: int, tokens: Sequence[int]) -> bool:
        """Take a parked slot back; return False if it was dropped."""
        kept = self._kept.get(slot)
        if kept is None or kept.adapter != PARKED or kept.tokens is not tokens:
            return False
        del self._kept[slot]
        return True

    def unpin(self) -> None:
        """Treat all kept prefixes alike from now on."""
        for slot, kept in self._kept.items():
            self._kept[slot] = kept._replace(pin=False)

    def reserve(self, needs: Iterable[tuple[int, int]]) -> None:
        """Give each (slot, length) the pages of its first `length` positions.

        Raises ``MemoryError`` when too few pages are left; no slot of a request has changed then,
        but kept prefixes are dropped.
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
        """Return a new slot with pages for the first `tokens` positions of slot `source`.

        It names the whole pages of `source`; a part of a page at the end has to be copied
        (`Runner.share`). None when there is no slot or page left.
        """
        allowed = self.free
        kept = self._kept.pop(source, None)  # protects it from being dropped
        try:
            if not (allowed and (self._free or self._kept)):
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
                self._kept[source] = kept  # the most recently used

    def longest_prefix(self, tokens: Sequence[int],
                       live: Iterable[tuple[int, Sequence[int], int]], adapter: int = -1,
                       whole: bool = False) -> tuple[int, int]:
        """Return (slot, length) of the longest cached prefix of `tokens`, or (-1, 0) for none.

        `live` are (slot, its tokens, how many of these are cached); kept slots of the same
        `adapter` are searched too. The last of `tokens` is left out, and a prefix shorter than a
        page counts as none. With `whole`, so does a part of what a slot has cached.
        """
        best, most = -1, PAGE_TOKENS - 1
        kept = ((s, k.tokens, len(k.tokens)) for s, k in self._kept.items()
                if k.adapter == adapter)
        for slot, cached, length in [*live, *kept]:
            same = _common(tokens, cached, min(length, len(tokens) - 1), most)
            if same > most and not (whole and same < length):
                best, most = slot, same
        return (best, most) if best >= 0 else (-1, 0)

    def _add(self, slot: int, pages: Sequence[int]) -> None:
        at = self._length[slot]
        self._table[slot, at:at + len(pages)] = pages
        self._length[slot] += len(pages)
        self._named[pages] += 1

    def _drop(self) -> None:
        kept = self._kept
        count = Counter(prefix.owner for prefix in kept.values())
        # The first, the oldest, of several.
        slot = min(kept, key=lambda slot: (kept[slot].pin, -count[kept[slot].owner]))
        del kept[slot]
        self.give(slot)


def _common(a: Sequence[int], b: Sequence[int], limit: int, least: int) -> int:
    """Return the length of the common prefix, up to `limit`; 0 if not more than `least`."""
    if limit <= least or a[:least] != b[:least]:
        return 0
    low, high = least, limit  # equal up to low; unknown beyond
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
