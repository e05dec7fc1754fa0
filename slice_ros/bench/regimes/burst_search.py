# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The best schedule of a few requests that a search finds, with all lengths known.

A schedule is an order of the requests and how many of them are served at once. Searched by hill
climbing, it is what can be attained at least; the bound of `lp_bound` is what can be at most.
Where both are equal, the optimum is known.
"""

from collections.abc import Sequence
import random

from slice_ros.bench.regimes.lines import EXACT
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step

TRIALS = 150              # schedules simulated after the first ones
CAUTIONS = (.4, .7, 1.0)  # how much of the time of running answers a prefill must leave them


class InOrder(Policy):
    """Serves the first `width` of `order` (indices of arrivals) that have not ended."""

    def __init__(self, capacity: Capacity, order: Sequence[int], width: int,
                 caution: float) -> None:
        super().__init__(capacity)
        self.rank = {index: rank for rank, index in enumerate(order)}
        self.width, self.caution = width, caution
        self.lengths: dict[str, int] = {}

    def reveal(self, request: Request, tokens: int) -> None:
        """Note the length of an answer."""
        self.lengths[request.id] = tokens

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        """Prefill the next in order if the running ones can spare the time, else decode."""
        late = [r for r in requests if self._missed(r, now, latency)]
        live = sorted((r for r in requests if r not in late), key=self._order) or late
        served = live[:self.width]
        running = sorted((r for r in served if r.decoding), key=lambda r: self._pace(r, now))
        new = [r for r in served if not r.decoding][:1]
        if new:
            tokens = min(new[0].pending, self.capacity.prefill_chunk)
            step = self.caution * latency.decode(len(running) + 1)
            after = now + latency.prefill(tokens)
            if all(after + self._left(r) * step <= self._due(r) for r in running):
                return Step(prefill=(PrefillChunk(new[0], tokens),))
        size = len(running)
        while size > 1 and latency.decode(size) > self._pace(running[0], now):
            size -= 1
        return Step(decode=tuple(running[:size]))

    def _order(self, request: Request) -> int:
        return self.rank[int(request.id.rpartition('-')[2])]

    def _missed(self, request: Request, now: float, latency: LatencyModel) -> bool:
        """Return whether a request cannot attain any more, even alone."""
        first = now + latency.prefill(request.pending)
        if request.generated:
            return now + self._left(request) * latency.decode(1) > self._due(request) + EXACT
        return (first > request.arrival + request.slo.ttft + EXACT
                or first + (self._left(request) - 1) * latency.decode(1)
                > request.arrival + request.slo.deadline + EXACT)

    def _left(self, request: Request) -> int:
        return self.lengths[request.id] - request.generated

    def _due(self, request: Request) -> float:
        slo = request.slo
        first = request.first_token_at if request.generated else request.arrival + slo.ttft
        return min(first + (self.lengths[request.id] - 1) * slo.tpot,
                   request.arrival + slo.deadline)

    def _pace(self, request: Request, now: float) -> float:
        return (self._due(request) - now) / max(self._left(request), 1)


def best_found(arrivals: Sequence[Arrival], latency: LatencyModel, capacity: Capacity,
               most: float, seed: int) -> float:
    """Return the most utility of any schedule tried; the search ends when it is `most`."""
    draw = random.Random(seed)

    def attained(order: Sequence[int], width: int, caution: float) -> float:
        policy = InOrder(capacity, order, width, caution)
        reports = simulate(policy, latency, arrivals, reveal=True).reports
        return sum(report.slo.utility for report in reports if report.attained)

    n = len(arrivals)
    dues = [min(a.slo.deadline, a.slo.ttft + a.output_tokens * a.slo.tpot) + a.time
            for a in arrivals]
    utilities, lengths = [a.slo.utility for a in arrivals], [a.output_tokens for a in arrivals]
    firsts = (sorted(range(n), key=lambda i: (-utilities[i], dues[i])),
              sorted(range(n), key=lambda i: (-utilities[i], lengths[i])),
              sorted(range(n), key=lambda i: dues[i]))
    best, order, width, caution = max(
        ((attained(o, w, c), o, w, c) for o in firsts for w in range(2, n + 1) for c in CAUTIONS),
        key=lambda found: found[0])
    for _ in range(TRIALS):
        if best >= most - 1e-6:
            break
        trial = list(order)
        trial.insert(draw.randrange(n), trial.pop(draw.randrange(n)))
        wide = min(max(width + draw.choice((-1, 0, 0, 1)), 1), n)
        careful = draw.choice((caution, caution, *CAUTIONS))
        found = attained(trial, wide, careful)
        if found >= best:
            best, order, width, caution = found, trial, wide, careful
    return best
