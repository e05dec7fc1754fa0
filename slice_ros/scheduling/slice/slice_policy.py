# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The default policy: SLICE (arXiv 2510.18544) with the loop closed.

Phase 1 selects the requests whose objectives can be met together, phase 2 decides who takes part
in the next step. Both work on what each request still needs (`slice_demand`), measured anew as
it advances: its remaining work, its due times, and its worth per second of that work. The
published cycle and decode mask are what this comes to when nothing changes: see
`docs/scheduling.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
import math

from slice_ros.request import Request, State
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, Step
from slice_ros.scheduling.prediction import Prediction
from slice_ros.scheduling.slice.best_effort import flow_of, slack_step
from slice_ros.scheduling.slice.calibration import Promises
from slice_ros.scheduling.slice.classes import Classes
from slice_ros.scheduling.slice.demand import Demand, measure
from slice_ros.scheduling.slice.rate_allocation import batch_of, chunk_of, pace_of, prefill_of
from slice_ros.scheduling.slice.selection import Forecast, select
from slice_ros.scheduling.slice.selection_prediction import prediction_of

RESELECT = 0.05      # seconds between selections where nobody came or went
PATIENCE = 30.0      # seconds after which an unselected request is owed service, come what may
LEFTOVER = 0.005     # share of the time that then goes to the oldest of them
PARTS = frozenset(('lengths', 'forecasts', 'ratio', 'return', 'places'))


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
        self._promises = Promises(tuned='ratio' not in self._off)
        self._live: tuple[Request, ...] = ()
        self._demands: dict[Request, Demand] = {}
        self._classes = Classes(capacity)
        self._chosen: list[Demand] = []     # selected, with an objective ahead
        self._late: list[Demand] = []       # lost, begun, of the most useful class: kept flowing
        self._others: list[Demand] = []     # everyone else, the most useful first
        self._ran: list[Demand] = []        # took part in the last step
        self._oldest: Demand | None = None  # of the others: first to be owed the leftover
        self._ranked: list[Request] = []
        self._selected_at = -math.inf
        self._owed = 0.0

    @property
    def capacity_ratio(self) -> float:
        return self._promises.ratio

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        if not requests:
            self.on_idle()
            return Step()
        self._account(now)
        live = tuple(requests)
        if live != self._live or now - self._selected_at >= RESELECT:
            self._select(now, live, latency)
        else:
            for demand in self._ran:
                if demand.selected:  # of the others only the order counts, which is kept
                    measure(demand, now, latency, self.capacity.prefill_chunk)
        if self.options.on_miss == 'drop':
            missed = tuple(d.request for d in self._others if d.lost)
            if missed:
                self.on_idle()
                return Step(drop=missed)
        step = self._compose(now, latency)
        demands = self._demands
        self._ran = [demands[r] for r in step.decode]
        self._ran += [demands[chunk.request] for chunk in step.prefill]
        self._promises.make(now, step, live, demands, latency)
        return step

    def finished(self, request: Request) -> None:
        """Learn the length of an answer that ran to its own end."""
        demand = self._demands.pop(request, None)
        if (demand is not None and request.state is State.FINISHED and request.generated
                and 'lengths' not in self._off):
            demand.kind.lengths.learn(request.generated)
            demand.kind.epoch += 1

    def inherit(self, earlier: Policy) -> None:
        """Keep what is known of the classes and of how long steps really take."""
        if not isinstance(earlier, Slice):
            return
        self._classes.inherit(earlier._classes)
        self._demands = earlier._demands
        for demand in self._demands.values():
            demand.kind.slo = demand.request.slo
            demand.generated = -1  # measured again: its objectives may be others
        self._promises.inherit(earlier._promises)

    def on_idle(self) -> None:
        self._promises.forget()

    def predict(self, now: float, request: Request, live: Sequence[Request],
                latency: LatencyModel) -> Prediction:
        """Return what phase 1 would make of `request` if it came now beside the `live` ones."""
        known = self._demands
        mine = self._unseen(now, request, latency)
        others = [replace(known[r]) if r in known else self._unseen(now, r, latency)
                  for r in live if not r.ended]
        viable = [d for d in others + [mine]
                  if not d.lost and now + d.fastest <= d.finish_due]
        select(now, viable, self._forecasts(now), self.capacity_ratio)
        return prediction_of(mine, others, latency, self.capacity.max_batch)

    def _unseen(self, now: float, request: Request, latency: LatencyModel) -> Demand:
        demand = Demand(request, self._classes.copy(request, now, latency))
        measure(demand, now, latency, self.capacity.prefill_chunk)
        return demand

    # -- phase 1: who can be served ----------------------------------------------------------

    def _account(self, now: float) -> None:
        """Learn from the time that the last step took, and owe the oldest its share of it."""
        elapsed = self._promises.settle(now)
        if elapsed is not None:
            self._owed = self._owed + LEFTOVER * elapsed if self._oldest else 0.0

    def _select(self, now: float, live: tuple[Request, ...], latency: LatencyModel) -> None:
        self._classes.refresh(now, len(live), latency)
        chunk, demands, known = self.capacity.prefill_chunk, {}, self._demands
        for request in live:
            demand = known.get(request)
            if demand is None:
                demand = Demand(request, self._classes.of(request, now, latency))
                measure(demand, now, latency, chunk)
                demand.kind.arrived(request.arrival, demand.work)
            elif (demand.generated != request.generated or demand.cached != request.cached
                  or demand.first_due < demand.rolls + now
                  or demand.epoch != demand.kind.epoch and not demand.lost):
                measure(demand, now, latency, chunk)
            demands[request] = demand
        self._live, self._demands = live, demands
        viable, others = [], []
        for demand in demands.values():
            demand.lost = now > demand.expires
            if demand.lost or now + demand.fastest > demand.finish_due:
                demand.selected = False
                others.append(demand)
            else:
                viable.append(demand)
        select(now, viable, self._forecasts(now), self.capacity_ratio, 'return' not in self._off)
        top = self._classes.top_utility
        late = [d for d in others if d.request.decoding and d.request.slo.utility == top]
        others = [d for d in others
                  if not (d.request.decoding and d.request.slo.utility == top)]
        chosen, spare = [], []
        for demand in viable:
            if not demand.selected:
                spare.append(demand)
            elif demand.finish_due == math.inf and (
                    demand.generated or demand.request.slo.ttft == math.inf):
                spare.append(demand)  # nothing can make it late: it runs on slack
                demand.selected = False
            else:
                chosen.append(demand)
        for group in (chosen, late, spare, others):
            group.sort(key=_worth, reverse=True)
        self._chosen, self._late, self._others = chosen, late, late + spare + others
        self._ranked = [d.request for d in chain(chosen, self._others)]
        self._selected_at = now
        unserved = chain((d for d in self._others if not d.request.gated),
                         (d for d in chosen if not d.request.decoding))
        oldest = min(unserved, key=_arrival, default=None)
        old = oldest is not None and now - oldest.request.arrival > PATIENCE
        self._oldest = oldest if old else None

    def _forecasts(self, now: float) -> list[Forecast]:
        return [] if 'forecasts' in self._off else self._classes.forecasts(now)

    # -- phase 2: who takes part in the next step --------------------------------------------

    def _compose(self, now: float, latency: LatencyModel) -> Step:
        limits, most = self._classes.limits, self.capacity.prefill_chunk
        running = [d for d in self._chosen if d.request.decoding]
        running.sort(key=_worth, reverse=True)
        # Those far down the line cannot take part: they need no pace.
        rows = [pace_of(demand, n, now, limits)
                for n, demand in enumerate(running[:2 * limits.rows], 1)]
        oldest = self._oldest
        if oldest is not None and not oldest.request.decoding:
            chunk = chunk_of(oldest.request, 0.0, limits, latency, most)
            cost = latency.prefill(chunk.tokens, chunk.request.cached)
            if self._owed > cost:
                step = fit_step(self.capacity, self._ranked, (), (chunk,))
                if not step.idle:
                    self._owed -= cost
                    return step
        if len(running) < len(self._chosen):
            waiting = [d for d in self._chosen if not d.request.decoding]
            waiting.sort(key=_worth, reverse=True)
            chunk = prefill_of(waiting, rows, now, limits, latency, most,
                               'places' not in self._off)
            if chunk:
                step = fit_step(self.capacity, self._ranked, (), (chunk,))
                if not step.idle:
                    return step
        late = [flow_of(demand, now, limits) for demand in self._late[:limits.rows]]
        decode = batch_of([row for row in rows + late if row.demand.request.ready],
                          limits) if rows else []
        if not decode:
            return self._leftover(now, latency)
        if (oldest is not None and oldest.request.ready and oldest.request not in decode
                and len(decode) < self.capacity.max_batch):
            cost = latency.decode(len(decode) + 1) - latency.decode(len(decode))
            if self._owed > cost:
                self._owed -= cost
                decode.append(oldest.request)
        return fit_step(self.capacity, self._ranked, decode)

    def _leftover(self, now: float, latency: LatencyModel) -> Step:
        """Serve those whose objectives are missed, absent or out of reach, on slack."""
        rows, chunk = slack_step(chain(self._chosen, self._others), now, self._classes.limits,
                                 latency, self.capacity.prefill_chunk)
        if chunk and (not rows or self._classes.may_begin(chunk.request, self._late, now)):
            step = fit_step(self.capacity, self._ranked, (), (chunk,))
            if not step.idle:
                return step
        return fit_step(self.capacity, self._ranked, rows)


def _arrival(demand: Demand) -> float:
    return demand.request.arrival


def _worth(demand: Demand) -> float:
    return demand.worth
