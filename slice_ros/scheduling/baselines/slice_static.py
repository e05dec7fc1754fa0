# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The published SLICE scheduler (arXiv 2510.18544), kept as the reference.

Two phases, run again on every arrival and completion: select requests by utility per unit of
decode rate while one cycle still fits, then scan the columns of a left-justified decode mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math

from slice_ros.request import Request
from slice_ros.scheduling.decode_mask import columns_of, cycle_time, decode_rate, left_justified
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step


class SliceStatic(Policy):
    """SLICE as published: nominal rates, a fixed capacity ratio, prefills outside the budget."""

    @dataclass(frozen=True, slots=True)
    class Options(Policy.Options):
        """Raises ``ValueError`` naming the option that is out of range."""

        capacity_ratio: float = 1.0   # share of the cycle that the selection may fill, (0, 1]
        cycle: float = 1.0            # span over which rates are planned, seconds, above 0

        def __post_init__(self) -> None:
            if not 0 < self.capacity_ratio <= 1:
                raise ValueError(f'capacity_ratio must be in (0, 1], not {self.capacity_ratio}')
            if not (self.cycle > 0 and math.isfinite(self.cycle)):
                raise ValueError(f'cycle must be above 0 s, not {self.cycle}')

    def __init__(self, capacity: Capacity, options: Options | None = None) -> None:
        super().__init__(capacity, options)
        self._live: tuple[Request, ...] = ()
        self._ranked: list[Request] = []
        self._selected: list[Request] = []
        self._columns: tuple[tuple[int, ...], ...] = ()
        self._next = 0
        self._owed: dict[Request, int] = {}   # tokens of the columns so far

    @property
    def capacity_ratio(self) -> float:
        return self.options.capacity_ratio

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        live = tuple(requests)
        if live != self._live:
            self._live = live
            self._replan(latency)
        if not self._selected:
            return Step()
        # A newly selected request is prefilled before anything decodes, as published.
        for request in self._selected:
            if not request.decoding:
                chunk = PrefillChunk(request, min(request.pending, self.capacity.prefill_chunk))
                step = fit_step(self.capacity, self._ranked, (), (chunk,))
                if not step.idle:
                    return step
        # A request that found no room in the KV cache is not decoding; the first one always is.
        # A column without it can be empty: pass over it. A column is one token, so that a request
        # that has had several at once is left out of as many.
        ahead = max([r.generated - self._owed.get(r, r.generated) for r in self._selected],
                    default=0)
        for _ in range((1 + max(ahead, 0)) * len(self._columns)):
            column = [self._selected[i] for i in self._columns[self._next]]
            self._next = (self._next + 1) % len(self._columns)
            for request in column:
                owed = self._owed.get(request, request.generated)
                self._owed[request] = min(owed, request.generated) + 1
            step = fit_step(self.capacity, self._ranked, [
                r for r in column if r.ready and r.generated < self._owed[r]])
            if not step.idle:
                return step
        return Step()

    def select(self, requests: Sequence[Request], latency: LatencyModel) -> list[Request]:
        """Return the requests of the next cycles, the highest utility rate first (phase 1)."""
        return self._select(self.rank(requests), latency)

    def rank(self, requests: Sequence[Request]) -> list[Request]:
        """Order by utility rate ``U * TPOT``, highest first; equals stay in order of arrival."""
        return sorted(requests, key=lambda r: -r.slo.utility * self.tpot(r))

    def tpot(self, request: Request) -> float:
        """Return the seconds per token that a request is decoded at.

        Without a TPOT objective, the deadline is divided by ``max_tokens``; without a deadline
        either, it is one token a cycle, the lowest rate that a mask can express.
        """
        slo = request.slo
        if slo.tpot_ms:
            return slo.tpot
        return min(slo.deadline / request.max_tokens, self.options.cycle)

    def _select(self, ranked: list[Request], latency: LatencyModel) -> list[Request]:
        limit = min(len(ranked), self.capacity.max_batch, self.capacity.slots)
        rates: list[int] = []
        context = 0
        for n, request in enumerate(ranked[:limit], 1):
            rates.append(decode_rate(self.tpot(request), self.options.cycle))
            context += request.context
            mean = context / n
            span = cycle_time(rates, lambda batch: latency.decode(batch, int(batch * mean)))
            # The first is served even where it alone overfills the cycle: idling helps nobody.
            if n > 1 and span > self.options.cycle * self.capacity_ratio:
                return ranked[:n - 1]
        return ranked[:limit]

    def _replan(self, latency: LatencyModel) -> None:
        self._ranked = self.rank(self._live)
        self._selected = self._select(self._ranked, latency)
        rates = [decode_rate(self.tpot(request), self.options.cycle) for request in self._selected]
        self._columns = columns_of(left_justified(rates))
        self._next = 0
        self._owed = {r: self._owed[r] for r in self._selected if r in self._owed}
