# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How much memory the KV cache may take; returning memory, and collecting garbage."""

import ctypes
import gc
from pathlib import Path

from slice_ros.engine.config import EngineConfig
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.errors import ModelError


def kv_pages(path: Path, weight_bytes: int, device: str, page_bytes: int,
             max_context: int, config: EngineConfig) -> int:
    """Return how many pages of `page_bytes` the KV cache gets, by the memory that is free.

    At most `config.slots` full contexts. On a GPU the weights are loaded already; on CPU their
    bytes, `weight_bytes`, are subtracted. `path` is that of the model, for the error. Raises
    ``ModelError`` when there is too little for one request.
    """
    per_slot = -(-max_context // PAGE_TOKENS)
    every = config.slots * per_slot
    gpu = device == 'cuda'
    # One full context, and the first page of each other request.
    least = min(per_slot + config.slots, every)
    free = _free_on_gpu(device) if gpu else _available_memory()
    if free is None:
        return every
    left = max(free - (0 if gpu else weight_bytes), 0)
    pages = min(int(left * config.memory_fraction) // page_bytes, every)
    if pages < least:
        raise ModelError(
            f'not enough memory: the weights of {path} leave {left / 2**30:.2f} GiB, of which '
            f'memory_fraction gives {config.memory_fraction:g} to keys and values, and these need '
            f'at least {least * page_bytes / 2**30:.2f} GiB: use a shorter max_context, fewer '
            'slots or a smaller model')
    return pages


def kv_tokens(pages: int, slots: int, max_context: int) -> int:
    """Return how many tokens all requests together may have in `pages`."""
    # Each request leaves a part of its last page unused.
    every = slots * -(-max_context // PAGE_TOKENS)
    return slots * max_context if pages == every else (pages - slots) * PAGE_TOKENS


def trim_heap() -> None:
    """Return freed memory to the system where the C library keeps it (glibc)."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def spare_heap() -> None:
    """Have garbage be collected among the objects only that are made from now on.

    Nobody else runs while Python looks through all: of torch and transformers alone these are
    230,000, for 0.1 s. `collect_garbage` looks through all of them again.
    """
    gc.collect()
    gc.freeze()


def collect_garbage() -> None:
    """Collect the garbage among all objects: an earlier engine, say."""
    gc.unfreeze()
    gc.collect()


def _free_on_gpu(device: str) -> int:
    import torch
    collect_garbage()  # an earlier engine may still hold memory
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0]
    if torch.cuda.get_device_properties(device).is_integrated:
        # A Jetson has one memory for CPU and GPU; CUDA counts its file cache as used.
        free = max(free, _available_memory() or 0)
    return free


def _available_memory() -> int | None:
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
    except OSError:
        return None  # not Linux
    return next((int(line.split()[1]) * 1024 for line in lines
                 if line.startswith('MemAvailable')), None)
