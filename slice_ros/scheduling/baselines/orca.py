# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Orca: iteration-level first-come-first-served continuous batching (OSDI 2022).

Objectives play no part. A request joins as soon as the batch has room and stays until its end;
every iteration decodes all that can decode and prefills those that joined.
"""

from collections.abc import Sequence

from slice_ros.request import Request
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step


def prefill_in_order(requests: Sequence[Request], budget: int) -> list[PrefillChunk]:
    """Share `budget` prompt tokens among those of `requests` that cannot decode yet, in order."""
    chunks = []
    for request in requests:
        if budget < 1:
            break
        if not request.decoding:
            chunks.append(PrefillChunk(request, min(request.pending, budget)))
            budget -= chunks[-1].tokens
    return chunks


def serve_in_order(capacity: Capacity, ranked: Sequence[Request]) -> Step:
    """Serve the first ``max_batch`` of `ranked` that are not gated, in one step."""
    batch = [request for request in ranked if not request.gated][:capacity.max_batch]
    decode = [request for request in batch if request.ready]
    return fit_step(capacity, ranked, decode, prefill_in_order(batch, capacity.prefill_chunk))


class Orca(Policy):
    """First come, first served; the batch is the oldest ``max_batch`` live requests not gated."""

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        return serve_in_order(self.capacity, requests)
