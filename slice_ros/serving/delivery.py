# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Deliveries to callers, and the thread that makes them.

Publishing a token takes longer than the loop can spare before the next step. The loop only appends
to a queue, which takes microseconds; this thread empties it while the engine computes outside the
interpreter.

Where a step occupies every core, this thread and the subscribers have none, and a token passes
through three threads before a subscriber has it. The native kernels offer their cores at short
intervals. The loop also yields for a moment before its next step: most deliveries are received by
then, and the step that follows runs undisturbed, which makes up for the time.
"""

from collections.abc import Callable
import logging
from queue import SimpleQueue
import threading
import time
from typing import NamedTuple, TYPE_CHECKING

from slice_ros.errors import ErrorCode
from slice_ros.request import Request

if TYPE_CHECKING:
    from slice_ros.engine import Entries, ToolCall

log = logging.getLogger('slice_ros.serving')

RECEIVE_TIME = 2e-4  # seconds of processor time that a subscriber takes to receive a message
MAX_YIELD = 1e-3     # seconds that the loop yields at most before a step
MAX_QUEUED = 8192    # calls of `put` that may wait; then the loop waits, so that none is dropped


class Delivery(NamedTuple):
    """What the caller of a request receives: one sampled token, or the end of the request."""

    request: Request            # may have advanced further: use the fields below
    number: int                 # 0, 1, 2, ... within the request
    text: str                   # newly printable text; may be empty
    finish_reason: str | None   # None | stop | length | cancelled | error
    error: ErrorCode
    message: str                # one sentence when there is an error
    tokens: int                 # tokens generated so far
    at: float                   # when the engine had computed it, on the server's clock
    tool_calls: tuple['ToolCall', ...] = ()   # with the end: those that the answer ends with
    reasoning: str = ''         # newly printable text of the thought before the answer
    logprobs: tuple['Entries', ...] = ()   # of the tokens whose text begins here, where wanted


class DeliveryThread:
    """Calls consumers with their deliveries, in the order of `put`, in a thread of its own.

    A consumer returns True when it sent something that another process receives. `failed` is
    called, by that thread, with a delivery whose consumer raised.
    """

    def __init__(self, failed: Callable[[Delivery], None]) -> None:
        self._failed = failed
        self._queue: SimpleQueue = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()   # set while everything that was put is delivered
        self._received_by = 0.0          # when subscribers have received it, by `monotonic`
        self._has_subscribers = False    # whether yielding to subscribers is of any use

    def put(self, *deliveries: tuple[Callable[[object], bool | None], object]) -> None:
        """Queue (consumer, `Delivery` or other argument) pairs; the thread is woken once.

        Waits only while `MAX_QUEUED` earlier calls wait.
        """
        while self._queue.qsize() >= MAX_QUEUED:
            time.sleep(1e-3)
        self._idle.clear()
        self._queue.put(deliveries)

    def yield_cores(self) -> float:
        """Wait until what was put is received, `MAX_YIELD` seconds at most; return the seconds.

        Returns at once where there are no subscribers. For the thread that calls `put`.
        """
        if not self._has_subscribers:
            return 0.0
        begin = time.monotonic()
        if not self._idle.wait(MAX_YIELD):
            self._has_subscribers = False   # far behind: do not wait until it has caught up
        else:
            time.sleep(max(min(self._received_by, begin + MAX_YIELD) - time.monotonic(), 0.0))
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
        while (deliveries := self._queue.get()) is not None:
            sent = 0
            for consumer, delivery in deliveries:
                try:
                    sent += consumer(delivery) is True
                except BaseException:  # the fault of one caller ends that caller's request only
                    if not isinstance(delivery, Delivery):
                        log.exception('a notification failed')
                        continue
                    log.exception('the consumer of request %s failed; it is cancelled',
                                  delivery.request.id)
                    self._failed(delivery)
            self._has_subscribers = sent > 0
            self._received_by = max(self._received_by, time.monotonic()) + sent * RECEIVE_TIME
            if self._queue.empty():
                self._idle.set()
