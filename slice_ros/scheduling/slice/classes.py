# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The records of all classes, the limits that they set for a step, and the arrivals to expect."""

from collections.abc import Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.slice.best_effort import may_start
from slice_ros.scheduling.slice.demand import ClassRecord, Demand, least_token_cost
from slice_ros.scheduling.slice.rate_allocation import Limits, limits_of
from slice_ros.scheduling.slice.selection import Forecast

REFRESH = 64         # selections after which the limits are computed again: the model learns
MAX_CLASSES = 64     # classes remembered; the least recently used one makes room


class Classes:
    """The records by class name, and `limits`: how long a step may be, and how large its batch."""

    def __init__(self, capacity: Capacity) -> None:
        self.limits = Limits(1.0, 1, 1, 1, (1.0,))
        self._capacity = capacity
        self._records: dict[str, ClassRecord] = {}   # the least recently used one first
        self._since: float | None = None             # first plan
        self._selections = self._most = 0

    @property
    def top_utility(self) -> float:
        """The utility of the most useful class."""
        return max(record.slo.utility for record in self._records.values())

    def inherit(self, earlier: 'Classes') -> None:
        """Go on with the records of `earlier`."""
        self._records, self._since = earlier._records, earlier._since

    def of(self, request: Request, now: float, latency: LatencyModel) -> ClassRecord:
        """Return the record of a request's class; it is made if there is none."""
        name = request.slo.name
        record = self._records.pop(name, None)
        if record is None:
            record = ClassRecord(request.slo, now)
            if len(self._records) >= MAX_CLASSES:
                del self._records[next(iter(self._records))]
        self._records[name] = record  # the last one to be forgotten
        if record.slo != request.slo or not record.token_cost:
            record.slo = request.slo
            self._set_costs(record, latency)
            self._most = 0  # other objectives set other limits: compute them again
        return record

    def copy(self, request: Request, now: float, latency: LatencyModel) -> ClassRecord:
        """Return a record for a request that is only predicted. Any thread may call this."""
        known = self._records.get(request.slo.name)
        record = ClassRecord(request.slo, now)
        self._set_costs(record, latency)
        if known is not None:
            record.lengths = known.lengths
        return record

    def refresh(self, now: float, live: int, latency: LatencyModel) -> None:
        """Compute the limits of a step and the cost of a token, if `live` or the model changed."""
        if self._since is None:
            self._since = now
        self._selections += 1
        if self._most == min(live, self.limits.batch) and self._selections % REFRESH:
            return
        self.limits = limits_of(latency, self._capacity, [r.slo for r in self._records.values()])
        self._most = min(live, self.limits.batch)
        for record in self._records.values():
            self._set_costs(record, latency)
            record.epoch += 1

    def _set_costs(self, record: ClassRecord, latency: LatencyModel) -> None:
        record.token_cost = least_token_cost(latency, max(self._most, 1), record.slo.tpot)
        record.lone_token_cost = latency.decode(1)

    def forecasts(self, now: float) -> list[Forecast]:
        """Return the expected arrivals of each class whose lengths are known."""
        forecasts = []
        for record in tuple(self._records.values()):
            slo, work = record.slo, record.work
            if len(record.lengths):
                length = record.lengths.expected(0, 1 << 20)
                delay = min(slo.ttft + length * slo.tpot, slo.deadline)
                if delay < math.inf and work:
                    forecasts.append(Forecast(record.load(now, self._since), delay,
                                              slo.utility / work))
        return forecasts

    def may_start(self, request: Request, gap_controlled: Sequence[Demand], now: float) -> bool:
        """Return whether `request` may start as best effort beside those under gap control."""
        return may_start(request, gap_controlled, self._records.values(), now, self._since)
