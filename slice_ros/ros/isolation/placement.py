# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Where and how urgently the threads of the node run: CPUs, nice values, real-time priorities.

Linux sets each for single threads, and a thread inherits those of the thread that starts it: the
threads of deliveries and of reading have those of the executor.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
import os
import re
import threading

CPUS = r'(\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*)?'   # as taskset takes them: 0-3,6


class PlacementError(Exception):
    """A placement that the system does not permit; the sentence names the parameter."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How a thread runs, by the parameters threads.`of`_*; the defaults are as the process is."""

    of: str                              # executor or loop
    cpus: frozenset[int] = frozenset()   # empty: all that the process may use
    nice: int = 0                        # 0: that of the process
    priority: int = 0                    # of SCHED_FIFO; 0: no real-time scheduling


def cpus_from(text: str) -> frozenset[int]:
    """Return the CPUs of a list such as 0-3,6. Raises ``ValueError``."""
    if not re.fullmatch(CPUS, text):
        raise ValueError(f'must be CPUs such as 0-3,6, not {text!r:.80}')
    ends = [part.split('-') for part in text.split(',') if part]
    return frozenset(cpu for part in ends for cpu in range(int(part[0]), int(part[-1]) + 1))


def place(placement: Placement, thread: int = 0) -> None:
    """Have a thread run so, the calling one for 0. Raises `PlacementError`."""
    main = os.getpid()   # the main thread is as the process was started
    allowed, name = os.sched_getaffinity(main), f'threads.{placement.of}'
    if not placement.cpus <= allowed:
        raise PlacementError(f'{name}_cpus: this process may use the CPUs '
                             f'{",".join(map(str, sorted(allowed)))} only')
    os.sched_setaffinity(thread, placement.cpus or allowed)
    nice = placement.nice or os.getpriority(os.PRIO_PROCESS, main)
    try:
        if os.getpriority(os.PRIO_PROCESS, thread) != nice:
            os.setpriority(os.PRIO_PROCESS, thread, nice)
    except PermissionError as error:
        raise PlacementError(
            f'{name}_nice: the nice value {nice} is not permitted: choose one that is no lower '
            'than those of the process and the executor, or give the process CAP_SYS_NICE or a '
            'limit (ulimit -e)') from error
    policy = os.SCHED_FIFO if placement.priority else os.SCHED_OTHER
    try:
        if placement.priority or os.sched_getscheduler(thread) == os.SCHED_FIFO:
            os.sched_setscheduler(thread, policy, os.sched_param(placement.priority))
    except PermissionError as error:
        raise PlacementError(
            f'{name}_priority: the real-time priority {placement.priority} is not permitted: '
            'give the process CAP_SYS_NICE or a limit (ulimit -r), or set it to 0') from error


def try_out(*placements: Placement) -> None:
    """Place a thread that ends at once, in this order. Raises `PlacementError`."""
    errors = []

    def body() -> None:
        try:
            for placement in placements:
                place(placement)
        except PlacementError as error:
            errors.append(error)
    if all(placement == Placement(placement.of) for placement in placements):
        return
    thread = threading.Thread(target=body, name='placement')
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def placing_threads(placement: Placement, work: Callable[[], None]) -> None:
    """Do some work, and place the threads of libraries that it starts. Raises `PlacementError`."""
    if placement == Placement(placement.of):
        work()
        return
    before = _threads()
    work()
    own = {thread.native_id for thread in threading.enumerate()}
    for thread in _threads() - before - own:
        with suppress(ProcessLookupError):
            place(placement, thread)


def _threads() -> Collection[int]:
    return {int(name) for name in os.listdir('/proc/self/task')}
