# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What adapters add to the outputs of linear layers, in plain torch operators."""

from collections.abc import Sequence

from slice_ros.engine.adapters.low_rank import Adapter, JOINED, joined_matrix
from slice_ros.engine.models.architecture import Architecture
from slice_ros.engine.runners.runner import NO_ADAPTER, Segment
import torch


class LowRankSums:
    """Adapters on a device, in float32."""

    def __init__(self, adapters: Sequence[Adapter], made: Architecture, device: torch.device
                 ) -> None:
        self.names = tuple(adapter.name for adapter in adapters)
        self._parts: dict[tuple[int, int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        for number, adapter in enumerate(adapters):
            for layer in range(len(made.layers)):
                for matrix in range(len(JOINED)):
                    found = joined_matrix(adapter, made, layer, matrix)
                    if found is not None:
                        down, up = torch.from_numpy(found[0]), map(torch.from_numpy, found[1])
                        self._parts[number, layer, matrix] = (
                            down.T.to(device), torch.cat(list(up)).T.to(device))

    def add(self, out: torch.Tensor, x: torch.Tensor, layer: int, matrix: int,
            runs: Sequence[tuple[slice, int]]) -> torch.Tensor:
        """Add to `out`, the outputs for `x` of matrix `JOINED[matrix]`, in place; return it.

        `runs` are rows and the index of their adapter.
        """
        for rows, adapter in runs:
            found = self._parts.get((adapter, layer, matrix))
            if found is not None:
                down, up = found
                out[rows] += (x[rows].to(down.dtype) @ down @ up).to(out.dtype)
        return out


def adapted_rows(segments: Sequence[Segment]) -> list[tuple[slice, int]]:
    """Return the rows of segments that have an adapter, and which."""
    runs, at = [], 0
    for segment in segments:
        if segment.adapter != NO_ADAPTER:
            runs.append((slice(at, at + len(segment.ids)), segment.adapter))
        at += len(segment.ids)
    return runs
