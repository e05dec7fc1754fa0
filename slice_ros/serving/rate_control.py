# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Timer-gated rate control: when a running request may have its next token. No ROS.

A timer of the node opens the gate up to the time on the node's clock; the loop asks, once a turn,
whose next token is due by then. Where nobody opens the gate, because the executor or the clock
stands still, it falls shut and nothing runs: what the robot does not keep up with is not computed.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
import math
import time

from slice_ros.request import Request
from slice_ros.slo import SloClass

MODES = ('work_conserving', 'paced')
LEAD = 0.4            # of its pace a request gets ahead, so that the mean keeps its objective ...
LEAD_STEP = 0.1       # ... by so much of the pace a token,
MOST_STEP = 0.006     # seconds, and at most this
ALIGN = 0.5           # of its pace it gets ahead further to share its steps with another's
TOGETHER = 0.01       # seconds that a token may come early to share a step
CATCH_UP = 2.0        # a request that is late runs at this many times its rate, no faster
DEADLINE_SHARE = 0.9  # of the time that a deadline leaves, tokens are spread over this
REMIND = 1.0          # seconds between two words about a gate that stays shut
LEAP = 1.0            # seconds that the gate follows a clock which jumps ahead


@dataclass(frozen=True, slots=True)
class RateControl:
    """How tokens are released; times are seconds.

    ``work_conserving``: as fast as the engine makes them; ``paced``: each request at the rate
    that its objectives need. In both, nothing runs while the gate is shut.
    """

    mode: str = 'work_conserving'
    period_s: float = 0.005   # between two ticks that open the gate, on the clock of the node
    stall_s: float = 0.5      # without a tick, on the wall clock, after which the gate is shut


@dataclass(eq=False, slots=True)
class _Schedule:
    """When the tokens of one request are due, on the gate's time."""

    slo: SloClass
    pace: float
    lead: float      # what it gets ahead, little by little
    start: float     # when it was made,
    base: int        # and the tokens there were then
    seen: int        # tokens there were when it was last looked at,
    last: float      # and when the last of them was first seen

    def due(self) -> float:
        """Return when the next token is due."""
        number = self.seen - self.base + 1
        lead = min(number * min(LEAD_STEP * self.pace, MOST_STEP), self.lead)
        return max(self.start + number * self.pace - lead, self.last + self.pace / CATCH_UP)


