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
from itertools import chain
import math

from slice_ros.request import Request, State
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step
from slice_ros.scheduling.prediction import Prediction
from slice_ros.scheduling.slice.best_effort import best_effort_step, gap_candidate
from slice_ros.scheduling.slice.calibration import Calibration
from slice_ros.scheduling.slice.classes import Classes
from slice_ros.scheduling.slice.demand import Demand, measure
from slice_ros.scheduling.slice.rate_allocation import batch_of, candidate_of, prefill_of
from slice_ros.scheduling.slice.selection import Forecast, select
from slice_ros.scheduling.slice.selection_prediction import prediction_of
from slice_ros.scheduling.slice.starvation import Starvation

RESELECT_AFTER = 0.05   # seconds between selections while the live requests stay the same
PARTS = frozenset(('lengths', 'forecasts', 'ratio', 'readmission', 'places'))


class Slice(Policy):
    """Closed-loop SLICE."""

    @dataclass(frozen=True, slots=True)
    class Options(Policy.Options):
        """Raises ``ValueError`` for another `on_miss`, or a part of `without` that is none."""

        # What becomes of a request that has missed an objective. continue: it is served as best
        # effort, after all that can still be met; drop: it ends with DEADLINE_MISSED.
        on_miss: str = 'continue'
        without: str = ''   # parts to turn off (`PARTS`, joined by ``+``), to measure their gain

        def __post_init__(self) -> None:
            if not self.off <= PARTS:
                raise ValueError(
                    f'without takes {", ".join(sorted(PARTS))}, not {self.without!r:.80}')
            if self.on_miss not in ('continue', 'drop'):
                raise ValueError(f"on_miss must be 'continue' or 'drop', not {self.on_miss!r:.80}")

        @property
        def off(self) -> frozenset[str]:
            return frozenset(part for part in self.without.split('+') if part)

    def __init__(self, capacity: Capacity, options: Options | None = None) -> None:
        super().__init__(capacity, options)
        self._off = self.options.off
        self._calibration = Calibration(tuned='ratio' not in self._off)
        self._live: tuple[Request, ...] = ()
        self._demands: dict[Request, Demand] = {}
        self._classes = Classes(capacity)
        self._selected: list[Demand] = []        # selected, with an objective ahead
        self._gap_controlled: list[Demand] = []  # missed, started, of the most useful class
        self._best_effort: list[Demand] = []     # all others, the highest utility density first
        self._ran: list[Demand] = []             # took part in the last step
        self._starvation = Starvation()
        self._ranked: list[Request] = []
        self._selected_at = -math.inf

    @property
    def capacity_ratio(self) -> float:
        return self._calibration.ratio

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        if not requests:
            self.on_idle()
            return Step()
        elapsed = self._calibration.observe(now)
        if elapsed is not None:
            self._starvation.elapsed(elapsed)
        live = tuple(requests)
        if live != self._live or now - self._selected_at >= RESELECT_AFTER:
            self._select(now, live, latency)
        else:
            for demand in self._ran:
                if demand.selected:  # of the others only the order counts, which is kept
                    measure(demand, now, latency, self.capacity.prefill_chunk)
        if self.options.on_miss == 'drop':
            missed = tuple(d.request for d in self._best_effort if d.missed)
            if missed:
                self.on_idle()
                return Step(drop=missed)
        step = self._allocate(now, latency)
        demands = self._demands
        self._ran = [demands[r] for r in step.decode]
        self._ran += [demands[chunk.request] for chunk in step.prefill]
        self._calibration.predict(now, step, live, demands, latency)
        return step

    def finished(self, request: Request) -> None:
        """Learn the length of an answer that ran to its own end."""
        demand = self._demands.pop(request, None)
        if (demand is not None and request.state is State.FINISHED and request.generated
                and 'lengths' not in self._off):
            demand.record.lengths.learn(request.generated)
            demand.record.epoch += 1

    def inherit(self, earlier: Policy) -> None:
        """Take over the records of the classes, and how long steps take."""
        if not isinstance(earlier, Slice):
            return
        self._classes.inherit(earlier._classes)
        self._demands = earlier._demands
        for demand in self._demands.values():
            demand.record.slo = demand.request.slo
            demand.generated = -1  # measured again: its objectives may have changed
        self._calibration.inherit(earlier._calibration)

    def on_idle(self) -> None:
        self._calibration.clear()

    def predict(self, now: float, request: Request, live: Sequence[Request],
                latency: LatencyModel) -> Prediction:
        """Predict `request` by a selection among copies of it and of the `live` ones."""
        known = self._demands
        mine = self._copy(now, request, latency)
        others = [replace(known[r]) if r in known else self._copy(now, r, latency)
                  for r in live if not r.ended]
        viable = [d for d in others + [mine]
                  if not d.missed and now + d.fastest <= d.finish_due]
        select(now, viable, self._forecasts(now), self.capacity_ratio)
        return prediction_of(mine, others, latency, self.capacity.max_batch)

    def _copy(self, now: float, request: Request, latency: LatencyModel) -> Demand:
        demand = Demand(request, self._classes.copy(request, now, latency))
        measure(demand, now, latency, self.capacity.prefill_chunk)
        return demand

    # -- phase 1: selection ------------------------------------------------------------------

    def _select(self, now: float, live: tuple[Request, ...], latency: LatencyModel) -> None:
        self._classes.refresh(now, len(live), latency)
        self._live, self._demands = live, self._measure_all(now, live, latency)
        viable, hopeless = [], []
        for demand in self._demands.values():
            demand.missed = now > demand.expires
            if demand.missed or now + demand.fastest > demand.finish_due:
                demand.selected = False
                hopeless.append(demand)
            else:
                viable.append(demand)
        select(now, viable, self._forecasts(now), self.capacity_ratio,
               'readmission' not in self._off)
        self._group(viable, hopeless)
        self._selected_at = now
        self._starvation.update(now, chain(
            (d for d in self._best_effort if not d.request.gated),
            (d for d in self._selected if not d.request.decoding)))

    def _measure_all(self, now: float, live: tuple[Request, ...], latency: LatencyModel
                     ) -> dict[Request, Demand]:
        """Return the demands of the `live` requests; those that are out of date are measured."""
        chunk, demands, known = self.capacity.prefill_chunk, {}, self._demands
        for request in live:
            demand = known.get(request)
            if demand is None:
                demand = Demand(request, self._classes.of(request, now, latency))
                measure(demand, now, latency, chunk)
                demand.record.arrived(request.arrival, demand.work)
            elif (demand.generated != request.generated or demand.cached != request.cached
                  or demand.first_due < demand.due_after + now
                  or demand.epoch != demand.record.epoch and not demand.missed):
                measure(demand, now, latency, chunk)
            demands[request] = demand
        return demands

    def _group(self, viable: list[Demand], hopeless: list[Demand]) -> None:
        """Sort the demands into those selected, those under gap control, and best effort."""
        top = self._classes.top_utility
        gap_controlled, others = [], []
        for demand in hopeless:
            started = demand.request.decoding and demand.request.slo.utility == top
            (gap_controlled if started else others).append(demand)
        selected, unselected = [], []
        for demand in viable:
            if not demand.selected:
                unselected.append(demand)
            elif demand.finish_due == math.inf and (
                    demand.generated or demand.request.slo.ttft == math.inf):
                unselected.append(demand)  # nothing can make it late: best effort will do
                demand.selected = False
            else:
                selected.append(demand)
        for group in (selected, gap_controlled, unselected, others):
            group.sort(key=_density, reverse=True)
        self._selected, self._gap_controlled = selected, gap_controlled
        self._best_effort = gap_controlled + unselected + others
        self._ranked = [d.request for d in chain(selected, self._best_effort)]

    def _forecasts(self, now: float) -> list[Forecast]:
        return [] if 'forecasts' in self._off else self._classes.forecasts(now)

    # -- phase 2: rate allocation ------------------------------------------------------------

    def _allocate(self, now: float, latency: LatencyModel) -> Step:
        """Return the next step: a prefill owed or chosen, else a batch, else best effort."""
        limits, most = self._classes.limits, self.capacity.prefill_chunk
        running = [d for d in self._selected if d.request.decoding]
        running.sort(key=_density, reverse=True)
        # Those far behind cannot take part: they need no candidate.
        candidates = [candidate_of(demand, n, now, limits)
                      for n, demand in enumerate(running[:2 * limits.batch], 1)]
        owed = self._starvation.prefill(limits, latency, most)
        step = self._prefill_step(owed)
        if step is not None:
            self._starvation.paid(owed, latency)
            return step
        if len(running) < len(self._selected):
            waiting = [d for d in self._selected if not d.request.decoding]
            waiting.sort(key=_density, reverse=True)
            step = self._prefill_step(prefill_of(waiting, candidates, now, limits, latency, most,
                                                 'places' not in self._off))
            if step is not None:
                return step
        if not candidates:
            return self._best_effort_step(now, latency)
        candidates += [gap_candidate(demand, now, limits)
                       for demand in self._gap_controlled[:limits.batch]]
        decode = batch_of([c for c in candidates if c.demand.request.ready], limits)
        if not decode:
            return self._best_effort_step(now, latency)
        if len(decode) < self.capacity.max_batch:
            decode += self._starvation.decode(decode, latency)
        return fit_step(self.capacity, self._ranked, decode)

    def _prefill_step(self, chunk: PrefillChunk | None) -> Step | None:
        """Return the step of one prefill; None if there is none or it finds no room."""
        if chunk is None:
            return None
        step = fit_step(self.capacity, self._ranked, (), (chunk,))
        return None if step.idle else step

    def _best_effort_step(self, now: float, latency: LatencyModel) -> Step:
        batch, chunk = best_effort_step(
            chain(self._selected, self._best_effort), now, self._classes.limits, latency,
            self.capacity.prefill_chunk)
        if chunk and (not batch
                      or self._classes.may_start(chunk.request, self._gap_controlled, now)):
            step = self._prefill_step(chunk)
            if step is not None:
                return step
        return fit_step(self.capacity, self._ranked, batch)


def _density(demand: Demand) -> float:
    return demand.density
