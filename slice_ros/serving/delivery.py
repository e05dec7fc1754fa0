# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What callers are told, and the thread that tells them.

Publishing a token costs more than a loop that owes others their next step should spend. So the
loop only appends to a queue, which takes microseconds, and this thread works it off while the
engine computes outside the interpreter.

An engine that takes every core leaves none to this thread and to the listeners, and a token passes
through three threads. The native kernels offer their cores for a moment again and again; the loop
rests before it goes on as well, so that most is told by then, and the step that follows runs
undisturbed, which makes up for it.
"""

from collections.abc import Callable
import logging
from queue import SimpleQueue
import threading
import time
from typing import NamedTuple

from slice_ros.errors import ErrorCode
from slice_ros.request import Request

log = logging.getLogger('slice_ros.serving')

LISTEN = 2e-4  # seconds of processor time that a subscriber takes to hear a message
MOST = 1e-3    # seconds that the loop rests at most, for this thread and for those it told
LIMIT = 8192   # steps whose deliveries may wait; then the loop waits, so that none is lost


class Delivery(NamedTuple):
    """What the caller of a request is told: one sampled token, or that it has ended."""

    request: Request            # may be further on already: what counts is in the fields below
    number: int                 # 0, 1, 2, ... within the request
    text: str                   # newly printable text; may be empty
    finish_reason: str | None   # None | stop | length | cancelled | error
    error: ErrorCode
    message: str                # one sentence when there is an error
    tokens: int                 # tokens generated so far
    at: float                   # when the engine was done with it, on the server's clock


class Courier:
    """Calls consumers with their deliveries, in the order of `put`, from a thread of its own.

    A consumer returns True when it sent what somebody outside this process will hear. `failed` is
    called, by that thread, with a delivery whose consumer raised.
    """

    def __init__(self, failed: Callable[[Delivery], None]) -> None:
        self._failed = failed
        self._queue: SimpleQueue = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()   # whether all that was put is told
        self._heard_by = 0.0             # when listeners have heard what was told, by `monotonic`
        self._listened = False           # whether there were any, and `rest` is worth it

    def put(self, *news: tuple[Callable[[object], bool | None], object]) -> None:
        """Leave (consumer, `Delivery` or other news) to the thread, woken once for all of them.

        Waits only while `LIMIT` calls of it wait already.
        """
        while self._queue.qsize() >= LIMIT:
            time.sleep(1e-3)
        self._idle.clear()
        self._queue.put(news)

    def rest(self) -> float:
        """Let what was put be told and heard, for `MOST` seconds at most, if there are listeners.

        Return the seconds that took. For the thread that calls `put`.
        """
        if not self._listened:
            return 0.0
        begin = time.monotonic()
        if not self._idle.wait(MOST):
            self._listened = False   # far behind: not waited for until it has told more
        else:
            time.sleep(max(min(self._heard_by, begin + MOST) - time.monotonic(), 0.0))
        return time.monotonic() - begin

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name='slice delivery', daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Deliver what was put so far, then end; return whether that took `timeout` at most."""
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._queue.put(None)
        thread.join(timeout)
        return not thread.is_alive()

    def _run(self) -> None:
        while (together := self._queue.get()) is not None:
            sent = 0
            for consumer, delivery in together:
                try:
                    sent += consumer(delivery) is True
                except Exception:  # a caller's fault is that caller's alone
                    if not isinstance(delivery, Delivery):
                        log.exception('what was told was not taken')
                        continue
                    log.exception('the consumer of request %s failed; it is cancelled',
                                  delivery.request.id)
                    self._failed(delivery)
            self._listened = sent > 0
            self._heard_by = max(self._heard_by, time.monotonic()) + sent * LISTEN
            if self._queue.empty():
                self._idle.set()
