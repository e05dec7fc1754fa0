# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Converted models on disk: a GGUF file becomes a Hugging Face directory once, by its hash.

Reading a GGUF file, above all its tokenizer, takes many times longer than reading safetensors and
tokenizer.json. Blocks of codes that the native kernels can use are copied unchanged. An entry is
written beside its place and renamed, so that a reader finds all of it or nothing. Its hashes are
checked at every start, and a damaged entry is converted again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
import hashlib
import json
import logging
import os
from pathlib import Path
import shutil
import tempfile

import numpy as np
from slice_ros.engine.checkpoints import tensor_files
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.config import no_progress, Progress

logger = logging.getLogger(__name__)

_VERSION = 4  # of the layout of an entry; a higher number has every model converted again
_MANIFEST = 'slice_ros.json'


def cache_root() -> Path:
    """Return the folder of files that slice_ros may delete and make again."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'slice_ros'


@contextmanager
def converted(gguf: Path, dtype: np.dtype, progress: Progress = no_progress) -> Iterator[Path]:
    """Yield a Hugging Face directory with the model of `gguf`, matrices in `dtype`.

    It is an entry of the cache, or a temporary directory, deleted afterwards, where the cache
    cannot be written. Raises ``ModelError`` when the file cannot be read.
    """
    directory, temporary = _directory(gguf, dtype, progress)
    try:
        yield directory
    finally:
        if temporary:
            shutil.rmtree(directory, ignore_errors=True)


def _directory(gguf: Path, dtype: np.dtype, progress: Progress) -> tuple[Path, bool]:
    """Return the directory of a converted model, and whether it is temporary."""
    name = f'{file_hash(gguf)[:32]}-{np.dtype(dtype).name}-v{_VERSION}'
    entry = cache_root() / 'models' / name
    if _intact(entry):
        return entry, False
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix='.new-', dir=entry.parent))
    except OSError as error:
        logger.warning('cannot keep the converted model in %s (%s): every start converts it again',
                       entry.parent, error)
        work = Path(tempfile.mkdtemp(prefix='slice_ros-'))
        _convert(gguf, dtype, work, progress)
        return work, True
    try:
        _convert(gguf, dtype, work, progress)
        if entry.exists():
            logger.warning('%s is damaged or incomplete: replaced', entry)
            shutil.rmtree(entry)
        work.rename(entry)
    except OSError:
        if not _intact(entry):  # another process may have converted it meanwhile
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return entry, False


def precision(entry: Path) -> str | None:
    """Return the weights, 'int4' or 'int8', of the GGUF file of an entry; None = 16 bits."""
    return json.loads((entry / _MANIFEST).read_text())['precision']


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _convert(gguf: Path, dtype: np.dtype, target: Path, progress: Progress) -> None:
    progress('reading the GGUF file', 0.0)
    source = GgufFile(gguf)
    (target / 'config.json').write_text(json.dumps(source.config(), indent=2))
    progress('converting its tokenizer', 0.1)
    source.tokenizer().save_pretrained(target)
    progress('converting its weights', 0.5)
    tensor_files.write(target / 'model.safetensors', source.tensors(dtype))
    hashes = {file.name: file_hash(file) for file in sorted(target.iterdir())}
    (target / _MANIFEST).write_text(json.dumps(
        {'source': gguf.name, 'precision': source.precision(), 'files': hashes}, indent=2))


def _intact(entry: Path) -> bool:
    try:
        files = json.loads((entry / _MANIFEST).read_text())['files']
        return all(file_hash(entry / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
