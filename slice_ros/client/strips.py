# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Token strips: in which tenths of a second each live request got tokens."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from slice_ros import msg

RATE = 10            # cells a second
BINS = 120           # cells kept of a request
MAX_STRIPS = 128     # requests kept
FORGET_AFTER = 2.0   # seconds without a message about a request, after which it is removed
IDLE, WAITING, PREFILL, PAUSED, GATED = range(0, -5, -1)   # cells without a token
_CODES = {'waiting': WAITING, 'prefill': PREFILL, 'paused': PAUSED}


@dataclass
class Strip:
    """One live request. A cell above 0 is the number of tokens that arrived in it."""

    request_id: str
    slo_class: str
    bin: int                                   # number of the last cell
    seen_at: float                             # when a token or the status last named it
    status: msg.RequestStatus | None = None    # None until the status lists it
    tokens: int = 0
    cells: deque[int] = field(default_factory=lambda: deque([IDLE], BINS))
    now: int = IDLE                            # the value of cells without a token

    def reach(self, number: int) -> None:
        """Add cells up to cell `number`."""
        for _ in range(min(number - self.bin, BINS)):
            self.cells.append(self.now)
        self.bin = max(self.bin, number)

    def count(self, tokens: int) -> None:
        """Record that `tokens` were generated so far."""
        if tokens > self.tokens:
            self.cells[-1] = max(self.cells[-1], 0) + tokens - self.tokens
            self.tokens = tokens


class Strips:
    """The strips of a node, filled from its topics; times are seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._strips: dict[str, Strip] = {}
        self._ended: deque[str] = deque(maxlen=2 * MAX_STRIPS)   # not revived by late messages

    def live(self, now: float) -> list[Strip]:
        """Return the strips up to now, the oldest request first."""
        for strip in self._strips.values():
            strip.reach(int(now * RATE))
        return list(self._strips.values())

    def add_chunk(self, slo_class: str, chunk: msg.TokenChunk, now: float) -> None:
        """Add a chunk of the topic of a class."""
        strip = self._find(chunk.request_id, slo_class, now)
        if strip is None:
            return
        strip.now = IDLE
        strip.count(chunk.tokens)
        if chunk.finished:
            del self._strips[chunk.request_id]
            self._ended.append(chunk.request_id)

    def update(self, requests: Iterable[msg.RequestStatus], now: float) -> None:
        """Add the live requests of a status, and remove strips without a recent message."""
        for request in requests:
            new = request.request_id not in self._strips
            strip = self._find(request.request_id, request.slo_class, now)
            if strip is None:
                continue
            strip.status = request
            strip.now = GATED if request.gated else _CODES.get(request.state, IDLE)
            if new:
                strip.tokens = request.output_tokens   # their arrival times are not known
            strip.count(request.output_tokens)
            if strip.cells[-1] <= 0:
                strip.cells[-1] = strip.now
        for strip in [s for s in self._strips.values() if now - s.seen_at > FORGET_AFTER]:
            del self._strips[strip.request_id]

    def end(self, request_id: str) -> None:
        """Remove a request that has ended."""
        if self._strips.pop(request_id, None):
            self._ended.append(request_id)

    def clear(self) -> None:
        """Remove everything: the node is gone."""
        self._strips.clear()
        self._ended.clear()

    def _find(self, request_id: str, slo_class: str, now: float) -> Strip | None:
        strip = self._strips.get(request_id)
        if strip is None:
            if request_id in self._ended:
                return None
            if len(self._strips) >= MAX_STRIPS:
                del self._strips[next(iter(self._strips))]
            strip = Strip(request_id, slo_class, int(now * RATE), now)
            self._strips[request_id] = strip
        strip.reach(int(now * RATE))
        strip.seen_at = now
        return strip