class Gate:
    """Opened by a timer, asked by the loop.

    Its time follows the clock that `open` is given, but never runs backwards, and leaves out
    the time for which it was shut: requests then go on at their rate, with no flood and no wait.
    `open` never waits for the loop; `update` and `await_opening` are for the loop's thread alone.
    `clock` is the server's, in seconds.
    """

    def __init__(self, config: RateControl = RateControl(),
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config       # may be replaced at any time
        self.wake: Callable[[], None] = lambda: None   # called when what the loop waits for is due
        self._clock = clock
        self._ros = 0.0            # the clock's time as of the last tick; 0 = it has not begun
        self._opened = -math.inf   # when that was, on the server's clock
        self._time = 0.0           # the gate's own
        self._wanted = math.inf    # time from which on the loop wants to be woken
        self.restful = False       # nothing is due before that, unless a request comes
        self.speed = 0.0           # of the clock of `open`, in seconds a second as of late; 0 .. 1
        self._schedules: dict[Request, _Schedule] = {}

    def open(self, ros_now: float) -> None:  # noqa: A003
        """Let tokens pass that are due by `ros_now`; the same time again opens nothing."""
        ahead = ros_now - self._ros
        if not ahead:
            return
        config, now = self.config, self._clock()
        self.speed = min(max(ahead, 0.0) / max(now - self._opened, 1e-6), 1.0)
        if now - self._opened > config.stall_s:
            ahead = min(ahead, config.period_s)
        self._time += max(min(ahead, LEAP), 0.0)
        self._ros, self._opened = ros_now, now
        if self._time >= self._wanted:
            self._wanted, self.restful = math.inf, False
            self.wake()

    def left(self) -> float:
        """Return the seconds for which the gate need not be opened for anybody's next token."""
        return self._wanted - self._time if self.restful else 0.0

    def age(self, now: float) -> float:
        """Return the seconds since the gate was last opened."""
        return now - self._opened

    def shut(self, now: float) -> bool:
        """Return whether nothing may run."""
        return now - self._opened > self.config.stall_s

    def falls_shut(self) -> float:
        """Return when the gate is shut unless it is opened before, on the server's clock."""
        return self._opened + self.config.stall_s

    def await_opening(self) -> None:
        """Have `wake` called when the gate is opened next."""
        self._wanted, self.restful = -math.inf, False

    def update(self, requests: Collection[Request], now: float) -> None:
        """Set ``gated`` and ``pace`` of the live `requests`; `now` is the server's clock.

        `wake` is called when a gated one is due.
        """
        config = self.config
        if config.mode != 'paced':
            if self._schedules:
                self._schedules.clear()
                for request in requests:
                    request.gated, request.pace = False, 0.0
            self._wanted, self.restful = math.inf, True
            return
        soon = self._time + config.period_s
        dues = []
        for request in requests:
            request.gated = False
            if request.generated:
                due = self._due(request, now)
                if request.decoding:
                    dues.append((due, request))
        first = min((due for due, _ in dues), default=math.inf)
        if first > soon:
            first = -math.inf   # there is no step to share
        wanted = math.inf
        for due, request in dues:
            if due > max(soon, first + min(LEAD_STEP * request.pace, TOGETHER)):
                request.gated = True
                wanted = min(wanted, due)
        self._wanted = wanted - config.period_s
        self.restful = all(request.gated for request in requests)

    def forget(self, request: Request) -> None:
        """Drop what is kept about a request that has ended."""
        self._schedules.pop(request, None)

    def _due(self, request: Request, now: float) -> float:
        schedule, generated = self._schedules.get(request), request.generated
        if schedule is None or schedule.slo != request.slo:
            pace = pace_of(request, now)
            self.forget(request)   # its own due times until now are nothing to meet
            schedule = _Schedule(request.slo, pace, self._lead(pace), self._time, generated,
                                 generated, self._time)
            self._schedules[request], request.pace = schedule, pace
        elif schedule.seen != generated:
            schedule.seen, schedule.last = generated, self._time
        return schedule.due() if schedule.pace else -math.inf

    def _lead(self, pace: float) -> float:
        """Return how far a request of this pace, whose schedule begins now, should get ahead.

        A step over several requests costs little more than a step over one: where another has
        the same pace, or a multiple or fraction of it, the due times of both are made to meet.
        """
        lead, best = LEAD * pace, math.inf
        for other in self._schedules.values():
            if not (pace and other.pace):
                continue
            span, longer = sorted((pace, other.pace))
            if abs(longer / span - round(longer / span)) < 1e-6:
                # A hair added, lest two that meet already are a whole span apart.
                apart = (self._time - lead - other.start + other.lead + 1e-6) % span
                best = min(best, apart)
        return lead + best if best <= ALIGN * pace else lead


class Gatekeeper:
    """Asks a gate, if there is one, once a turn of the loop.

    `tell` is called with True when the gate falls shut before live requests and every `REMIND`
    seconds while it stays so, and with False when it is open again.
    """

    def __init__(self, gate: Gate | None, tell: Callable[[bool], None]) -> None:
        self.shut = False
        self._gate, self._tell, self._told_at = gate, tell, 0.0

    def passes(self, now: float, requests: Sequence[Request]) -> bool:
        """Return whether anything may run, and hold back those of `requests` that are not due."""
        if self._gate is None:
            return True
        shut = bool(requests) and self._gate.shut(now)
        if shut:
            self._gate.await_opening()
        else:
            self._gate.update(requests, now)
        if shut != self.shut or shut and now - self._told_at >= REMIND:
            self._told_at = now
            self._tell(shut)
        self.shut = shut
        return not shut


def pace_of(request: Request, now: float) -> float:
    """Return the seconds between the tokens still to come that keep the objectives; 0 = none.

    Where there is a deadline the longest answer is assumed; one that is out of reach is ignored.
    """
    slo = request.slo
    left = DEADLINE_SHARE * (request.arrival + slo.deadline - now)
    by_deadline = left / max(request.max_tokens - request.generated, 1)
    pace = min(slo.tpot, by_deadline if left > 0 else math.inf)
    return 0.0 if pace == math.inf else pace
