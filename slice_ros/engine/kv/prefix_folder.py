# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A folder of stored prefixes: whole files that are this user's own, or nothing.

A file is its header and the copy of a prefix. Another process may cut it short, replace it or
delete it at any time: it is never mapped, and its size is known before it is read.
"""

from collections.abc import Iterator
from contextlib import suppress
import os
from pathlib import Path
import stat
import struct
import zlib

from filelock import FileLock, Timeout
import numpy as np

SUFFIX, NEW = '.prefix', '.new-'
LOCK = '.lock'
_HEADER = struct.Struct('<16s64sQI')   # magic, name, bytes of the copy, their checksum
_MAGIC = b'slice_ros prefix'
_PATIENCE_S = 30.0   # for another process that writes
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class PrefixFolder:
    """Files of prefixes by name, `most` bytes in all: the least recently used one goes first.

    For threads that may wait for a disk. The folder is made when something is written.
    """

    def __init__(self, path: Path, most: int) -> None:
        self.path, self.most = path, most

    def read(self, name: str, size: int) -> np.ndarray | None:
        """Return the copy, uint8 [size], that was written under a name; None: there is none.

        Raises ``OSError`` for a file that cannot be read, ``ValueError`` for one that is not what
        was written, or could be somebody else's.
        """
        path = self.path / f'{name}{SUFFIX}'
        try:   # a link is an error, and a pipe does not keep it waiting
            number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(number, 'rb', buffering=0) as file:
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode) or found.st_size != _HEADER.size + size:
                raise ValueError(f'{path} is no file of {_HEADER.size + size} bytes')
            if found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
                raise ValueError(f'{path} may be written by others than this user')
            head = file.read(_HEADER.size)
            copy = np.empty(size, np.uint8)
            if len(head) < _HEADER.size or not _fill(file, memoryview(copy)):
                raise ValueError(f'{path} was cut short')
            if head != _header(name, copy):
                raise ValueError(f'{path} is damaged')
            with suppress(OSError):   # the folder may be for reading alone
                os.utime(number)
        return copy

    def write(self, name: str, copy: np.ndarray) -> None:
        """Store a copy under a name; a reader finds all of it or nothing.

        Raises ``OSError`` when that cannot be done, ``ValueError`` where the folder has not the
        room, or others may write to it; nothing is left then.
        """
        size = _HEADER.size + copy.nbytes
        if size > self.most:
            raise ValueError(f'a prefix takes {size} bytes, and prefix_cache_bytes is {self.most}')
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.path.stat()
        if found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
            raise ValueError(f'others than this user may write to {self.path}: chmod go-w it, or '
                             'name another folder')
        try:
            with FileLock(self.path / LOCK, timeout=_PATIENCE_S, mode=0o600):
                self._make_room(size)
                self._write(self.path / f'{name}{SUFFIX}', name, copy)
        except Timeout as error:
            raise OSError(f'another process keeps {self.path / LOCK}') from error

    def _write(self, path: Path, name: str, copy: np.ndarray) -> None:
        work = path.with_name(f'{NEW}{name}')
        number = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                         | os.O_CLOEXEC, 0o600)
        try:
            with open(number, 'wb', buffering=0) as file:
                for part in (memoryview(_header(name, copy)), memoryview(copy)):
                    while part:
                        part = part[file.write(part):]
                os.fsync(number)   # else a name could outlive a power cut without its bytes
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Delete what killed writers have left, and the least recently used files."""
        kept = sorted(self._files(), key=lambda entry: entry[1].st_mtime_ns)
        total = sum(found.st_size for _, found in kept)
        for path, found in kept:
            if total + size <= self.most:
                break
            path.unlink(missing_ok=True)
            total -= found.st_size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        with os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    continue
                if entry.name.startswith(NEW):   # nobody writes: the lock is ours
                    os.unlink(entry.path)
                elif entry.name.endswith(SUFFIX):
                    with suppress(FileNotFoundError):
                        yield Path(entry.path), entry.stat(follow_symlinks=False)


def _header(name: str, copy: np.ndarray) -> bytes:
    return _HEADER.pack(_MAGIC, name.encode(), copy.nbytes, zlib.crc32(copy))


def _fill(file, room: memoryview) -> bool:
    """Read until `room` is full; return False where the file ends before."""
    while room:
        count = file.readinto(room)
        if not count:
            return False
        room = room[count:]
    return True
