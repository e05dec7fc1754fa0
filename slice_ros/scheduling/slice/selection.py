# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Phase 1 of SLICE, selection: the requests whose objectives can be met together.

All work due by an instant must fit the time until then. The due times are visited in order; when
the work so far does not fit, the request of the least utility density is removed. For equal
densities this is the rule of Moore and Hodgson for the fewest late jobs (Moore 1968), for equal
due times the greedy knapsack by utility rate. Work that is expected to arrive counts like a
request: only requests of a lower density make room for it.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
import math

from slice_ros.scheduling.slice.demand import Demand

MAX_READMITTED = 8  # requests readmitted in one selection; each costs a pass over all due times


@dataclass(frozen=True, slots=True)
class Forecast:
    """Expected arrivals of one class: `load` seconds of work a second, due `delay` s later."""

    load: float
    delay: float
    density: float


def select(now: float, demands: Iterable[Demand], forecasts: Iterable[Forecast],
           ratio: float, readmission: bool = True) -> None:
    """Set ``selected`` on each demand; `ratio` is the share of the time that may be filled.

    With `readmission`, a removed request that fits after all is selected again. O(n log n) for n
    demands. A request that has not started has two due times, its first token's and its last
    one's; one without objectives is always selected, since it cannot be late.
    """
    events = _events(demands)
    expected = sorted((f for f in forecasts if f.load > 0), key=_density, reverse=True)
    total = 0.0
    counted: dict[int, float] = {}   # number of a demand -> its work counted so far
    heap: list[tuple[float, int, Demand]] = []
    limits: list[tuple[float, float]] = []   # due time, time that selected work may fill by then
    removed: list[Demand] = []
    for due, n, work, demand in events:
        if demand.selected:
            total += work
            if n in counted:
                counted[n] += work
            else:
                counted[n] = work
                heappush(heap, (demand.density, n, demand))
        span = due - now
        available = span * ratio
        while True:
            arriving = 0.0
            for forecast in expected:
                if span > forecast.delay:
                    arriving += forecast.load * (span - forecast.delay)
            if total + arriving <= available or not heap:
                break
            if expected and expected[-1].density < heap[0][0]:
                expected.pop()
                continue
            _, n, loser = heappop(heap)
            loser.selected = False
            total -= counted[n]
            removed.append(loser)
        limits.append((due, available - arriving))
    if removed and readmission:
        _readmit(events, limits, removed)


def _events(demands: Iterable[Demand]) -> list[tuple[float, int, float, Demand]]:
    """Select every demand; return (due, number, work, demand) of their due times, in order."""
    events = []
    for n, demand in enumerate(demands):
        demand.selected = True
        work = demand.work
        if demand.first_due < math.inf and demand.prefill:
            events.append((demand.first_due, n, demand.prefill, demand))
            work -= demand.prefill
        if demand.finish_due < math.inf:
            events.append((demand.finish_due, n, work, demand))
    events.sort(key=_due)
    return events


def _readmit(events: list[tuple[float, int, float, Demand]], limits: list[tuple[float, float]],
             removed: list[Demand]) -> None:
    """Select the `removed` demands that fit after all, since others have been removed too."""
    total, dues, room, n = 0.0, [], [], 0
    for due, available in limits:
        while n < len(events) and events[n][0] <= due:
            if events[n][3].selected:
                total += events[n][2]
            n += 1
        dues.append(due)
        room.append(available - total)
    removed.sort(key=_density, reverse=True)
    readmitted = 0
    least = _least_ahead(room)
    for demand in removed[:4 * MAX_READMITTED]:
        first, last = bisect_left(dues, demand.first_due), bisect_left(dues, demand.finish_due)
        if least[last] < demand.work or least[first] < demand.prefill:
            continue
        demand.selected = True
        for i in range(min(first, last), len(room)):
            room[i] -= demand.prefill if i < last else demand.work
        least = _least_ahead(room)
        readmitted += 1
        if readmitted == MAX_READMITTED:
            return


def _least_ahead(room: list[float]) -> list[float]:
    """Return the least of ``room[i:]`` for each i, and infinity for none."""
    least = [math.inf]
    for value in reversed(room):
        least.append(min(least[-1], value))
    return least[::-1]


def _due(event: tuple) -> float:
    return event[0]


def _density(item: Demand | Forecast) -> float:
    return item.density
