# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Service that the selection owes to those that it leaves out for long, under any load."""

from collections.abc import Container, Iterable, Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import PrefillChunk
from slice_ros.scheduling.slice.demand import Demand
from slice_ros.scheduling.slice.limits import chunk_of, Moment

STARVED_AFTER = 30.0    # seconds after its arrival from which a request is owed service
STARVED_SHARE = 0.005   # share of the time that all of these are then owed together


class Starvation:
    """The starved request whose turn it is, if any, and the seconds of accelerator it is owed."""

    def __init__(self) -> None:
        self._turn: Request | None = None
        self._owed = 0.0

    def update(self, now: float, unserved: Iterable[Demand], served: Container[str]) -> None:
        """Choose, of the `unserved` requests that have waited long enough, who is next.

        It is the one that has waited longest for a token; those of a class that is `served`
        otherwise come last.
        """
        starved = [d.request for d in unserved if now - d.request.arrival > STARVED_AFTER]
        self._turn = min(starved, key=lambda request: (
            request.slo.name in served, _waits_since(request)), default=None)

    def elapsed(self, seconds: float) -> None:
        """Owe them their share of the time that a step took."""
        self._owed = self._owed + STARVED_SHARE * seconds if self._turn else 0.0

    def prefill(self, at: Moment) -> PrefillChunk | None:
        """Return the chunk that is owed, a small one; call `paid` once it is planned.

        None if no request is starved, it needs no prefill, or it is not owed enough yet.
        """
        if self._turn is None or self._turn.decoding:
            return None
        chunk = chunk_of(self._turn, 0.0, at)
        return chunk if self._owed > _cost(chunk, at.latency) else None

    def paid(self, chunk: PrefillChunk, latency: LatencyModel) -> None:
        """Charge a planned `chunk`."""
        self._owed -= _cost(chunk, latency)

    def decode(self, batch: Sequence[Request], latency: LatencyModel) -> list[Request]:
        """Return, and charge, the request that is owed a place beside `batch`: one or none."""
        turn = self._turn
        if turn is None or not turn.ready or turn in batch:
            return []
        cost = latency.decode(len(batch) + 1) - latency.decode(len(batch))
        if self._owed <= cost:
            return []
        self._owed -= cost
        return [turn]


def _cost(chunk: PrefillChunk, latency: LatencyModel) -> float:
    return latency.prefill(chunk.tokens, chunk.request.cached)


def _waits_since(request: Request) -> float:
    last = request.last_token_at
    return request.arrival if math.isnan(last) else last
