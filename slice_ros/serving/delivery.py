"""What callers are told, and the thread that tells them.

Publishing a token costs more than a loop that owes others their next step should spend. So the
loop only appends to a queue, which takes microseconds, and this thread works it off while the
engine computes outside the interpreter.
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

    `failed` is called, by that thread, with a delivery whose consumer raised.
    """

    def __init__(self, failed: Callable[[Delivery], None]) -> None:
        self._failed = failed
        self._queue: SimpleQueue = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, *news: tuple[Callable[[object], None], object]) -> None:
        """Leave (consumer, `Delivery` or other news) to the thread, woken once for all of them.

        Waits only while `LIMIT` calls of it wait already.
        """
        while self._queue.qsize() >= LIMIT:
            time.sleep(1e-3)
        self._queue.put(news)

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
            for consumer, delivery in together:
                try:
                    consumer(delivery)
                except Exception:  # a caller's fault is that caller's alone
                    if not isinstance(delivery, Delivery):
                        log.exception('what was told was not taken')
                        continue
                    log.exception('the consumer of request %s failed; it is cancelled',
                                  delivery.request.id)
                    self._failed(delivery)
