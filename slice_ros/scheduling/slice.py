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
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, register, Step
from slice_ros.scheduling.slice_demand import (
    best_batch, CLASSES, ClassRecord, Demand, measure, unit_cost)
from slice_ros.scheduling.slice_selection import Forecast, select

RESELECT = 0.05      # seconds between selections where nobody came or went
REFRESH = 64         # plans between two looks at a latency model that learns
WORTHWHILE = 1.05    # a batch is big enough when a row costs at most this times the least cost
TIGHT = 0.8          # rows are paced to this share of the time they have
SMOOTH = 2.0         # a selected row waits at most this many TPOTs for its next token
PATIENCE = 30.0      # seconds after which an unselected request is owed service, come what may
LEFTOVER = 0.005     # share of the time that then goes to the oldest of them
LEAST_CHUNK = 64     # tokens; smaller prefill chunks pay their fixed cost too often


@register('slice')
class Slice(Policy):
    """Closed-loop SLICE. `on_miss` says what becomes of a request that has missed an objective.

    ``'continue'``: it is served on slack, after all that can still be met; ``'drop'``: it ends
    with DEADLINE_MISSED. Raises ``ValueError`` for any other `on_miss`.
    """

    def __init__(self, capacity: Capacity, *, on_miss: str = 'continue') -> None:
        super().__init__(capacity)
        if on_miss not in ('continue', 'drop'):
            raise ValueError(f"on_miss must be 'continue' or 'drop', not {on_miss!r:.80}")
        self.on_miss = on_miss
        self.ratio = 1.0          # capacity ratio: share of the time that may be promised
        self._live: tuple[Request, ...] = ()
        self._demands: dict[Request, Demand] = {}
        self._kinds: dict[str, ClassRecord] = {}
        self._chosen: list[Demand] = []     # selected, with an objective ahead
        self._others: list[Demand] = []     # everyone else, the most useful first
        self._ran: list[Demand] = []        # took part in the last step
        self._oldest: Demand | None = None  # of the others: first to be owed the leftover
        self._ranked: list[Request] = []
        self._since: float | None = None    # first plan
        self._selected_at = -math.inf
        self._plans = self._most = 0
        self._step_limit = self._full = self._target = 1
        self._promised = self._planned_at = self._owed = 0.0
        self._slowness, self._unsteady = 1.0, 0.0

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        if not requests:
            self._promised = 0.0
            return Step()
        self._account(now)
        live = tuple(requests)
        if live != self._live or now - self._selected_at >= RESELECT:
            self._select(now, live, latency)
        else:
            for demand in self._ran:
                measure(demand, now, latency, self.capacity.prefill_chunk)
        if self.on_miss == 'drop':
            missed = tuple(d.request for d in self._others if d.lost)
            if missed:
                return Step(drop=missed)
        step = self._compose(now, latency)
        demands = self._demands
        self._ran = [demands[r] for r in step.decode]
        self._ran += [demands[chunk.request] for chunk in step.prefill]
        self._promised = sum(demands[r].unit for r in step.decode)
        for chunk in step.prefill:
            self._promised += latency.prefill(chunk.tokens, chunk.request.cached)
        self._planned_at = now
        return step

    def finished(self, request: Request) -> None:
        """Learn the length of an answer that ran to its own end."""
        demand = self._demands.pop(request, None)
        if demand is not None and request.state is State.FINISHED and request.generated:
            demand.kind.lengths.learn(request.generated)
            demand.kind.epoch += 1

    def expect(self, now: float, request: Request,
               latency: LatencyModel) -> tuple[Demand, list[Demand]]:
        """Return what phase 1 would make of `request` if it came now, and of the live ones.

        Copies: nothing is changed, and any thread may ask.
        """
        kind = self._kinds.get(request.slo.name)
        record = ClassRecord(request.slo, now)
        record.unit = unit_cost(latency, max(self._most, 1), request.slo.tpot)
        if kind is not None:
            record.lengths = kind.lengths
        mine = Demand(request, record)
        measure(mine, now, latency, self.capacity.prefill_chunk)
        live = [replace(demand) for demand in self._chosen + self._others]
        viable = [d for d in live + [mine]
                  if not d.lost and now + d.fastest <= d.finish_due]
        select(now, viable, self._forecasts(now), self.ratio)
        return mine, live

    # -- phase 1: who can be served ----------------------------------------------------------

    def _account(self, now: float) -> None:
        """Compare what the last step was promised to cost with the time it really took."""
        if not self._promised:
            return
        elapsed = now - self._planned_at
        if self._oldest is not None:
            self._owed = min(self._owed + LEFTOVER * elapsed, 1.0)
        share = elapsed / self._promised
        # A single hiccup is no trend: what a step may add is bounded.
        error = min(share, 4 * self._slowness) - self._slowness
        self._slowness += 0.02 * error
        self._unsteady += 0.02 * (abs(error) - self._unsteady)
        self.ratio = 1 / max(1.0, self._slowness + 0.5 * self._unsteady)

    def _select(self, now: float, live: tuple[Request, ...], latency: LatencyModel) -> None:
        if self._since is None:
            self._since = now
        self._limits(now, len(live), latency)
        chunk, demands, known = self.capacity.prefill_chunk, {}, self._demands
        for request in live:
            demand = known.get(request)
            if demand is None:
                demand = Demand(request, self._kind(request, now, latency))
                measure(demand, now, latency, chunk)
                demand.kind.arrived(request.arrival, demand.work)
            elif (demand.generated != request.generated or demand.cached != request.cached
                  or demand.epoch != demand.kind.epoch or demand.first_due < now + 1):
                measure(demand, now, latency, chunk)
            demands[request] = demand
        self._live, self._demands = live, demands
        viable, others = [], []
        for demand in demands.values():
            if demand.lost or now + demand.fastest > demand.finish_due:
                demand.selected = False
                others.append(demand)
            else:
                viable.append(demand)
        select(now, viable, self._forecasts(now), self.ratio)
        chosen, spare = [], []
        for demand in viable:
            if not demand.selected:
                spare.append(demand)
            elif demand.finish_due == math.inf and demand.generated:
                spare.append(demand)  # nothing can make it late any more: it runs on slack
            else:
                chosen.append(demand)
        for group in (chosen, spare, others):
            group.sort(key=_worth, reverse=True)
        self._chosen, self._others = chosen, spare + others
        self._ranked = [d.request for d in chain(chosen, spare, others)]
        self._selected_at = now
        oldest = min(self._others, key=_arrival, default=None)
        old = oldest is not None and now - oldest.request.arrival > PATIENCE
        self._oldest = oldest if old else None

    def _kind(self, request: Request, now: float, latency: LatencyModel) -> ClassRecord:
        name = request.slo.name
        kind = self._kinds.pop(name, None)
        if kind is None:
            kind = ClassRecord(request.slo, now)
            if len(self._kinds) >= CLASSES:
                del self._kinds[next(iter(self._kinds))]
        self._kinds[name] = kind  # last in line to be forgotten
        if kind.slo is not request.slo or not kind.unit:
            kind.slo = request.slo
            kind.unit = unit_cost(latency, self._most, request.slo.tpot)
        return kind

    def _limits(self, now: float, live: int, latency: LatencyModel) -> None:
        """Work out how long a step may be, how many rows fit it, and what a token costs."""
        self._plans += 1
        most = min(live, self._full)
        if most == self._most and self._plans % REFRESH:
            return
        # An arrival waits for the running step; it must not cost much of its first token's time.
        limit = min((min(k.slo.ttft / 4, 2 * k.slo.tpot) for k in self._kinds.values()),
                    default=1.0)
        self._step_limit = min(limit, 1.0)
        self._full = best_batch(latency, self.capacity, self._step_limit)
        costs = [latency.decode(b) / b for b in range(1, self._full + 1)]
        enough = WORTHWHILE * min(costs)
        self._target = next(b for b, cost in enumerate(costs, 1) if cost <= enough)
        self._most = min(live, self._full)
        for kind in self._kinds.values():
            kind.unit = unit_cost(latency, self._most, kind.slo.tpot)
            kind.epoch += 1

    def _forecasts(self, now: float) -> list[Forecast]:
        forecasts = []
        for kind in tuple(self._kinds.values()):
            slo, work = kind.slo, kind.work
            if len(kind.lengths):
                length = kind.lengths.expected(0, 1 << 20)
                delay = min(slo.ttft + length * slo.tpot, slo.deadline)
                if delay < math.inf and work:
                    forecasts.append(Forecast(kind.load(now, self._since), delay,
                                              slo.utility / work))
        return forecasts

    # -- phase 2: who takes part in the next step --------------------------------------------

    def _compose(self, now: float, latency: LatencyModel) -> Step:
        running = [d for d in self._chosen if d.request.decoding]
        running.sort(key=_worth, reverse=True)
        rows = [self._row(demand, n, now, latency) for n, demand in enumerate(running, 1)]
        oldest = self._oldest
        if oldest is not None and not oldest.request.decoding and self._owed > oldest.prefill:
            chunk = self._chunk(oldest, 0.0, latency)
            step = fit_step(self.capacity, self._ranked, (), (chunk,))
            if not step.idle:
                self._owed -= latency.prefill(chunk.tokens, chunk.request.cached)
                return step
        if len(running) < len(self._chosen):
            chunk = self._prefill(now, rows, latency)
            if chunk:
                step = fit_step(self.capacity, self._ranked, (), (chunk,))
                if not step.idle:
                    return step
        batch: list[_Row] = []
        for row in rows[:self._full]:
            seconds = latency.decode(len(batch) + 1)
            if batch and seconds > min(r.pace_beside(row.demand) for r in batch):
                break
            batch.append(row)
        if not batch:
            return self._leftover(latency)
        decode = [row.demand.request for row in batch]
        if (oldest is not None and oldest.request.decoding
                and len(batch) < self.capacity.max_batch):
            cost = latency.decode(len(batch) + 1) - latency.decode(len(batch))
            if self._owed > cost:
                self._owed -= cost
                decode.append(oldest.request)
        return fit_step(self.capacity, self._ranked, decode)

    def _row(self, demand: Demand, rank: int, now: float, latency: LatencyModel) -> '_Row':
        tpot = demand.request.slo.tpot
        speed = min(latency.decode(min(rank, self._target)), max(latency.decode(1), 0.8 * tpot))
        first, expected = demand.milestone - now, demand.finish_due - now
        ahead = max(demand.work / demand.unit, 1.0)
        smooth = demand.request.last_token_at + SMOOTH * tpot - now
        return _Row(demand,
                    min(first - demand.tokens * speed, smooth - speed),
                    min(expected - ahead * speed, smooth - speed),
                    min(TIGHT * first / demand.tokens, max(smooth, tpot)),
                    min(TIGHT * expected / ahead, max(smooth, tpot)))

    def _prefill(self, now: float, rows: list['_Row'],
                 latency: LatencyModel) -> PrefillChunk | None:
        """Choose the prefill that is worth doing before the next decode, if there is one.

        The most useful goes first, as long as rows of at least its worth stay on time (and all
        rows do, unless it must be now), and as long as more rows would help or it is worth more
        than those there are.
        """
        for demand in sorted((d for d in self._chosen if not d.request.decoding),
                             key=_worth, reverse=True):
            wait = demand.first_due - now - demand.prefill if not demand.generated else 0.0
            urgent = wait < 2 * self._step_limit
            last = wait < 1.2 * self._step_limit
            worth, need = demand.worth, demand.prefill
            room = min((row.slack_beside(demand) for row in rows
                        if row.demand.worth >= worth or not urgent), default=math.inf)
            useful = urgent or self._joins(demand, rows, latency)
            if need <= room and useful or last and need <= min(
                    (row.slack_beside(demand) for row in rows if row.demand.worth > worth),
                    default=math.inf):
                return self._chunk(demand, room, latency)
        return None

    def _joins(self, demand: Demand, rows: list['_Row'], latency: LatencyModel) -> bool:
        """Return whether `demand` would decode at its pace if it began now.

        Its time per token counts from its first token, so that it had better wait for a place.
        """
        before = [row for row in rows if row.demand.worth >= demand.worth]
        if len(before) >= self._target:
            return False
        pace = min((row.pace_beside(demand) for row in before), default=math.inf)
        return latency.decode(len(before) + 1) <= pace

    def _chunk(self, demand: Demand, room: float, latency: LatencyModel) -> PrefillChunk:
        request = demand.request
        tokens = min(request.pending, self.capacity.prefill_chunk)
        room = max(room, self._step_limit)
        while tokens > LEAST_CHUNK and latency.prefill(tokens, request.cached) > room:
            tokens = max(LEAST_CHUNK, tokens // 2)
        return PrefillChunk(request, tokens)

    def _leftover(self, latency: LatencyModel) -> Step:
        """Serve those whose objectives are missed, absent or out of reach, on slack."""
        waiting = [d for d in chain(self._chosen, self._others) if not d.request.decoding]
        started = [d.request for d in chain(self._chosen, self._others) if d.request.decoding]
        if waiting and len(started) < self._target:
            chunk = self._chunk(waiting[0], math.inf, latency)
            step = fit_step(self.capacity, self._ranked, (), (chunk,))
            if not step.idle:
                return step
        return fit_step(self.capacity, self._ranked, started[:self._full])


@dataclass(slots=True)
class _Row:
    """A selected request that is decoding, and how much its next token may be held up.

    `slack` is the time in seconds it can be left out, `pace` the longest its next step may take,
    if its answer turns out short; the `likely` ones are for an answer of the expected length.
    """

    demand: Demand
    slack: float
    likely_slack: float
    pace: float
    likely_pace: float

    def slack_beside(self, other: Demand) -> float:
        """Return the seconds it may wait for `other`: its equals are worth a small risk."""
        if other.request.slo.utility >= self.demand.request.slo.utility:
            return max(self.slack, self.likely_slack)
        return self.slack

    def pace_beside(self, other: Demand) -> float:
        """Return how long a step may take that it shares with `other`."""
        if other.request.slo.utility >= self.demand.request.slo.utility:
            return max(self.pace, self.likely_pace)
        return self.pace


def _arrival(demand: Demand) -> float:
    return demand.request.arrival


def _worth(demand: Demand) -> float:
    return demand.worth
