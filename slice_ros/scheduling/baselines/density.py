# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Greedy by utility density: the highest utility per second of remaining work first.

The weighted shortest processing time rule (W. E. Smith, Naval Research Logistics Quarterly 3,
1956) with remaining work, as in weighted shortest remaining processing time. Remaining work is the
prefill of the pending tokens and a decode step, alone, for each token still expected: up to
``max_tokens``, or, once answers of its class have ended, the mean of those longer than it is now.
"""

from collections.abc import Sequence

from slice_ros.request import Request
from slice_ros.scheduling.baselines.orca import prefill_in_order
from slice_ros.scheduling.baselines.seen_lengths import SeenLengths
from slice_ros.scheduling.baselines.time_left import can_attain, last_due
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, Step


def work(request: Request, length: float, latency: LatencyModel) -> float:
    """Return the seconds, alone on the accelerator, until an answer of `length` tokens ends."""
    tokens = length - request.generated
    prefill = 0.0
    if not request.decoding:
        tokens -= 1   # the prefill samples one
        prefill = latency.prefill(request.pending, request.cached)
    return prefill + tokens * latency.decode(1, request.context)


class Density(Policy):
    """The densest, and as many behind it in order as leave each in the step time enough.

    Another one joins where all, itself included, would still attain in steps of this size after
    the prefills of this one, both at their expected length and at the least that was seen beyond
    their present one: TPOT is a mean, and a short answer has less time to catch up. A request
    that has missed an objective for good comes after all that can still attain, and no prompt
    overtakes one that has found no time.
    """

    def __init__(self, capacity: Capacity, options: Policy.Options | None = None) -> None:
        super().__init__(capacity, options)
        self._lengths = SeenLengths()

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        lengths = {request: self._lengths.mean(request) for request in requests}
        late = {request: not can_attain(request, now, latency) for request in requests}
        ranked = sorted(requests, key=lambda r: (
            late[r], -r.slo.utility / work(r, lengths[r], latency)))
        batch: list[Request] = []
        budgets: list[tuple[float, float]] = []   # seconds and tokens left, of all in the batch
        context, prefills, begins = 0, 0.0, True
        for request in ranked:
            if len(batch) == self.capacity.max_batch:
                break
            if request.gated or not (request.decoding or begins):
                continue
            seconds = latency.decode(len(batch) + 1, context + request.context)
            prefill = 0.0 if request.decoding else latency.prefill(
                min(request.pending, self.capacity.prefill_chunk), request.cached)
            if not _fits(budgets, prefills + prefill, seconds):
                if request.decoding:
                    break   # no later one takes less
                begins = False
                continue
            mine = [] if late[request] else self._budgets(request, now, lengths[request])
            if batch and not _fits(mine, prefills + prefill, seconds):
                continue
            batch.append(request)
            budgets += mine
            context += request.context
            prefills += prefill
        decode = [request for request in batch if request.ready]
        chunks = prefill_in_order(batch, self.capacity.prefill_chunk)
        return fit_step(self.capacity, ranked, decode, chunks)

    def finished(self, request: Request) -> None:
        self._lengths.learn(request)

    def inherit(self, earlier: Policy) -> None:
        if isinstance(earlier, Density):
            self._lengths = earlier._lengths

    def _budgets(self, request: Request, now: float, length: float) -> list[tuple[float, float]]:
        """Return the seconds until the last token, and the tokens left, of two lengths."""
        return [(last_due(request, now, n) - now, n - request.generated)
                for n in (length, self._lengths.upper(request, 0.0))]


def _fits(budgets: list[tuple[float, float]], prefills: float, seconds: float) -> bool:
    """Return whether steps of `seconds` after `prefills` keep within the time of each budget."""
    return all(time - prefills >= tokens * seconds for time, tokens in budgets)
