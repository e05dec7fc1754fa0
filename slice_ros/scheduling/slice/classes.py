# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What `slice` knows of the classes: a record of each, and what they let a step be and expect."""

from collections.abc import Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.slice.best_effort import may_begin
from slice_ros.scheduling.slice.demand import CLASSES, ClassRecord, Demand, unit_cost
from slice_ros.scheduling.slice.rate_allocation import Limits, limits_of
from slice_ros.scheduling.slice.selection import Forecast

REFRESH = 64         # plans between two looks at a latency model that learns


class Classes:
    """The records by name, and `limits`: how long a step may be, and how many rows fit it."""

    def __init__(self, capacity: Capacity) -> None:
        self.limits = Limits(1.0, 1, 1, 1, (1.0,))
        self._capacity = capacity
        self._kinds: dict[str, ClassRecord] = {}   # the one heard of least recently first
        self._since: float | None = None           # first plan
        self._looks = self._most = 0

    @property
    def top_utility(self) -> float:
        return max(kind.slo.utility for kind in self._kinds.values())

    def inherit(self, earlier: 'Classes') -> None:
        """Go on with the records of another."""
        self._kinds, self._since = earlier._kinds, earlier._since

    def of(self, request: Request, now: float, latency: LatencyModel) -> ClassRecord:
        """Return the record of a request's class, made now if there is none."""
        name = request.slo.name
        kind = self._kinds.pop(name, None)
        if kind is None:
            kind = ClassRecord(request.slo, now)
            if len(self._kinds) >= CLASSES:
                del self._kinds[next(iter(self._kinds))]
        self._kinds[name] = kind  # last in line to be forgotten
        if kind.slo != request.slo or not kind.unit:
            kind.slo = request.slo
            self._price(kind, latency)
            self._most = 0  # other objectives, other limits: look again
        return kind

    def copy(self, request: Request, now: float, latency: LatencyModel) -> ClassRecord:
        """Return a record for a request that is only asked about; any thread may."""
        kind = self._kinds.get(request.slo.name)
        record = ClassRecord(request.slo, now)
        self._price(record, latency)
        if kind is not None:
            record.lengths = kind.lengths
        return record

    def refresh(self, now: float, live: int, latency: LatencyModel) -> None:
        """Work out how long a step may be, how many rows fit it, and what a token costs."""
        if self._since is None:
            self._since = now
        self._looks += 1
        if self._most == min(live, self.limits.rows) and self._looks % REFRESH:
            return
        self.limits = limits_of(latency, self._capacity, [k.slo for k in self._kinds.values()])
        self._most = min(live, self.limits.rows)
        for kind in self._kinds.values():
            self._price(kind, latency)
            kind.epoch += 1

    def _price(self, kind: ClassRecord, latency: LatencyModel) -> None:
        kind.unit = unit_cost(latency, max(self._most, 1), kind.slo.tpot)
        kind.alone = latency.decode(1)

    def forecasts(self, now: float) -> list[Forecast]:
        """Return what is expected to arrive of each class whose lengths are known."""
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

    def may_begin(self, request: Request, flowing: Sequence[Demand], now: float) -> bool:
        """Return whether slack may begin `request` beside the lost answers that are `flowing`."""
        return may_begin(request, flowing, self._kinds.values(), now, self._since)
