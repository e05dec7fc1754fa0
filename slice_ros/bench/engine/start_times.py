# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Starts of a GGUF file, each in a process of its own: time, memory and disk.

`python -m slice_ros.bench.engine.start_times FILE` is one start, and prints its figures as JSON.
"""

import json
import os
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory
import time

from rich.console import Console

_PIECE = 1 << 24  # bytes of the file that are read at a time


class Memory:
    """The memory of this process, in MiB; None except on Linux."""

    def __init__(self) -> None:
        try:
            Path('/proc/self/clear_refs').write_text('5')  # resets the peak
        except OSError:
            pass
        self.before = self._read('VmRSS')

    def now(self) -> dict[str, float | None]:
        """Return resident memory now, its peak, and that before the engine was loaded."""
        return {'resident_mb': self._read('VmRSS'), 'peak_mb': self._read('VmHWM'),
                'before_mb': self.before}

    @staticmethod
    def _read(field: str) -> float | None:
        try:
            lines = Path('/proc/self/status').read_text().splitlines()
        except OSError:
            return None
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def starts(path: Path) -> dict[str, object]:
    """Return the figures of a first and a later start, and of reading the file, in seconds.

    Raises ``ValueError`` for a directory.
    """
    if path.is_dir():
        raise ValueError(f'{path} is a directory: --starts takes a .gguf file')
    with TemporaryDirectory() as cache:
        began = time.perf_counter()
        with path.open('rb', buffering=0) as file:
            while file.read(_PIECE):
                pass
        read_s = time.perf_counter() - began
        first, later = _start(path, cache), _start(path, cache)
        disk = sum(f.stat().st_size for f in Path(cache).rglob('*') if f.is_file())
    return {'file_mb': path.stat().st_size / 2**20, 'read_s': read_s, 'disk_mb': disk / 2**20,
            'first': first, 'later': later}


def show_starts(console: Console, result: dict) -> None:
    """Print what `starts` returns."""
    console.print(f'file: {result["file_mb"]:.0f} MiB, read in {result["read_s"]:.1f} s; the '
                  f'cache takes {result["disk_mb"]:.3f} MiB')
    for name in ('first', 'later'):
        of = result[name]
        console.print(
            f'{name} start: {of["total_s"]:.1f} s (imports {of["import_s"]:.1f}, loading '
            f'{of["load_s"]:.1f}, step times {of["profile_s"]:.1f}), {of["cpu_s"]:.1f} s of '
            f'processor; {of["resident_mb"]:.0f} MiB resident, at most {of["peak_mb"]:.0f}; '
            f'{of["weight_mb"]:.0f} of weights, {of["before_mb"]:.0f} of imports')


def _start(path: Path, cache: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, '-m', __name__, path], check=True, text=True,
                          stdout=subprocess.PIPE, env=os.environ | {'XDG_CACHE_HOME': cache})
    return json.loads(done.stdout.splitlines()[-1])


def _one_start(model: str) -> dict[str, float | None]:
    began = time.perf_counter()
    from slice_ros.engine import EngineConfig, load_engine
    memory, imported = Memory(), time.perf_counter()
    engine = load_engine(EngineConfig(model))
    loaded, sizes = time.perf_counter(), memory.now()
    engine.profile()
    ready = time.perf_counter()
    return {'import_s': imported - began, 'load_s': loaded - imported, 'profile_s': ready - loaded,
            'total_s': ready - began, 'cpu_s': time.process_time(),
            'weight_mb': engine.info.weight_bytes / 2**20, **sizes}


if __name__ == '__main__':
    print(json.dumps(_one_start(sys.argv[1])))
