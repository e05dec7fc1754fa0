# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The record of each class of requests, and the limits that all of them set for a step."""

from dataclasses import dataclass, field
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.lengths import ClassLengths, KEEP
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.slice.limits import Limits, limits_of, PACE_SHARE, UNSET
from slice_ros.slo import SloClass


@dataclass(eq=False, slots=True)
class ClassRecord:
    """What is known of one class; times are seconds."""

    slo: SloClass
    lengths: ClassLengths = field(default_factory=ClassLengths)
    token_cost: float = 0.0       # of accelerator per token, nothing cached,
    lone_token_cost: float = 0.0  # and where a request decodes alone
    saved: float = 0.0            # that a prefill chunk shares with the decodes of its step
    reach: float = math.inf       # tokens of an answer that the deadline leaves room for
    epoch: int = 0                # changes whenever measured demands of the class are out of date
    arrivals: int = 0             # counted, `KEEP` at most
    arrived_at: float = 0.0       # the last of them
    gap: float = UNSET            # between two of them, running mean
    work: float = 0.0             # of accelerator that one brings, running mean
    delay: float = math.inf       # from the last arrival to its last token's due time

    def arrived(self, at: float, work: float, delay: float) -> None:
        """Count an arrival, the `work` that it is expected to bring and the time until due."""
        if self.arrivals:
            self.gap += (max(at - self.arrived_at, 0.0) - self.gap) / (self.arrivals + 1)
        self.arrivals = min(self.arrivals + 1, KEEP)
        self.work += (work - self.work) / self.arrivals
        self.arrived_at, self.delay = at, delay

    def load(self, now: float) -> float:
        """Return the seconds of work that arrive each second."""
        return self.work / max(self.gap, now - self.arrived_at)

    def set_costs(self, limits: Limits, most: int) -> None:
        """Compute the costs where up to `most` requests share a step."""
        slo = self.slo
        self.lone_token_cost, *others = limits.times[:most]
        # The least l(b) / b of the batches that keep TPOT.
        self.token_cost = min([self.lone_token_cost] + [
            seconds / batch for batch, seconds in enumerate(others, 2) if seconds <= slo.tpot])
        self.saved = limits.saved if most > 1 else 0.0
        # At the pace of TPOT after the latest first token; without TPOT as if alone.
        start = slo.ttft if slo.ttft < slo.deadline else 0.0
        pace = slo.tpot if slo.tpot < math.inf else self.lone_token_cost / PACE_SHARE
        self.reach = 1 + (slo.deadline - start) / pace if slo.deadline < math.inf else math.inf


class Classes:
    """The records by class name, and `limits`: how long a step may be, and how large its batch."""

    def __init__(self, capacity: Capacity) -> None:
        self.limits = Limits(1.0, 1, 1, 1, (1.0,))
        self._capacity = capacity
        self._records: dict[str, ClassRecord] = {}   # the least recently used one first
        self._most = 0
        self._refreshed = -math.inf   # seconds, when the limits were computed

    def inherit(self, earlier: 'Classes') -> None:
        """Go on with the records of `earlier`."""
        self._records = earlier._records

    def of(self, request: Request) -> ClassRecord:
        """Return the record of a request's class; if it is new, `refresh` sets its costs."""
        name = request.slo.name
        record = self._records.pop(name, None)
        if record is None:
            record = ClassRecord(request.slo)
            if len(self._records) >= KEEP:
                del self._records[next(iter(self._records))]
        self._records[name] = record  # the last one to be forgotten
        if record.slo != request.slo or not record.token_cost:
            record.slo = request.slo
            self._most = 0  # other objectives set other limits: compute them again
        return record

    def copy(self, request: Request, latency: LatencyModel) -> ClassRecord:
        """Return a record for a request that is only predicted. Any thread may call this."""
        known = self._records.get(request.slo.name)
        record = ClassRecord(request.slo)
        record.set_costs(limits_of(latency, self._capacity, [request.slo]), max(self._most, 1))
        if known is not None:
            record.lengths = known.lengths
        return record

    def arriving(self, density: float, now: float) -> list[tuple[float, float]]:
        """Return what is expected to arrive with a higher utility `density`.

        For each class the seconds of work a second, and the seconds until it is due.
        """
        return [(record.load(now), record.delay)
                for record in tuple(self._records.values())
                if record.work and record.slo.utility > density * record.work
                and record.delay < math.inf]

    def refresh(self, now: float, live: int, latency: LatencyModel) -> None:
        """Compute the limits of a step and the cost of a token.

        Once a second is enough, unless `live` has changed: the model learns slowly.
        """
        if self._most == min(live, self.limits.batch) and now - self._refreshed < UNSET:
            return
        self._refreshed = now
        self.limits = limits_of(latency, self._capacity, [r.slo for r in self._records.values()])
        self._most = min(live, self.limits.batch)
        for record in self._records.values():
            record.set_costs(self.limits, self._most)
            record.epoch += 1
