# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Phase 1 of SLICE, selection: the requests whose objectives can be met together.

All work due by an instant must fit the time until then. The due times are visited in order; when
the work so far does not fit, the request of the least utility density is removed. For equal
densities this is the rule of Moore and Hodgson for the fewest late jobs (Moore 1968), for equal
due times the greedy knapsack by utility rate.
"""

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
import math
from operator import itemgetter

from slice_ros.scheduling.slice.demand import Demand


def select(now: float, demands: Iterable[Demand],
           expected: Sequence[tuple[float, float]] = ()) -> float:
    """Set ``selected`` on each demand; return the seconds that the selected ones can spare.

    What is `expected` to arrive, as (seconds of work a second, seconds until it is due), has its
    time first.
    A request that has not started has two due times, its first token's and its last one's; one
    without objectives is always selected, since it cannot be late. O(n log n) for n demands.
    """
    events = _events(demands)
    total = 0.0
    counted: dict[int, float] = {}   # number of a demand -> its work counted so far
    heap: list[tuple[float, int, Demand]] = []
    room: list[float] = []           # seconds until each due time, less what is expected
    for due, n, work, demand in events:
        if demand.selected:
            total += work
            if n not in counted:
                heappush(heap, (demand.density, n, demand))
            counted[n] = counted.get(n, 0.0) + work
        span = due - now
        available = span - sum([load * max(span - delay, 0.0) for load, delay in expected])
        while total > available and heap:
            _, n, loser = heappop(heap)
            loser.selected = False
            total -= counted[n]
        room.append(available)
    spare, total = math.inf, 0.0
    for (_, _, work, demand), available in zip(events, room):
        if demand.selected:
            total += work
            spare = min(spare, available - total)
    return spare


def _events(demands: Iterable[Demand]) -> list[tuple[float, int, float, Demand]]:
    """Select every demand; return (due, number, work, demand) of their due times, in order."""
    events = []
    for n, demand in enumerate(demands):
        demand.selected = True
        work = demand.work
        if demand.first_due < math.inf:
            events.append((demand.first_due, n, demand.prefill, demand))
            work -= demand.prefill
        if demand.finish_due < math.inf:
            events.append((demand.finish_due, n, work, demand))
    events.sort(key=itemgetter(0))
    return events
