# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What decides the bits of keys, values and states, beside the tokens."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
import stat

from slice_ros.engine.config import EngineInfo
from slice_ros.engine.kv.slot_memory import SlotMemory

FORMAT = 1   # of the copies
_FILES = ('.safetensors', '.gguf', '.json')   # that a model is loaded from
# Of `EngineInfo`: room for requests, and what requests may ask for.
_INDIFFERENT = ('max_context', 'slots', 'kv_tokens', 'kv_bytes', 'weight_bytes', 'fills_cores',
                'adapters')


def prefix_mark(info: EngineInfo, made: object, path: Path, memory: SlotMemory, tried: str,
                machine: str) -> str:
    """Return a text that two engines share only if a prefix has the same bits in both.

    `made` describes the model, its ropes and windows; `path` is where it was loaded from. `tried`
    is a hash of the logits of its first steps: they depend on every weight of its layers, and on
    how the kernels compute. Raises ``OSError`` for files that are gone.
    """
    known = {name: value for name, value in asdict(info).items() if name not in _INDIFFERENT}
    return repr((FORMAT, known, made, _files(path), memory.layout(), tried, machine,
                 version('numpy')))


def _files(path: Path) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of change of the files of a model."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [(file.name, file.stat()) for file in files if file.suffix in _FILES]
    return [(name, of.st_size, of.st_mtime_ns) for name, of in found if stat.S_ISREG(of.st_mode)]
