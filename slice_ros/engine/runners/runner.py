# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a step is made of, whoever runs it: segments, and the flat batch they form."""

from collections.abc import Sequence
from typing import NamedTuple


class Segment(NamedTuple):
    """Consecutive tokens of one request: ids[i] goes to position start + i of its slot.

    One id is a decode row or the end of a prompt; more are a prefill chunk.
    """

    slot: int
    start: int
    ids: Sequence[int]
    wants_logits: bool  # the last of these tokens is the last pending one


def flatten(segments: Sequence[Segment]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return ids, slots and positions of all tokens, and in which rows logits are wanted."""
    ids, slots, positions, last = [], [], [], []
    for s in segments:
        ids += s.ids
        slots += [s.slot] * len(s.ids)
        positions += range(s.start, s.start + len(s.ids))
        if s.wants_logits:
            last.append(len(ids) - 1)
    return ids, slots, positions, last
