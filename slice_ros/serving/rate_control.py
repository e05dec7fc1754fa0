# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Timer-gated rate control: when a running request may have its next token. No ROS.

A timer of the node opens the gate up to the time on the node's clock. Once a turn the loop asks
which requests have a token due by then. When the executor or the clock stands still, nobody opens
the gate: it shuts, and nothing is computed that the robot could not receive.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
import math
import time

from slice_ros.request import Request
from slice_ros.slo import SloClass

MODES = ('work_conserving', 'paced')
LEAD = 0.4            # share of its pace that a request gets ahead, so that its mean keeps TPOT
LEAD_STEP = 0.1       # share of its pace that one token adds to the lead,
MAX_LEAD_STEP = 0.006   # and the most that one token adds, seconds
ALIGN = 0.5           # share of its pace that it gets ahead further to share steps with another
TOGETHER = 0.01       # seconds that a token may come early to share a step
CATCH_UP = 2.0        # a request that is late runs at this many times its rate, no faster
DEADLINE_SHARE = 0.9  # share of the time to the deadline over which tokens are spread
REMIND = 1.0          # seconds between two notifications of a gate that stays shut
LEAP = 1.0            # most seconds that the gate follows a clock which jumps ahead


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
    lead: float      # seconds that it gets ahead, token by token
    start: float     # when the schedule was made,
    base: int        # and the number of tokens then
    seen: int        # number of tokens at the last update,
    last: float      # and when the newest of them was first seen

    def due(self) -> float:
        """Return when the next token is due."""
        number = self.seen - self.base + 1
        lead = min(number * min(LEAD_STEP * self.pace, MAX_LEAD_STEP), self.lead)
        return max(self.start + number * self.pace - lead, self.last + self.pace / CATCH_UP)


class Gate:
    """Opened by a timer, asked by the loop.

    Its time follows the clock passed to `open`, never runs backwards, and leaves out the time for
    which it was shut: after that, requests continue at their rate, without a flood or a wait.
    `open` never waits for the loop; `update` and `await_opening` are for the loop's thread only.
    `clock` is the server's, in seconds.
    """

    def __init__(self, config: RateControl = RateControl(),
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config       # may be replaced at any time
        self.wake: Callable[[], None] = lambda: None   # called when the loop has something to do
        self._clock = clock
        self._ros = 0.0            # the clock's time at the last tick; 0 = it has not begun
        self._opened = -math.inf   # time of that tick on the server's clock
        self._time = 0.0           # the gate's own
        self._wanted = math.inf    # gate time at which to wake the loop
        self.restful = False       # nothing is due before that, unless a request arrives
        self.speed = 0.0           # recent speed of the clock of `open`, 0 .. 1
        self._schedules: dict[Request, _Schedule] = {}

    def open(self, ros_now: float) -> None:  # noqa: A003
        """Release the tokens that are due by `ros_now`; the same time again releases none."""
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
        """Return the seconds until the next token of any request is due; 0 where not known."""
        return self._wanted - self._time if self.restful else 0.0

    def age(self, now: float) -> float:
        """Return the seconds since the gate was last opened."""
        return now - self._opened

    def shut(self, now: float) -> bool:
        """Return whether nothing may run."""
        return now - self._opened > self.config.stall_s

    def shuts_at(self) -> float:
        """Return when the gate shuts unless it is opened before, on the server's clock."""
        return self._opened + self.config.stall_s

    def await_opening(self) -> None:
        """Have `wake` called at the next opening."""
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
        """Remove the schedule of a request that has ended."""
        self._schedules.pop(request, None)

    def _due(self, request: Request, now: float) -> float:
        schedule, generated = self._schedules.get(request), request.generated
        if schedule is None or schedule.slo != request.slo:
            pace = pace_of(request, now)
            self.forget(request)   # not to be aligned with its own earlier schedule
            schedule = _Schedule(request.slo, pace, self._lead(pace), self._time, generated,
                                 generated, self._time)
            self._schedules[request], request.pace = schedule, pace
        elif schedule.seen != generated:
            schedule.seen, schedule.last = generated, self._time
        return schedule.due() if schedule.pace else -math.inf

    def _lead(self, pace: float) -> float:
        """Return the seconds that a request of this pace, scheduled from now, should get ahead.

        A step over several requests costs little more than a step over one: where another request
        has the same pace, or a multiple or fraction of it, the due times of both are aligned.
        """
        lead, best = LEAD * pace, math.inf
        for other in self._schedules.values():
            if not (pace and other.pace):
                continue
            span, longer = sorted((pace, other.pace))
            if abs(longer / span - round(longer / span)) < 1e-6:
                # The small addend keeps two that are aligned already from being a span apart.
                apart = (self._time - lead - other.start + other.lead + 1e-6) % span
                best = min(best, apart)
        return lead + best if best <= ALIGN * pace else lead


class GateWatch:
    """The loop's view of a gate, or of no gate, which is never shut.

    `notify` is called with True when the gate shuts while requests are live and every `REMIND`
    seconds while it stays shut, and with False when it opens.
    """

    def __init__(self, gate: Gate | None, notify: Callable[[bool], None]) -> None:
        self.shut = False
        self._gate, self._notify, self._notified_at = gate, notify, 0.0

    @property
    def mode(self) -> str:
        """The mode of rate control in force."""
        return (self._gate.config if self._gate is not None else RateControl()).mode

    def age(self, now: float) -> float:
        """Return the seconds since the gate was last opened; infinite without a gate."""
        return self._gate.age(now) if self._gate is not None else math.inf

    def shuts_at(self) -> float:
        """Return when the gate shuts unless it is opened before; infinite without a gate."""
        return self._gate.shuts_at() if self._gate is not None else math.inf

    def forget(self, request: Request) -> None:
        """Remove what the gate knows of a request that has ended."""
        if self._gate is not None:
            self._gate.forget(request)

    def passes(self, now: float, requests: Sequence[Request]) -> bool:
        """Return whether a step may run; gate those of `requests` that are not due."""
        if self._gate is None:
            return True
        shut = bool(requests) and self._gate.shut(now)
        if shut:
            self._gate.await_opening()
        else:
            self._gate.update(requests, now)
        if shut != self.shut or shut and now - self._notified_at >= REMIND:
            self._notified_at = now
            self._notify(shut)
        self.shut = shut
        return not shut


def pace_of(request: Request, now: float) -> float:
    """Return the seconds between further tokens that keep the objectives; 0 = no objective.

    With a deadline the longest answer is assumed. A deadline that is out of reach is ignored.
    """
    slo = request.slo
    left = DEADLINE_SHARE * (request.arrival + slo.deadline - now)
    by_deadline = left / max(request.max_tokens - request.generated, 1)
    pace = min(slo.tpot, by_deadline if left > 0 else math.inf)
    return 0.0 if pace == math.inf else pace
