# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Service that the selection owes to the oldest request that it leaves out, under any load."""

from collections.abc import Iterable, Sequence

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import PrefillChunk
from slice_ros.scheduling.slice.demand import Demand
from slice_ros.scheduling.slice.rate_allocation import chunk_of, Limits

STARVED_AFTER = 30.0    # seconds after its arrival from which a request is owed service
STARVED_SHARE = 0.005   # share of the time that the oldest of these is then owed


class Starvation:
    """The oldest starved request, if any, and the seconds of accelerator that it is owed."""

    def __init__(self) -> None:
        self._oldest: Request | None = None
        self._owed = 0.0

    def update(self, now: float, unserved: Iterable[Demand]) -> None:
        """Choose the oldest of the `unserved` requests, if it has waited long enough."""
        oldest = min(unserved, key=_arrival, default=None)
        starved = oldest is not None and now - oldest.request.arrival > STARVED_AFTER
        self._oldest = oldest.request if starved else None

    def elapsed(self, seconds: float) -> None:
        """Owe the oldest its share of the time that a step took."""
        self._owed = self._owed + STARVED_SHARE * seconds if self._oldest else 0.0

    def prefill(self, limits: Limits, latency: LatencyModel, most: int) -> PrefillChunk | None:
        """Return the chunk of at most `most` tokens that is owed; call `paid` once it is planned.

        None if no request is starved, it needs no prefill, or it is not owed enough yet.
        """
        if self._oldest is None or self._oldest.decoding:
            return None
        chunk = chunk_of(self._oldest, 0.0, limits, latency, most)
        return chunk if self._owed > _cost(chunk, latency) else None

    def paid(self, chunk: PrefillChunk, latency: LatencyModel) -> None:
        """Charge a planned `chunk`."""
        self._owed -= _cost(chunk, latency)

    def decode(self, batch: Sequence[Request], latency: LatencyModel) -> list[Request]:
        """Return, and charge, the request that is owed a place beside `batch`: one or none."""
        oldest = self._oldest
        if oldest is None or not oldest.ready or oldest in batch:
            return []
        cost = latency.decode(len(batch) + 1) - latency.decode(len(batch))
        if self._owed <= cost:
            return []
        self._owed -= cost
        return [oldest]


def _cost(chunk: PrefillChunk, latency: LatencyModel) -> float:
    return latency.prefill(chunk.tokens, chunk.request.cached)


def _arrival(demand: Demand) -> float:
    return demand.request.arrival
