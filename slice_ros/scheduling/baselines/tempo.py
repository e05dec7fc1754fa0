# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tempo: just enough for each objective, the densest gain first (2025, arXiv 2504.20068).

Three rules of the paper: the length of an answer is an upper quantile, refined while it runs; the
request of the highest service gain per remaining work comes first; and it has no more bandwidth
than its objectives need, so that the rest is left to others. Tempo predicts lengths by a model of
the prompt, and matches the graphs of compound requests; policies here see neither, so that the
quantile is that of the class. The gain of a request is its utility if it attains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
import math

from slice_ros.request import Request
from slice_ros.scheduling.baselines.density import work
from slice_ros.scheduling.baselines.edf import due
from slice_ros.scheduling.baselines.orca import serve_in_order
from slice_ros.scheduling.baselines.seen_lengths import SeenLengths
from slice_ros.scheduling.baselines.time_left import can_attain, last_due, pace
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step

QUANTILE = 0.9   # share of answers within the upper bound; the lower it is, the more are late


@dataclass(slots=True)
class _Batch:
    """The step as far as it is composed."""

    latency: LatencyModel
    limit: float = math.inf     # seconds that it may take
    context: int = 0            # cached tokens that its decodes read
    decode: list[Request] = field(default_factory=list)
    chunks: list[PrefillChunk] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.decode) + len(self.chunks)

    def seconds_with(self, request: Request, tokens: int) -> float:
        """Return the seconds of the step if `request` is fed `tokens` in it as well."""
        parts = [(chunk.tokens, chunk.request.cached) for chunk in self.chunks]
        if request.decoding:
            return self.latency.step(len(self.decode) + 1, self.context + request.cached, parts)
        return self.latency.step(len(self.decode), self.context,
                                 [*parts, (tokens, request.cached)])

    def add(self, request: Request, tokens: int, limit: float) -> bool:
        """Add a request where it fits the time, a decode also alone; return whether it did."""
        must = request.decoding and not len(self)
        if not must and self.seconds_with(request, tokens) > self.limit:
            return False
        if request.decoding:
            self.decode.append(request)
            self.context += request.cached
        else:
            self.chunks.append(PrefillChunk(request, tokens))
        self.limit = min(self.limit, limit)
        return True


class Tempo(Policy):
    """The densest gain first, each at the pace that it needs.

    A decode whose next token can wait for the step after this one does wait. A prefill begins
    when the tokens per second that it and the denser requests that run need are not more than a
    step over all of them gives. What time is left goes to those that wait, and to best effort.
    """

    def __init__(self, capacity: Capacity, options: Policy.Options | None = None) -> None:
        super().__init__(capacity, options)
        self._lengths = SeenLengths()

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        lengths = {r: self._lengths.upper(r, QUANTILE) for r in requests}
        late = {r: not can_attain(r, now, latency) for r in requests}
        ranked = sorted(requests, key=lambda r: (
            late[r], -r.slo.utility / work(r, lengths[r], latency)))
        batch, budget = _Batch(latency), self.capacity.prefill_chunk
        alone, rate, paced = latency.decode(1), 0.0, 0
        # The step after this one, with all that run and can attain: who waits now is in it.
        turn = latency.decode(min(sum(r.ready and not late[r] for r in requests),
                                  self.capacity.max_batch))
        spare: list[tuple[Request, float]] = []
        for request in ranked:
            if len(batch) == self.capacity.max_batch:
                break
            if request.gated:
                continue
            need = math.inf if late[request] else pace(request, now, lengths[request])
            need = max(need, alone)   # nothing is quicker
            if request.decoding:
                slack = math.inf if late[request] else _slack(request, now, lengths[request])
                rate, paced = rate + 1 / need, paced + (need < math.inf)
                if slack >= batch.seconds_with(request, 1) + turn:
                    spare.append((request, slack))
                    batch.limit = min(batch.limit, slack - turn)
                elif not batch.add(request, 1, max(slack, alone)):
                    break
            elif budget > 0 and self._sustains(rate + 1 / need, paced + 1, latency):
                tokens = min(request.pending, budget)
                if batch.add(request, tokens, math.inf):
                    budget -= tokens
                    rate, paced = rate + 1 / need, paced + (need < math.inf)
        for request, limit in spare:
            if len(batch) == self.capacity.max_batch or not batch.add(request, 1, limit):
                break
        step = fit_step(self.capacity, ranked, batch.decode, batch.chunks)
        return serve_in_order(self.capacity, ranked) if step.idle else step

    def finished(self, request: Request) -> None:
        self._lengths.learn(request)

    def inherit(self, earlier: Policy) -> None:
        if isinstance(earlier, Tempo):
            self._lengths = earlier._lengths

    def _sustains(self, rate: float, count: int, latency: LatencyModel) -> bool:
        """Return whether steps over `count` requests give `rate` tokens a second."""
        size = min(count, self.capacity.max_batch)
        return rate * latency.decode(size) <= size


def _slack(request: Request, now: float, length: float) -> float:
    """Return the seconds until the next token is due, on the even way to the last one."""
    first, tokens = request.first_token_at, max(length - 1, 1)
    last = last_due(request, now, length)
    return min(due(request), first + request.generated / tokens * (last - first)) - now
