# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of files that slice_ros may delete and make again, shared by all its processes."""

from collections.abc import Callable
import errno
import os
from pathlib import Path

from filelock import FileLock

_PATIENCE_S = 1.0  # how long a small file waits for another process that writes it


def cache_root() -> Path:
    """Return the folder.

    Raises ``OSError`` when the user has no home directory.
    """
    place = os.environ.get('XDG_CACHE_HOME')
    try:
        return Path(place or Path.home() / '.cache') / 'slice_ros'
    except RuntimeError as error:
        raise OSError(errno.ENOENT, str(error)) from error


def lock_of(name: str, timeout: float) -> FileLock:
    """Return the lock of a file or folder of the cache. Raises ``OSError`` as `FileLock` does.

    The locks have a folder of their own. They stay: deleting one could let two processes in.
    """
    locks = cache_root() / 'locks'
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f'{name}.lock', timeout=timeout)


def keep_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file of the cache: a reader finds all of it or nothing.

    Raises ``OSError`` when it cannot be written; nothing is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_of(path.name, _PATIENCE_S):
        work = path.with_name(f'.new-{path.name}')  # may be there, if a process was killed
        try:
            write(work)
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)
