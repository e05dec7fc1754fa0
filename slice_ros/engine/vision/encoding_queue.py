# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Images that wait to be encoded: one piece at a time, those that are wanted most first."""

from collections.abc import Callable, Iterator, Sequence, Set
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
MOST_BEGUN = 2   # each keeps the pixels of all its pieces; of others the work so far is lost


@dataclass(eq=False, slots=True)
class Encoding:
    """Images that somebody waits for.

    `order` and `wanted` are asked before each piece, with the seconds that the rest takes: the
    least order comes first, and what is not wanted any more is forgotten. Otherwise `ended` is
    called when all rows are there, or with what has failed. Anybody may ask `order` and `alive`,
    whether they are waited for, at any time; they decide nothing.
    """

    images: Sequence[SeenImage]
    order: Callable[[float], tuple]
    wanted: Callable[[float], bool]
    ended: Callable[[BaseException | None], object]
    alive: Callable[[], bool] = lambda: True
    pieces: Iterator[tuple[int, int]] | None = None   # None: not begun
    piece: int = 0   # parts of the next piece
    left: int = 0    # parts of all that is left, once it has begun


class EncodingQueue:
    """Encodes in a thread of its own. Thread-safe; its bound is that of those who wait.

    `pieces` encodes images: it yields the parts of the next piece, and those of all that is left,
    and encodes that piece when it is asked again. `part_s` returns the seconds of a part, `known`
    whether the rows of an image are there already, by its key.
    """

    def __init__(self, pieces: Callable[[Sequence[SeenImage]], Iterator[tuple[int, int]]],
                 part_s: Callable[[], float],
                 clock: Callable[[], float] = time.monotonic,
                 known: Callable[[int], bool] = lambda key: False) -> None:
        self._pieces, self._part_s, self._clock, self._known = pieces, part_s, clock, known
        self._lock = threading.Lock()
        self._waiting: list[Encoding] = []
        self._running: Encoding | None = None
        self._began = 0.0      # when the running piece has begun
        self._working = False
        self._thread = ThreadPoolExecutor(1, 'slice vision', _be_nice)

    def put(self, encoding: Encoding) -> None:
        """Have images encoded. What is not wanted any more leaves, and keeps no picture."""
        with self._lock:
            self._waiting = [e for e in (*self._waiting, encoding) if (
                e.alive() if e is self._running else e.wanted(self._left_s(e)))]
            if self._waiting and not self._working:
                self._working = True
                self._thread.submit(self._work)

    def seconds_until(self, images: Sequence[SeenImage], order: Callable[[float], tuple]) -> float:
        """Return the seconds until images would be encoded, if they came now.

        `order` is as that of an `Encoding`. An image that others wait for counts once.
        """
        with self._lock:
            part_s, running, keys = self._part_s(), self._running, set()
            place, seconds = order(self._parts(images) * part_s), 0.0
            gone = [running] if running is not None and running not in self._waiting else []
            for encoding in gone + self._waiting:
                if encoding.alive() and encoding.order(self._left_s(encoding)) <= place:
                    seconds += self._left_s(encoding, keys)
                    keys.update(image.key for image in encoding.images)
                elif encoding is running:
                    seconds += running.piece * part_s - self._spent(running)
            return seconds + self._parts(images, keys) * part_s

    def _parts(self, images: Sequence[SeenImage], besides: Set[int] = frozenset()) -> int:
        """Return the parts of images that are still to be encoded, beside those of some keys."""
        return sum(image.parts for image in {image.key: image for image in images}.values()
                   if image.rows is None and image.key not in besides
                   and not self._known(image.key))

    def _left_s(self, encoding: Encoding, besides: Set[int] = frozenset()) -> float:
        parts = (encoding.left if encoding.pieces is not None
                 else self._parts(encoding.images, besides))
        return parts * self._part_s() - self._spent(encoding)

    def _spent(self, encoding: Encoding) -> float:
        """Return the seconds that the piece of an encoding has run, as far as they count."""
        if encoding is not self._running:
            return 0.0
        return min(self._clock() - self._began, encoding.piece * self._part_s())

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
                self._waiting = [e for e in self._waiting if e.wanted(self._left_s(e))]
                first, *others = sorted(
                    self._waiting, key=lambda e: e.order(self._left_s(e))) or [None]
                begun = [e for e in others if e.pieces is not None]
                for encoding in begun[MOST_BEGUN - 1:]:
                    encoding.pieces = None
                self._running = first
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
