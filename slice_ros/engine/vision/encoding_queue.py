# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Images that wait to be encoded: one piece at a time, those that are wanted most first."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
import logging
import os
import threading
import time

from slice_ros.engine.vision.image_tokens import SeenImage

log = logging.getLogger('slice_ros.engine')

NICE = 10   # of the thread that encodes: beside steps it gets a tenth of a core


@dataclass(eq=False, slots=True)
class Encoding:
    """Images that somebody waits for.

    `order` and `wanted` are asked before each piece, with the seconds that the rest takes: the
    least order comes first, and what is not wanted any more is forgotten. Otherwise `ended` is
    called when all rows are there, or with what has failed.
    """

    images: Sequence[SeenImage]
    order: Callable[[float], tuple]
    wanted: Callable[[float], bool]
    ended: Callable[[BaseException | None], object]
    pieces: Iterator[tuple[int, int]] | None = None   # None: not begun
    piece: int = 0   # parts of the next piece
    left: int = 0    # parts of all that is left


class EncodingQueue:
    """Encodes in a thread of its own. Thread-safe; its bound is that of those who wait.

    `pieces` encodes images: it yields the parts of the next piece, and those of all that is left,
    and encodes that piece when it is asked again. `part_s` returns the seconds of a part.
    """

    def __init__(self, pieces: Callable[[Sequence[SeenImage]], Iterator[tuple[int, int]]],
                 part_s: Callable[[], float],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._pieces, self._part_s, self._clock = pieces, part_s, clock
        self._lock = threading.Lock()
        self._waiting: list[Encoding] = []
        self._running: Encoding | None = None
        self._began = 0.0      # when the running piece has begun
        self._working = False
        self._thread = ThreadPoolExecutor(1, 'slice vision', _be_nice)

    def put(self, encoding: Encoding) -> None:
        """Have images encoded. What is not wanted any more leaves, so that it keeps no picture."""
        encoding.left = sum(image.parts for image in encoding.images if image.rows is None)
        with self._lock:
            self._waiting.append(encoding)
            self._waiting = self._wanted()
            if self._waiting and not self._working:
                self._working = True
                self._thread.submit(self._work)

    def seconds_before(self, order: tuple) -> float:
        """Return the seconds until an encoding of this order would begin."""
        part_s = self._part_s()
        with self._lock:
            running, parts = self._running, 0
            for encoding in self._wanted():
                if encoding.order(encoding.left * part_s) <= order:
                    parts += encoding.left
                elif encoding is running:
                    parts += encoding.piece
            begun = self._clock() - self._began if running else 0.0
        return max(parts * part_s - begun, 0.0)

    def _wanted(self) -> list[Encoding]:
        part_s = self._part_s()
        return [encoding for encoding in self._waiting if encoding.wanted(encoding.left * part_s)]

    def _work(self) -> None:
        while (encoding := self._first()) is not None:
            over, error = True, None
            try:
                over = self._advance(encoding)
            except BaseException as raised:   # native code may raise more than `Exception`
                error = raised
            with self._lock:
                self._running = None
                known = encoding in self._waiting
                if over and known:
                    self._waiting.remove(encoding)
            if over and known:
                _tell(encoding, error)

    def _first(self) -> Encoding | None:
        """Return what is encoded next; None where nothing waits, and this thread rests."""
        given_up, fault = [], None
        with self._lock:
            try:
                self._waiting = self._wanted()
                part_s = self._part_s()
                self._running = min(self._waiting, default=None,
                                    key=lambda e: e.order(e.left * part_s))
            except BaseException as error:
                given_up, self._waiting, fault = self._waiting, [], error
            self._working, self._began = self._running is not None, self._clock()
            running = self._running
        for encoding in given_up:
            _tell(encoding, fault)
        return running

    def _advance(self, encoding: Encoding) -> bool:
        """Encode the next piece; return whether it was the last."""
        if encoding.pieces is None:
            encoding.pieces = self._pieces(encoding.images)
        coming = next(encoding.pieces, None)
        encoding.piece, encoding.left = coming or (0, 0)
        return coming is None


def _tell(encoding: Encoding, error: BaseException | None) -> None:
    try:
        encoding.ended(error)
    except BaseException:
        log.exception('the end of an encoding could not be noted')


def _be_nice() -> None:
    with suppress(OSError):   # a thread of its own has a nice value of its own, on Linux
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
