# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The default policy: SLICE (arXiv 2510.18544) with the loop closed.

Phase 1, selection, chooses the requests whose objectives can be met together; phase 2, rate
allocation, composes the next step. Both work on what each request still needs (`demand`), which
is measured again as it advances: its work, its due times and its utility density. For requests
that never change, this amounts to the published cycle and decode mask: see docs/scheduling.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
import math
from operator import attrgetter

from slice_ros.errors import ErrorCode
from slice_ros.request import Request, State
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.lengths import KnownLength
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step
from slice_ros.scheduling.prediction import Prediction
from slice_ros.scheduling.slice.best_effort import best_effort_step, outranking_step, pursued
from slice_ros.scheduling.slice.classes import Classes
from slice_ros.scheduling.slice.demand import Demand, measure
from slice_ros.scheduling.slice.limits import Moment, WAITS
from slice_ros.scheduling.slice.rate_allocation import (
    batch_of, candidate_of, packed, prefill_of, startable)
from slice_ros.scheduling.slice.selection import select
from slice_ros.scheduling.slice.selection_prediction import prediction_of
from slice_ros.scheduling.slice.starvation import Starvation


class Slice(Policy):
    """Closed-loop SLICE."""

    @dataclass(frozen=True, slots=True)
    class Options(Policy.Options):
        """Raises ``ValueError`` for another `on_miss`."""

        # What becomes of a request that has missed an objective. continue: it is served as best
        # effort; drop: it ends with DEADLINE_MISSED.
        on_miss: str = 'continue'

        def __post_init__(self) -> None:
            if self.on_miss not in ('continue', 'drop'):
                raise ValueError(f"on_miss must be 'continue' or 'drop', not {self.on_miss!r:.80}")

    def __init__(self, capacity: Capacity, options: Options | None = None) -> None:
        super().__init__(capacity, options)
        self._live: tuple[Request, ...] = ()
        self._demands: dict[Request, Demand] = {}
        self._known: dict[Request, KnownLength] = {}
        self._classes = Classes(capacity)
        self._selected: list[Demand] = []      # selected, with an objective ahead
        self._best_effort: list[Demand] = []   # all others, the highest utility density first
        self._outranking: list[Demand] = []    # of these, late ones more useful than all selected
        self._fed: list[Demand] = []           # prefilled in the last step
        self._spare = 0.0                      # seconds that the selected ones can do without
        self._starvation = Starvation()
        self._ranked: list[Request] = []
        self._selected_at = -math.inf
        self._begun_at = math.nan              # of the last step; NaN = idle since

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        if not requests:
            self.on_idle()
            return Step()
        if not math.isnan(self._begun_at):
            self._starvation.elapsed(now - self._begun_at)
        live = tuple(requests)
        if (live != self._live
                or WAITS * (now - self._selected_at) >= self._classes.limits.step):
            self._select(now, live, latency)
        else:
            for demand in self._fed:
                if demand.selected:  # of the others only the order counts, which is kept
                    measure(demand, now, latency, self.capacity.prefill_chunk)
        if self.options.on_miss == 'drop' and (
                missed := tuple(d.request for d in self._best_effort if d.missed)):
            self.on_idle()
            return Step(drop=missed)
        step = self._allocate(Moment(now, latency, self._classes.limits,
                                     self.capacity.prefill_chunk))
        self._fed = [self._demands[chunk.request] for chunk in step.prefill]
        self._begun_at = now
        return step

    def finished(self, request: Request) -> None:
        """Learn the length of an answer: at least so far it came, if it was dropped."""
        demand = self._demands.pop(request, None)
        self._known.pop(request, None)
        if demand is None or not request.generated:
            return
        lengths, caller = demand.record.lengths, request.caller
        if request.state is State.FINISHED:
            lengths.learn(caller, request.generated)
        elif request.error is ErrorCode.DEADLINE_MISSED:
            _, expected, _ = lengths.of(caller).estimate(request.generated, request.max_tokens)
            lengths.learn(caller, math.ceil(expected))
        else:
            return
        demand.record.epoch += 1

    def reveal(self, request: Request, tokens: int) -> None:
        self._known[request] = KnownLength(tokens)

    def inherit(self, earlier: Policy) -> None:
        """Take over the records of the classes."""
        if not isinstance(earlier, Slice):
            return
        self._classes.inherit(earlier._classes)
        self._demands, self._known = earlier._demands, earlier._known
        for demand in self._demands.values():
            demand.record.slo = demand.request.slo
            demand.generated = -1  # measured again: its objectives may have changed

    def on_idle(self) -> None:
        self._begun_at = math.nan

    def predict(self, now: float, request: Request, live: Sequence[Request],
                latency: LatencyModel) -> Prediction:
        """Predict `request` by a selection among copies of it and of the `live` ones.

        What is expected to arrive with a higher utility density takes its share of the time.
        """
        known = self._demands
        mine = self._copy(now, request, latency)
        others = [replace(known[r]) if r in known else self._copy(now, r, latency)
                  for r in live if not r.ended]
        select(now, [d for d in others + [mine]
                     if not d.missed and now + d.fastest <= d.finish_due],
               self._classes.arriving(mine.density, now))
        return prediction_of(mine, others, latency, self.capacity.max_batch)

    def _copy(self, now: float, request: Request, latency: LatencyModel) -> Demand:
        record = self._classes.copy(request, latency)
        demand = Demand(request, record, record.lengths.of(request.caller))
        measure(demand, now, latency, self.capacity.prefill_chunk)
        return demand

    # -- phase 1: selection ------------------------------------------------------------------

    def _select(self, now: float, live: tuple[Request, ...], latency: LatencyModel) -> None:
        for request in live:  # their objectives count for the limits
            if request not in self._demands:
                self._classes.of(request)
        self._classes.refresh(now, len(live), latency)
        self._live, self._demands = live, self._measure_all(now, live, latency)
        self._selected_at = now
        demands = sorted(self._demands.values(), key=attrgetter('density'), reverse=True)
        viable, hopeless = [], []
        for demand in demands:
            demand.missed, demand.selected = now > demand.expires, False
            late = demand.missed or now + demand.fastest > demand.finish_due
            (hopeless if late else viable).append(demand)
        self._spare = select(now, viable)
        for demand in viable:
            if demand.finish_due == demand.expires == math.inf:
                demand.selected = False  # nothing can make it late: best effort will do
        self._selected = [d for d in viable if d.selected]
        self._best_effort = [d for d in viable if not d.selected] + hopeless
        utility = max([d.request.slo.utility for d in self._selected], default=math.inf)
        self._outranking = [d for d in self._best_effort if d.request.slo.utility > utility
                            and (d.missed or pursued(d, now))]
        self._ranked = [d.request for d in self._selected + self._best_effort]
        self._starvation.update(
            now, [d for d in demands
                  if not (d.request.gated or d.selected and d.request.decoding)],
            {d.request.slo.name for d in self._selected})

    def _measure_all(self, now: float, live: tuple[Request, ...], latency: LatencyModel
                     ) -> dict[Request, Demand]:
        """Return the demands of the `live` requests; those that are out of date are measured."""
        chunk, demands, known = self.capacity.prefill_chunk, {}, self._demands
        for request in live:
            demand = known.get(request)
            if demand is None:
                record = self._classes.of(request)
                demand = Demand(request, record, self._known.get(request)
                                or record.lengths.of(request.caller))
                measure(demand, now, latency, chunk)
                record.arrived(request.arrival, demand.work, demand.finish_due - request.arrival)
            elif (demand.generated != request.generated or demand.cached != request.cached
                  or demand.expires == math.inf and not demand.generated
                  or demand.epoch != demand.record.epoch and not demand.missed):
                measure(demand, now, latency, chunk)
            demands[request] = demand
        return demands

    # -- phase 2: rate allocation ------------------------------------------------------------

    def _allocate(self, at: Moment) -> Step:
        """Return the next step: what is owed, else what is missed, else the selected ones'."""
        running = (d for d in self._selected if d.request.ready)
        # Those far behind cannot take part: they need no candidate.
        candidates = [candidate_of(demand, n, at)
                      for n, demand in enumerate(islice(running, at.limits.batch), 1)]
        owed = self._starvation.prefill(at)
        if owed and (step := self._fit((), [owed])):
            self._starvation.paid(owed, at.latency)
            self._spare -= at.latency.step(*step.shape)
            return step
        if first := next((d for d in self._outranking if not d.request.gated), None):
            decode, chunks = outranking_step(first, self._selected, candidates, self._spare, at)
            if step := self._fit(decode, chunks):
                self._spare -= at.latency.step(*step.shape)
                return step
        waiting = [d for d in self._selected if not d.request.decoding]
        chunk = prefill_of(waiting, candidates, at)
        batch = batch_of(candidates, at.limits)
        decode = [c.demand.request for c in batch]
        if batch and at.mixes:
            others = (PrefillChunk(d.request, d.request.pending)
                      for d, _, _ in startable(waiting, candidates, at)
                      if not chunk or d.request is not chunk.request)
            chunks = packed(batch, chunk, others, at)
            if chunks and (step := self._fit(decode, chunks)):
                return step
        if chunk and (step := self._fit((), [chunk])):
            return step
        if not batch:
            return self._best_effort_step(at)
        if len(decode) < self.capacity.max_batch:
            decode += self._starvation.decode(decode, at.latency)
        return fit_step(self.capacity, self._ranked, decode)

    def _fit(self, decode: Sequence[Request], chunks: Sequence[PrefillChunk]) -> Step | None:
        """Return the step as far as it finds room; None if its prefills, else it, find none."""
        step = fit_step(self.capacity, self._ranked, decode, chunks)
        return step if (step.prefill if chunks else step.decode) else None

    def _best_effort_step(self, at: Moment) -> Step:
        batch, chunks = best_effort_step(chain(self._selected, self._best_effort), at)
        step = self._fit(batch if at.mixes else (), chunks) if chunks else None
        return step or fit_step(self.capacity, self._ranked, batch)
