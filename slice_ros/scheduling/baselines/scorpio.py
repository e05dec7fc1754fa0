# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""SCORPIO: two guards, one for each objective (Tang et al., 2025, arXiv 2505.23022).

TTFT guard: requests wait in order of the time that their first token is due, and one that cannot
have it by then, behind those before it, is rejected. TPOT guard: a request is admitted while a
step over the virtual batch size keeps the least TPOT, ``VBS = sum(least TPOT / TPOT)``; each step,
an admitted request earns ``least TPOT / TPOT`` credits, and takes part when it has one to pay.
"""

from collections.abc import Sequence
from dataclasses import replace
import math

from slice_ros.request import Request
from slice_ros.scheduling.baselines.orca import prefill_in_order, serve_in_order
from slice_ros.scheduling.baselines.seen_lengths import SeenLengths
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, Step

FULL = 1 - 1e-9   # credits for a step: ten tenths add up to a little less than one


class Scorpio(Policy):
    """Least deadline first with rejection, then credits; the class's utility plays no part.

    The paper has no deadlines. Here the first token is due by the deadline, too, and a class
    without TPOT has the deadline divided by its expected length (see `SeenLengths`). A class with
    neither takes part where it keeps the step within the least TPOT. The first request is admitted
    whatever its TPOT: idling helps nobody.
    """

    def __init__(self, capacity: Capacity, options: Policy.Options | None = None) -> None:
        super().__init__(capacity, options)
        self._credits: dict[Request, float] = {}   # of those that are admitted, in this order
        self._lengths = SeenLengths()

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        for request in requests:
            if request.generated:   # it was served by an earlier policy
                self._credits.setdefault(request, 0.0)
        waiting = sorted((r for r in requests if r not in self._credits), key=_first_due)
        waiting, dropped = self._reject(now, waiting, latency)
        self._admit(waiting, latency)
        running = list(self._credits)
        ranked = running + [request for request in waiting if request not in self._credits]
        active = [request for request in running if not request.gated]
        decode = self._take_part([r for r in active if r.ready], latency)
        chunks = prefill_in_order(active, self.capacity.prefill_chunk)
        step = fit_step(self.capacity, ranked, decode, chunks)
        if step.idle:   # those whose turn it is have no room in the KV cache: let others go on
            step = serve_in_order(self.capacity, ranked)
        return replace(step, drop=tuple(dropped))

    def finished(self, request: Request) -> None:
        self._credits.pop(request, None)
        self._lengths.learn(request)

    def inherit(self, earlier: Policy) -> None:
        if isinstance(earlier, Scorpio):
            self._lengths = earlier._lengths

    def _reject(self, now: float, waiting: list[Request], latency: LatencyModel
                ) -> tuple[list[Request], list[Request]]:
        """Split those that wait into those whose first token can be in time, and the others."""
        kept, dropped = [], []
        ready_at = now + sum(self._prefill(r, latency) for r in self._credits if not r.decoding)
        for request in waiting:
            seconds = self._prefill(request, latency)
            if ready_at + seconds > _first_due(request):
                dropped.append(request)
            else:
                kept.append(request)
                ready_at += seconds
        return kept, dropped

    def _admit(self, waiting: list[Request], latency: LatencyModel) -> None:
        """Admit those that wait, in order, until one would cost the least TPOT."""
        tpots = [tpot for tpot in map(self._tpot, self._credits) if tpot < math.inf]
        least = min(tpots, default=math.inf)
        rate = sum(1 / tpot for tpot in tpots)
        context = sum(request.context for request in self._credits)
        places = self.capacity.max_batch - sum(not r.gated for r in self._credits)
        for request in waiting:
            if places < 1:
                return
            tpot = self._tpot(request)
            bound, then = min(least, tpot), rate + 1 / tpot
            if self._credits and bound < math.inf:
                size = max(bound * then, 1.0)
                if _decode(latency, size, context + request.context) > bound:
                    return
            self._credits[request] = 0.0
            least, rate, context, places = bound, then, context + request.context, places - 1

    def _take_part(self, ready: list[Request], latency: LatencyModel) -> list[Request]:
        """Return those of the admitted that decode in this step; the others keep their credits."""
        tpots = {request: self._tpot(request) for request in ready}
        least = min(tpots.values(), default=math.inf)
        chosen, free = [], []
        for request, tpot in tpots.items():
            if tpot == math.inf:
                free.append(request)
                continue
            self._credits[request] += least / tpot
            if tpot == least or self._credits[request] >= FULL:
                self._credits[request] = max(self._credits[request] - 1, 0.0)
                chosen.append(request)
        context = sum(request.cached for request in chosen)
        for request in free:
            context += request.cached
            if chosen and latency.decode(len(chosen) + 1, context) > least:
                break
            chosen.append(request)
        return chosen[:self.capacity.max_batch]

    def _tpot(self, request: Request) -> float:
        """Return the seconds per token that a request is served at; infinite for any."""
        slo = request.slo
        if slo.tpot < math.inf or slo.deadline == math.inf:
            return slo.tpot
        return slo.deadline / self._lengths.mean(request)

    def _prefill(self, request: Request, latency: LatencyModel) -> float:
        """Return the seconds of the prefill of all pending tokens, chunk by chunk."""
        chunk, seconds = self.capacity.prefill_chunk, 0.0
        for fed in range(0, request.pending, chunk):
            seconds += latency.prefill(min(chunk, request.pending - fed), request.cached + fed)
        return seconds


def _first_due(request: Request) -> float:
    return request.arrival + min(request.slo.ttft, request.slo.deadline)


def _decode(latency: LatencyModel, size: float, context: int) -> float:
    """Return the seconds of a decode step over a `size` that need not be whole, at least 1."""
    whole = math.floor(size)
    below, above = latency.decode(whole, context), latency.decode(whole + 1, context)
    return below + (size - whole) * (above - below)
