# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Prefixes on disk: from the KV cache into files, and back after a restart."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
import hashlib
import logging
import os
from pathlib import Path
import threading

import numpy as np
from slice_ros.engine.checkpoints.cache_folder import cache_root
from slice_ros.engine.config import EngineConfig
from slice_ros.engine.kv.prefix_folder import PrefixFolder
from slice_ros.engine.kv.slot_memory import (
    clear_rest, copy_bytes, pieces, SlotMemory)
from slice_ros.engine.kv.slots import Slots

log = logging.getLogger('slice_ros.engine')

NICE = 10   # of the threads that read and write, as of images: steps come first
# A piece of work of the thread that runs the engine ends with each item: what it has to wait for.
Work = Generator[Future | None, None, bool]


class StoredPrefixes:
    """Copies prefixes of a model between the slots of a KV cache and the files of a folder.

    `mark` stands for all that decides the bits of the copies but their tokens. The thread that
    runs the engine copies, at most a piece at a time; threads of their own read and write. Whether
    that succeeds is for nobody to rely on: the log has the first reason why it does not.
    """

    def __init__(self, folder: PrefixFolder, mark: str, slots: Slots, table: np.ndarray,
                 memory: SlotMemory) -> None:
        self._folder, self._mark = folder, mark
        self._slots, self._table, self._memory = slots, table, memory
        self._warned = False

    def restore(self, tokens: list[int]) -> Work:
        """Bring a prefix into the KV cache, pinned; return whether that was done.

        Until it is complete no request can use it, and its room is free for them.
        """
        reading = _in_background(self._folder.read, self._name(tokens),
                                 copy_bytes(self._memory, len(tokens)))
        yield reading
        if not reading.done():
            return self.tell('it does not answer')
        if reading.exception() is not None:
            return self.tell(reading.exception())
        if (copy := reading.result()) is None:
            return False
        slot = self._slots.take()
        try:
            self._slots.reserve([(slot, len(tokens))])
            for piece in pieces(self._memory, len(tokens)):
                place = piece.of(slot, self._table)
                place[...] = copy[piece.begin:piece.end].reshape(place.shape)
                self._slots.park(slot, tokens)
                yield None
                if not self._slots.unpark(slot, tokens):
                    return False
        except Exception:
            self._slots.give(slot)
            raise
        self._slots.keep(slot, tokens, pin=True)
        return True

    def store(self, tokens: list[int]) -> Work:
        """Copy a prefix that is kept; return whether it is being written now."""
        copy = np.empty(copy_bytes(self._memory, len(tokens)), np.uint8)
        for piece in pieces(self._memory, len(tokens)):
            slot = self._slots.kept_slot(tokens)
            if slot is None:   # its room was needed; it is computed, and copied, again
                return False
            copy[piece.begin:piece.end] = piece.of(slot, self._table).ravel()
            yield None
        clear_rest(self._memory, copy, len(tokens))
        yield _in_background(self._write, self._name(tokens), copy)
        return True

    def _write(self, name: str, copy: np.ndarray) -> None:
        try:
            self._folder.write(name, copy)
        except (OSError, ValueError) as error:
            self.tell(error)

    def tell(self, reason: object) -> bool:
        """Log once why prefixes are computed in place of read; return False."""
        if not self._warned:
            self._warned = True
            log.warning('preambles are computed, and not kept in %s: %s', self._folder.path,
                        reason)
        return False

    def _name(self, tokens: Sequence[int]) -> str:
        numbers = np.array(tokens, '<i8').tobytes()
        return hashlib.sha256(self._mark.encode() + numbers).hexdigest()


def open_prefixes(config: EngineConfig, mark: Callable[[], str], slots: Slots, table: np.ndarray,
                  memory: SlotMemory) -> StoredPrefixes | None:
    """Return the prefixes that are on disk, None where the user has no place for them."""
    try:
        path = (Path(config.prefix_cache).expanduser() if config.prefix_cache
                else cache_root() / 'prefixes')
        return StoredPrefixes(PrefixFolder(path, config.prefix_cache_bytes), mark(), slots,
                              table, memory)
    except (OSError, RuntimeError) as error:
        log.warning('preambles are computed at each start: %s', error)
        return None


def _in_background(work: Callable, *arguments: object) -> Future:
    """Run in a thread that does not keep the process from ending, should a disk hang."""
    future = Future()

    def run() -> None:
        _be_nice()
        try:
            future.set_result(work(*arguments))
        except BaseException as error:   # for whoever looks at the result
            future.set_exception(error)
    threading.Thread(target=run, name='slice prefixes', daemon=True).start()
    return future


def _be_nice() -> None:
    """Leave the cores and the priority of the thread that has started this one to that."""
    with suppress(OSError, AttributeError):   # a thread has values of its own, on Linux
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()))
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
