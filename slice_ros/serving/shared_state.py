# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the serving loop shares with all other threads, under one lock.

The lock is taken for table look-ups only. Everything else belongs to one thread: the engine, the
policy and the progress of live requests to the loop.

Any thread may decide how a live request ends; the loop then ends it before its next step. The
first decision is the one that counts: a step that would have finished the request meanwhile does
not change it, and whoever decided later learns that it came too late.
"""

from collections.abc import Callable
import math
import threading
from typing import NamedTuple

from slice_ros.errors import ErrorCode
from slice_ros.request import Request, State
from slice_ros.serving.job import Job
from slice_ros.serving.server_config import ServerConfig
from slice_ros.serving.sessions import Turn
from slice_ros.serving.stats import ClassStats, LoopStats
from slice_ros.slo import SloClass


class Ending(NamedTuple):
    """How a request ends."""

    state: State
    error: ErrorCode = ErrorCode.NONE
    message: str = ''


class Changes(NamedTuple):
    """What other threads have asked the loop for since it last looked."""

    version: int                # for `SharedState.wait`
    jobs: dict[str, Job]        # a copy of the live ones, in order of arrival
    decided: list[str]          # ids of those that are to be ended at once
    objectives: Callable[[SloClass], SloClass] | None   # new ones for live requests
    stop_at: float              # when all that still live are ended


class SharedState:
    """Live jobs, pending changes, configuration and statistics of one server.

    `changed` guards every field and is notified when the loop has something to look at. Methods
    take it themselves unless they say otherwise.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.changed = threading.Condition()
        self.config = config
        self.jobs: dict[str, Job] = {}                # live, in order of arrival
        self.stop_at = math.inf                       # finite while draining
        self.class_stats: dict[str, ClassStats] = {}
        self.loop_stats = LoopStats()
        self._endings: dict[str, Ending] = {}         # decided, of live jobs
        self._objectives: Callable[[SloClass], SloClass] | None = None
        self._version = 0                             # counts changes

    # -- for the loop ------------------------------------------------------------------------

    def take_changes(self) -> Changes:
        """Return what has changed."""
        with self.changed:
            objectives, self._objectives = self._objectives, None
            return Changes(self._version, dict(self.jobs), list(self._endings), objectives,
                           self.stop_at)

    def wait(self, version: int, until: float, clock: Callable[[], float]) -> None:
        """Wait until something has changed since `version`, or the `clock` reads `until`."""
        with self.changed:
            while self._version == version:
                left = until - clock()
                if left <= 0:
                    return
                self.changed.wait(min(left, threading.TIMEOUT_MAX))

    def end(self, job: Job, ending: Ending | None, now: float) -> Ending:
        """Take a job out and end its request: as was decided, else as `ending` says.

        `ending` may be None where it is decided. Returns how it ended; from now on nobody can
        decide otherwise.
        """
        request = job.request
        with self.changed:
            ending = self._endings.pop(request.id, ending)
            self.jobs.pop(request.id, None)
            if not request.ended:
                request.end(ending.state, now, ending.error)
            self.stats_of(request.slo.name).end(request)
            self.loop_stats.end(request)
        return ending

    # -- for all threads ---------------------------------------------------------------------

    def notify(self) -> None:
        """Make the loop look at the state again."""
        with self.changed:
            self._notify()

    def add(self, job: Job) -> None:
        """Make a job live; `changed` must be locked."""
        self.jobs[job.request.id] = job
        self.stats_of(job.request.slo.name).received += 1
        self._notify()

    def waiting(self) -> list[Job]:
        """Return the jobs that have a place in the queue; `changed` must be locked.

        They wait for a step without a KV cache, and their end is not decided.
        """
        return [job for job in self.jobs.values()
                if not job.request.cached and job.request.id not in self._endings]

    def goes_on(self, job: Job) -> bool:
        """Return whether a job is live, and its end not decided; `changed` must be locked."""
        request_id = job.request.id
        return self.jobs.get(request_id) is job and request_id not in self._endings

    def encoded(self, job: Job) -> None:
        """Have steps take a job whose images were encoded; `changed` must be locked."""
        job.encoding = False
        self._notify()

    def decide(self, request_id: str, ending: Ending) -> bool:
        """Have a live request end so; return False if its end is decided already.

        `changed` must be locked. True means that it ends so, whatever the current step brings.
        """
        if request_id not in self.jobs or request_id in self._endings:
            return False
        self._endings[request_id] = ending
        self._notify()
        return True

    def cancel(self, request_id: str, why: str) -> bool:
        """End a request before the next step; return whether this call ends it.

        True means that it ends with CANCELLED, also where the current step would finish it.
        """
        with self.changed:
            return self.decide(request_id, Ending(State.CANCELLED, ErrorCode.CANCELLED, why))

    def abandon(self, turn: Turn, why: str) -> None:
        """Have the request of a turn end with CANCELLED, or be refused if it is not live yet."""
        with self.changed:
            turn.abandoned = why
            for job in self.jobs.values():
                if job.turn is turn:
                    self.decide(job.request.id, Ending(State.CANCELLED, ErrorCode.CANCELLED, why))

    def stop(self, at: float) -> None:
        """Accept no more jobs, and have the loop end those that live `at` that time."""
        with self.changed:
            self.stop_at = min(self.stop_at, at)
            self._notify()

    def restart(self) -> None:
        """Accept jobs again after a stop."""
        with self.changed:
            self.stop_at = math.inf

    def change_objectives(self, change: Callable[[SloClass], SloClass]) -> None:
        """Have `change` applied to the objectives of live requests; `changed` must be locked."""
        earlier = self._objectives or (lambda slo: slo)
        self._objectives = lambda slo: change(earlier(slo))
        self._notify()

    def count(self, request: Request) -> None:
        """Count a request that has ended without becoming live."""
        with self.changed:
            stats = self.stats_of(request.slo.name)
            stats.received += 1
            stats.end(request)

    def mark(self) -> tuple:
        """Return what differs from an earlier mark when anything but time has changed."""
        with self.changed:
            return (self._version, self.loop_stats.steps, set(self.jobs),
                    [(stats.received, stats.cancelled) for stats in self.class_stats.values()])

    def live(self) -> list[Job]:
        """Return the live jobs, in order of arrival."""
        with self.changed:
            return list(self.jobs.values())

    def stats_of(self, name: str) -> ClassStats:
        """Return the statistics of a class; `changed` must be locked."""
        return self.class_stats.setdefault(name, ClassStats())

    def class_names(self) -> list[str]:
        """Return the configured classes and those of live requests; `changed` must be locked."""
        live = [job.request.slo.name for job in self.jobs.values()]
        return list(dict.fromkeys([*(slo.name for slo in self.config.classes), *live]))

    def _notify(self) -> None:
        self._version += 1
        self.changed.notify_all()
