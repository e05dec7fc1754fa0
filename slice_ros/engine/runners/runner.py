# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The `Runner` protocol: how a forward pass is asked for, and what a runner can do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch


class Segment(NamedTuple):
    """Consecutive tokens of one request: ids[i] goes to position start + i of its slot.

    One id is a decode step or the end of a prompt; more are a prefill chunk.
    """

    slot: int
    start: int
    ids: Sequence[int]
    wants_logits: bool  # the last of these tokens is the last pending one


@dataclass(frozen=True, slots=True)
class RunnerInfo:
    """What a runner is and what it can do; fixed when it is built."""

    path: str              # 'flat batch' | 'transformers'
    kernels: str           # implementations of attention and linears, in words
    pages: int             # of the KV cache; slots name them in the page table
    weight_bytes: int      # memory of the weights
    streamed_bytes: int    # of these, what each step reads
    kv_bytes: int          # memory of all pages; 0 = the cache grows with the requests
    shares_prefixes: bool  # slots may name the same pages; else `share` must not be called
    asynchronous: bool     # a step computes by itself while the host goes on
    weights: str | None = None  # of the layers, if they are not what was asked for


class Runner(Protocol):
    """Runs forward passes over segments, and keeps the keys and values of the slots.

    A runner knows slots and token ids, never requests. It reads where the pages of a slot are
    from the page table that it was built with; `Slots` changes this table between the calls. All
    methods are for one thread. Errors of the device or of memory pass through; positions that
    were written by a failed pass are fed again by the next.
    """

    info: RunnerInfo

    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Feed all `segments`; return float32 logits [segments that want them, vocab].

        The rows are in the order of the segments; the shape is [0, 0] or [0, vocab] when none
        wants logits. The next call may write over them.
        """

    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """Feed all `segments`; return a function that gives the next tokens.

        That function waits for the device. It returns the token id of the largest logit of each
        segment that wants logits, in order, and lets errors of the device through.
        """

    def share(self, source: int, slot: int, tokens: int) -> None:
        """Make the first `tokens` positions of slot `source` readable in `slot` too.

        The whole pages are in the row of `slot` of the page table already: only a part of a page
        is copied. Raises ``NotImplementedError`` unless `info.shares_prefixes`.
        """

    def forget(self, slot: int) -> None:
        """Release what the runner keeps for a slot that has no page any more."""

    def fill(self, slots: Sequence[int], ids: Sequence[int]) -> None:
        """Put any keys and values into the first `len(ids)` positions of `slots`.

        Used before steps are timed. Their pages are reserved already.
        """


def flatten(segments: Sequence[Segment]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return (ids, slots, positions) of all tokens, and the indices whose logits are wanted."""
    ids, slots, positions, last = [], [], [], []
    for s in segments:
        ids += s.ids
        slots += [s.slot] * len(s.ids)
        positions += range(s.start, s.start + len(s.ids))
        if s.wants_logits:
            last.append(len(ids) - 1)
    return ids, slots, positions, last
