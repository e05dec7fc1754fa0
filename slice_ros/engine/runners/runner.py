# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The `Runner` protocol: how a forward pass is asked for, and what a runner can do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TYPE_CHECKING

import numpy as np
from slice_ros.engine.kv.slot_memory import SlotMemory

if TYPE_CHECKING:
    import torch


NO_ADAPTER = -1


class Segment(NamedTuple):
    """Consecutive tokens of one request: ids[i] goes to position start + i of its slot.

    One id is a decode step or the end of a prompt; more are a prefill chunk, or a decode step with
    tokens behind its last one. Of these the last `drafts` are guesses: the logits of the token
    before them and of each of them are wanted.
    """

    slot: int
    start: int
    ids: Sequence[int]
    wants_logits: bool  # the last of these tokens, but for drafts, is the last pending one
    drafts: int = 0     # not with a runner that does not verify them
    adapter: int = NO_ADAPTER  # index in `RunnerInfo.adapters` of what is added to the weights
    # At these indices of ids, rows [n, width] begin that layers get instead of embeddings.
    inputs: Sequence[tuple[int, np.ndarray]] = ()
    # What ropes turn each of `ids` by, int32 [ids, 3], see `Rope.axes`; None: its position.
    rope_positions: np.ndarray | None = None
    # The position up to which each of `ids` attends, int32 [ids]; None: its own.
    last_seen: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class RunnerInfo:
    """What a runner is and what it can do; fixed when it is built."""

    path: str              # 'flat batch' | 'transformers'
    kernels: str           # implementations of attention and linears, in words
    pages: int             # of the KV cache; slots name them in the page table
    weight_bytes: int      # memory of the weights
    streamed_bytes: int    # of these, what each step reads
    kv_bytes: int          # memory of all pages; 0 = the cache grows with the requests
    kv_bits: int           # of a key or value in them: 8, 16 or 32
    shares_prefixes: bool  # slots may name the same pages; else `share` must not be called
    asynchronous: bool     # a step computes by itself while the host goes on
    hidden: int            # width of the input of the head; 0 = `forward` cannot write it
    verifies: bool         # segments may have drafts, whose logits are those of single tokens
    whole_prefixes: bool = False  # `share` takes all that a slot has cached, or nothing
    weights: str | None = None  # of the layers, if they are not what was asked for
    adapters: tuple[str, ...] = ()  # names of those that segments may have
    device: str = ''    # where it runs, if that is not this program's to choose


class Runner(Protocol):
    """Runs forward passes over segments, and keeps the keys and values of the slots.

    A runner knows slots and token ids, never requests. It reads where the pages of a slot are
    from the page table that it was built with; `Slots` changes this table between the calls. All
    methods are for one thread. Errors of the device or of memory pass through; positions that
    were written by a failed pass are fed again by the next, with `info.whole_prefixes` from the
    first on.
    """

    info: RunnerInfo
    memory: SlotMemory | None   # what it keeps of slots, where that can be copied

    def forward(self, segments: Sequence[Segment], states: np.ndarray | None = None
                ) -> 'torch.Tensor | np.ndarray':
        """Feed all `segments`; return float32 logits [rows, vocab].

        A segment that wants them has a row, and one for each of its drafts, in order; the shape is
        [0, 0] or [0, vocab] when none wants logits. The next call may write over them. A runner
        without torch has an array. To `states`, float32 [tokens, info.hidden], the inputs of the
        head of all tokens are written, in order; only where `info.hidden` is not 0.
        """

    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """Feed all `segments`; return a function that gives the next tokens.

        That function waits for the device. It returns the token id of the largest logit of each
        row of `forward`, in order, and lets errors of the device through.
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
            last += range(len(ids) - 1 - s.drafts, len(ids))
    return ids, slots, positions, last


def adapters_of(segments: Sequence[Segment]) -> list[int] | None:
    """Return the adapter of each token, None where no segment has one."""
    if all([s.adapter == NO_ADAPTER for s in segments]):
        return None
    return [s.adapter for s in segments for _ in s.ids]


class Inputs(NamedTuple):
    """What the layers get instead of embeddings of tokens."""

    row: np.ndarray     # of each token in `values`, int32 [tokens]; -1 = its embedding
    # float32 [rows, width]: one hidden width, and one for each of `Architecture.input_levels`.
    values: np.ndarray


def inputs_of(segments: Sequence[Segment]) -> Inputs | None:
    """Return the inputs of the tokens of all segments, None where no segment has any."""
    if not any([s.inputs for s in segments]):
        return None
    row = np.full(sum([len(s.ids) for s in segments]), -1, np.int32)
    values, begin, count = [], 0, 0
    for s in segments:
        for at, rows in s.inputs:
            row[begin + at:begin + at + len(rows)] = range(count, count + len(rows))
            values.append(rows)
            count += len(rows)
        begin += len(s.ids)
    return Inputs(row, np.concatenate(values, dtype=np.float32))


def rope_positions_of(segments: Sequence[Segment]) -> np.ndarray | None:
    """Return what ropes turn all tokens by, int32 [tokens, 3]; None: their positions."""
    if all([s.rope_positions is None for s in segments]):
        return None
    return np.concatenate([
        np.repeat(np.arange(s.start, s.start + len(s.ids), dtype=np.int32)[:, None], 3, 1)
        if s.rope_positions is None else s.rope_positions for s in segments])


def last_seen_of(segments: Sequence[Segment]) -> np.ndarray | None:
    """Return up to which position each token attends, int32 [tokens]; None: its own."""
    if all([s.last_seen is None for s in segments]):
        return None
    return np.concatenate([np.arange(s.start, s.start + len(s.ids), dtype=np.int32)
                           if s.last_seen is None else s.last_seen for s in segments])
