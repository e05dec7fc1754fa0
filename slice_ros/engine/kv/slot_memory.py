# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a runner keeps of slots, as bytes: copied out and in again, a small piece at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from slice_ros.engine.kv.slots import PAGE_TOKENS

PIECE = 1 << 20   # bytes that are copied at once: some tenths of a millisecond


@dataclass(frozen=True, slots=True)
class SlotMemory:
    """Keys, values and states of all slots, uint8, as they lie in memory.

    What is written to the arrays is what the next step reads. A prefix is copied as whole pages;
    `blank` clears in a copy of its last page, [layers, ...] of each of `pages`, the positions from
    a number on: what others have left there must not get out.
    """

    made_by: str                    # what decides the bits, beside the model: code and its version
    pages: Sequence[np.ndarray]     # each [layers, pages, ...]
    states: Sequence[np.ndarray]    # each [layers, slots, ...]
    blank: Callable[[Sequence[np.ndarray], int], None]

    def layout(self) -> tuple:
        """Return what two memories have in common whose copies have the same meaning."""
        return self.made_by, PAGE_TOKENS, [
            (len(rows), rows.shape[2:]) for rows in (*self.pages, *self.states)]


class Piece(NamedTuple):
    """Neighbouring layers of a page or of a state, and their place in a copy of a prefix."""

    rows: np.ndarray    # one of the arrays of the memory
    page: int | None    # number of the page within its slot; None: a state
    layers: slice
    begin: int          # in bytes
    end: int

    def of(self, slot: int, table: np.ndarray) -> np.ndarray:
        """Return the bytes of this piece in the memory of a slot, by the page table."""
        return self.rows[self.layers, slot if self.page is None else table[slot, self.page]]


def pieces(memory: SlotMemory, tokens: int) -> Iterator[Piece]:
    """Return what a prefix of so many tokens consists of, in the order of a copy."""
    begin = 0
    parts = [(rows, page) for page in range(pages_of(tokens)) for rows in memory.pages]
    for rows, page in [*parts, *((rows, None) for rows in memory.states)]:
        layer_bytes = rows[:1, 0].size
        step = max(PIECE // max(layer_bytes, 1), 1)
        for first in range(0, len(rows), step):
            layers = slice(first, min(first + step, len(rows)))
            end = begin + (layers.stop - first) * layer_bytes
            yield Piece(rows, page, layers, begin, end)
            begin = end


def copy_bytes(memory: SlotMemory, tokens: int) -> int:
    """Return the size of a copy of a prefix of so many tokens."""
    return (pages_of(tokens) * sum(rows[:, 0].size for rows in memory.pages)
            + sum(rows[:, 0].size for rows in memory.states))


def clear_rest(memory: SlotMemory, copy: np.ndarray, tokens: int) -> None:
    """Clear in the copy of a prefix what is behind its `tokens` in their last page."""
    if not tokens % PAGE_TOKENS:
        return
    begin, last = (pages_of(tokens) - 1) * sum(rows[:, 0].size for rows in memory.pages), []
    for rows in memory.pages:
        shape = rows[:, 0].shape
        end = begin + rows[:, 0].size
        last.append(copy[begin:end].reshape(shape))
        begin = end
    memory.blank(last, tokens % PAGE_TOKENS)


def pages_of(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS)
