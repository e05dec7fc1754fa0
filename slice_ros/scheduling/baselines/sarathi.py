# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Sarathi-Serve: stall-free batching with chunked prefills (OSDI 2024, arXiv 2403.02310).

Every step has a budget of tokens. All requests that can decode take one token each; what is left
goes to chunks of prompts, so that a prefill never stalls the requests that are decoding.
Objectives play no part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slice_ros.request import Request
from slice_ros.scheduling.baselines.orca import prefill_in_order, serve_in_order
from slice_ros.scheduling.baselines.priority import by_class
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step

ORDERS = ('fcfs', 'class')


class Sarathi(Policy):
    """Stall-free batching; the token budget is ``Capacity.prefill_chunk``, decodes included.

    `order` says who is in the batch and whose prompt is next: the oldest, or, with `class`, the
    highest utility and then the oldest. A request that has no place keeps its KV cache.
    """

    @dataclass(frozen=True, slots=True)
    class Options(Policy.Options):
        """Raises ``ValueError`` when the order is unknown."""

        order: str = 'fcfs'   # fcfs, or class: by utility, then by arrival

        def __post_init__(self) -> None:
            if self.order not in ORDERS:
                raise ValueError(
                    f'order must be one of {", ".join(ORDERS)}, not {self.order!r:.80}')

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        ranked = requests if self.options.order == 'fcfs' else sorted(requests, key=by_class)
        batch = [request for request in ranked if not request.gated][:self.capacity.max_batch]
        decode = [request for request in batch if request.ready]
        chunks = prefill_in_order(batch, self.capacity.prefill_chunk - len(decode))
        step = fit_step(self.capacity, ranked, decode, chunks)
        # Where no decode finds room in the KV cache, the budget is free for prompts after all.
        return serve_in_order(self.capacity, ranked) if step.idle else step
