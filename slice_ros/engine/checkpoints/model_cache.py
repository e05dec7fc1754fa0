# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Converted models on disk: a GGUF file becomes a Hugging Face directory once, by its hash.

Reading a GGUF file, above all its tokenizer, takes many times longer than reading safetensors and
tokenizer.json. Codes that the native kernels can use are kept. An entry is
written beside its place and renamed, so that a reader finds all of it or nothing. Its hashes are
checked at every start, and a damaged entry is converted again. Who converts has the lock of the
entry, so processes that start together convert a model once. Where the disk takes no entry, the
model is converted into a temporary directory.
"""

from collections.abc import Iterator
from contextlib import contextmanager, ExitStack
import errno
import hashlib
import json
import logging
import os
from pathlib import Path
import re
import secrets
import shutil
import tempfile

from filelock import FileLock
import numpy as np
from slice_ros.engine.checkpoints import tensor_files
from slice_ros.engine.checkpoints.cache_folder import cache_root, lock_of
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.config import no_progress, Progress
from slice_ros.errors import ModelError

logger = logging.getLogger(__name__)

_VERSION = 6  # of the layout of an entry; a higher number has every model converted again
_MANIFEST = 'slice_ros.json'
_NEEDED = {'config.json', 'model.safetensors', 'tokenizer.json'}
_NEW, _TEMPORARY = '.new-', 'slice_ros-conversion-'
_PATIENCE_S = 300.0  # how long a start waits for another process that converts the same model
_MEMORY = '/dev/shm'  # files there need no disk
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


@contextmanager
def converted(gguf: Path, dtype: np.dtype, progress: Progress = no_progress) -> Iterator[Path]:
    """Yield a Hugging Face directory with the model of `gguf`, matrices in `dtype`.

    It is an entry of the cache, or a temporary directory, deleted afterwards, where the cache
    cannot be written. Raises ``ModelError`` when the file cannot be read, or no disk has room.
    """
    name = f'{file_hash(gguf)[:32]}-{np.dtype(dtype).name}-v{_VERSION}'
    try:
        entry = _cached(gguf, dtype, name, progress)
    except OSError as error:
        logger.warning(
            'the disk does not take the converted model (%s): every start converts it again; '
            'make room, or set XDG_CACHE_HOME to a folder on a disk that can be written', error)
        with ExitStack() as stack:
            yield _temporary(gguf, dtype, progress, stack)
    else:
        yield entry


def _cached(gguf: Path, dtype: np.dtype, name: str, progress: Progress) -> Path:
    """Return the entry `name` of the cache, converted now if there is none.

    Raises ``OSError`` when the cache cannot be read or written.
    """
    folder = cache_root() / 'models'
    entry, work = folder / name, folder / f'{_NEW}{name}'
    _sweep(folder)
    if _intact(entry):
        return entry
    folder.mkdir(parents=True, exist_ok=True)
    progress('waiting for the cache of converted models', 0.0)
    with lock_of(name, _PATIENCE_S):
        if _intact(entry):  # another process has converted it meanwhile
            return entry
        _delete(work)       # of a process that was killed
        try:
            work.mkdir()
            _convert(gguf, dtype, work, progress)
            if os.path.lexists(entry):
                logger.warning('%s is damaged or incomplete: replaced', entry)
                _delete(entry)
            work.rename(entry)
        finally:
            _delete(work)
    return entry


def _sweep(folder: Path) -> None:
    """Delete what processes that were killed have left; a live one has the lock of its entry."""
    for work in folder.glob(f'{_NEW}*'):
        try:
            with lock_of(work.name.removeprefix(_NEW), timeout=0):
                _delete(work)
        except OSError:
            pass  # it is in use, or cannot be deleted


def _temporary(gguf: Path, dtype: np.dtype, progress: Progress, stack: ExitStack) -> Path:
    """Return a directory with the converted model, on the first disk that has room.

    `stack` deletes it. Raises ``ModelError`` when no disk has room.
    """
    places, reason = _places(), None
    for place in places:
        try:
            directory = stack.enter_context(_temporary_directory(place))
            _convert(gguf, dtype, directory, progress)
            return directory
        except OSError as error:
            if error.errno not in _DISK:
                raise
            stack.close()  # deletes what was written
            reason = error
    raise ModelError(
        f'{gguf} must be converted and no disk takes the result ({reason}): make room in '
        f'{" or ".join(map(str, places)) or "a temporary directory"}, or set XDG_CACHE_HOME to a '
        'folder on a disk that can be written')


def _places() -> list[Path]:
    """Return the folders for temporary files, the usual one first."""
    try:
        usual = [tempfile.gettempdir()]
    except FileNotFoundError:  # none of them can be written
        usual = []
    return list(map(Path, dict.fromkeys([*usual, *([_MEMORY] if os.path.isdir(_MEMORY) else [])])))


@contextmanager
def _temporary_directory(place: Path) -> Iterator[Path]:
    """Yield a new directory in `place`; a lock beside it shows others that it is in use.

    Directories of processes that were killed are deleted first.
    """
    for lock in place.glob(f'{_TEMPORARY}*.lock'):
        try:
            with FileLock(lock, timeout=0):
                _delete(lock.with_suffix(''))
                _delete(lock)
        except OSError:
            pass  # it is in use, or another user's
    directory = place / f'{_TEMPORARY}{secrets.token_hex(8)}'
    lock = directory.with_suffix('.lock')
    with FileLock(lock):
        try:
            directory.mkdir(0o700)
            yield directory
        finally:
            _delete(directory)
            _delete(lock)


def types(entry: Path) -> dict[str, str]:
    """Return the GGUF types of the matrices of an entry, by their Hugging Face names."""
    return json.loads((entry / _MANIFEST).read_text())['types']


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _convert(gguf: Path, dtype: np.dtype, target: Path, progress: Progress) -> None:
    progress('reading the GGUF file', 0.0)
    source = GgufFile(gguf)
    (target / 'config.json').write_text(json.dumps(source.config(), indent=2))
    progress('converting its tokenizer', 0.1)
    _save_tokenizer(source.tokenizer(), target)
    progress('converting its weights', 0.5)
    tensor_files.write(target / 'model.safetensors', source.tensors(dtype))
    hashes = {file.name: file_hash(file) for file in sorted(target.iterdir())}
    (target / _MANIFEST).write_text(json.dumps(
        {'source': gguf.name, 'types': source.types(), 'files': hashes}, indent=2))


def _save_tokenizer(tokenizer, target: Path) -> None:
    try:
        tokenizer.save_pretrained(target)
    except Exception as error:
        # The Rust library raises a bare Exception where Python raises OSError.
        found = re.search(r'\(os error (\d+)\)', str(error))
        if isinstance(error, OSError) or not found:
            raise
        raise OSError(int(found[1]), f'{target}: {error}') from error


def _intact(entry: Path) -> bool:
    """Return whether an entry has all files, with the hashes of its manifest.

    Raises ``OSError`` when it exists and cannot be read: it may be good then, and in use.
    """
    try:
        manifest = json.loads((entry / _MANIFEST).read_text())
        files = manifest['files']
        return (_NEEDED <= files.keys() and isinstance(manifest['types'], dict)
                and all(Path(name).name == name and (entry / name).is_file()
                        and file_hash(entry / name) == digest for name, digest in files.items()))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError,
            TypeError, AttributeError, RecursionError):
        return False


def _delete(path: Path) -> None:
    """Delete a file or a directory, if it can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass
