# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM's scheduler with ``--scheduling-policy priority`` (PagedAttention, SOSP 2023).

Continuous batching in order of priority, then of arrival; the priority of a request is the utility
of its class. Objectives play no part.
"""

from collections.abc import Sequence
from dataclasses import replace

from slice_ros.request import Request
from slice_ros.scheduling.baselines.orca import serve_in_order
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, Step


def by_class(request: Request) -> tuple[float, float]:
    """Return the sorting key of class priority: the highest utility first, then the oldest."""
    return -request.slo.utility, request.arrival


class Priority(Policy):
    """Class priority with preemption by recompute.

    The batch is the ``max_batch`` first requests. A request that begins in a full batch takes the
    place of the last one in it, which gives up its KV cache (recomputed when it returns) although
    memory may not be short, as in vLLM, where to run and to have a cache is the same. Where memory
    is short, the last in order gives up its cache as well (`fit_step`).
    """

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        ranked = sorted(requests, key=by_class)
        step = serve_in_order(self.capacity, ranked)
        gone = set(step.evict)
        beginning = sum(not chunk.request.cached for chunk in step.prefill)
        running = [request for request in ranked if not request.gated]
        preempted = [request for request in reversed(running[self.capacity.max_batch:])
                     if request.cached and request not in gone][:max(beginning - len(gone), 0)]
        return replace(step, evict=step.evict + tuple(preempted))
