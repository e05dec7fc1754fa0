# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Phase 1 of SLICE, selection: the requests whose objectives can be met together.

All work due by an instant must fit the time until then. The due times are visited in order; when
the work so far does not fit, the request of the least utility density is removed. For equal
densities this is the rule of Moore and Hodgson for the fewest late jobs (Moore 1968), for equal
due times the greedy knapsack by utility rate.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
import math

from slice_ros.scheduling.slice.demand import by_density, Demand
from slice_ros.scheduling.slice.limits import Arriving

MAX_READMITTED = 8  # requests readmitted in one selection; each costs a pass over all due times


def select(now: float, demands: Iterable[Demand], expected: Sequence[Arriving] = ()) -> float:
    """Set ``selected`` on each demand; return the seconds that the selected ones can spare.

    What is `expected` to arrive has its time first.
    A removed request that fits after all is selected again. A request that has not started has
    two due times, its first token's and its last one's; one without objectives is always
    selected, since it cannot be late. O(n log n) for n demands.
    """
    events = _events(demands)
    total = 0.0
    counted: dict[int, float] = {}   # number of a demand -> its work counted so far
    heap: list[tuple[float, int, Demand]] = []
    removed: list[Demand] = []
    room: list[float] = []           # seconds that are free before each due time
    for due, n, work, demand in events:
        if demand.selected:
            total += work
            if n in counted:
                counted[n] += work
            else:
                counted[n] = work
                heappush(heap, (demand.density, n, demand))
        span = due - now
        available = span - sum([a.load * max(span - a.delay, 0.0) for a in expected])
        while total > available and heap:
            _, n, loser = heappop(heap)
            loser.selected = False
            total -= counted[n]
            removed.append(loser)
        room.append(available)
    total = 0.0
    for i, (_, _, work, demand) in enumerate(events):
        total += work if demand.selected else 0.0
        room[i] -= total
    dues = [event[0] for event in events]
    _readmit(dues, room, removed)
    return min(room, default=math.inf)


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


def _readmit(dues: list[float], room: list[float], removed: list[Demand]) -> None:
    """Select the `removed` demands that fit after all, since others have been removed too."""
    removed.sort(key=by_density, reverse=True)
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
