# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Phase 1 of SLICE: the set of requests with the most utility whose objectives all hold.

All work due by an instant must fit the time until then. Going through the due times in order,
whenever the work so far does not fit, the request that is worth least per second of work leaves
(for equal worths this is the rule of Moore and Hodgson for the fewest late jobs, for equal due
times the greedy knapsack by utility rate). Work that is expected to arrive takes part like a
request: whoever is worth more than it need not make room for it.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
import math

from slice_ros.scheduling.slice.demand import Demand

TAKE_BACK = 8  # requests that may return to one selection; each costs a look at all due times


@dataclass(frozen=True, slots=True)
class Forecast:
    """Arrivals of one class, as a fluid: `load` seconds of work a second, due `delay` s later."""

    load: float
    delay: float
    worth: float


def select(now: float, demands: Iterable[Demand], forecasts: Iterable[Forecast],
           ratio: float, returns: bool = True) -> None:
    """Set ``selected`` on each demand; `ratio` is the share of the time that may be promised.

    With `returns`, one that left and fits after all is selected again.

    O(n log n) for n demands. A request that has not begun has two due times, its first token's
    and its last one's; one without objectives is always selected, since it cannot be late.
    """
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
    expected = sorted((f for f in forecasts if f.load > 0), key=_worth, reverse=True)
    total = 0.0
    taken: dict[int, float] = {}
    heap: list[tuple[float, int, Demand]] = []
    spare: list[tuple[float, float]] = []
    left: list[Demand] = []
    for due, n, work, demand in events:
        if demand.selected:
            total += work
            if n in taken:
                taken[n] += work
            else:
                taken[n] = work
                heappush(heap, (demand.worth, n, demand))
        span = due - now
        available = span * ratio
        while True:
            coming = 0.0
            for forecast in expected:
                if span > forecast.delay:
                    coming += forecast.load * (span - forecast.delay)
            if total + coming <= available or not heap:
                break
            if expected and expected[-1].worth < heap[0][0]:
                expected.pop()
                continue
            _, n, loser = heappop(heap)
            loser.selected = False
            total -= taken[n]
            left.append(loser)
        spare.append((due, available - coming))
    if left and returns:
        _take_back(now, events, spare, left)


def _take_back(now: float, events: list, spare: list, left: list[Demand]) -> None:
    """Select those that left and fit after all, now that others have left too.

    `spare` holds the due times and the time that selected work may fill by each.
    """
    total, dues, room, n = 0.0, [], [], 0
    for due, available in spare:
        while n < len(events) and events[n][0] <= due:
            if events[n][3].selected:
                total += events[n][2]
            n += 1
        dues.append(due)
        room.append(available - total)
    left.sort(key=_by_worth, reverse=True)
    taken = 0
    least = _least_ahead(room)
    for demand in left[:4 * TAKE_BACK]:
        first, last = bisect_left(dues, demand.first_due), bisect_left(dues, demand.finish_due)
        if least[last] < demand.work or least[first] < demand.prefill:
            continue
        demand.selected = True
        for i in range(min(first, last), len(room)):
            room[i] -= demand.prefill if i < last else demand.work
        least = _least_ahead(room)
        taken += 1
        if taken == TAKE_BACK:
            return


def _least_ahead(room: list[float]) -> list[float]:
    """Return the least of ``room[i:]`` for each i, and infinity for none."""
    least = [math.inf]
    for value in reversed(room):
        least.append(min(least[-1], value))
    return least[::-1]


def _due(event: tuple) -> float:
    return event[0]


def _worth(forecast: Forecast) -> float:
    return forecast.worth


def _by_worth(demand: Demand) -> float:
    return demand.worth
