"""How much memory there is for keys and values, and giving back what loading leaves behind."""

import ctypes
import gc
import logging
from pathlib import Path

from slice_ros.engine.config import EngineConfig
from slice_ros.engine.native.library import PAGE_TOKENS
from slice_ros.errors import ModelError
import torch

logger = logging.getLogger(__name__)


def kv_pages(path: Path, page_bytes: int, max_context: int, config: EngineConfig) -> int:
    """Return how many pages of the KV cache there are to be, by the memory that is free.

    Raises ``ModelError`` when there is too little for one request.
    """
    per_slot = -(-max_context // PAGE_TOKENS)
    every = config.slots * per_slot
    weight_bytes = sum(file.stat().st_size for file in path.glob('*.safetensors'))
    # One full context beside the page that each request begins.
    free, least = _available_memory(), min(per_slot + config.slots, every)
    if free is None:
        return every
    pages = min(int((free - weight_bytes) * config.memory_fraction) // page_bytes, every)
    if pages < least:
        raise ModelError(
            f'not enough memory: {path} needs {weight_bytes / 2**30:.2f} GiB for weights and at '
            f'least {least * page_bytes / 2**30:.2f} GiB for keys and values; '
            f'{free / 2**30:.2f} GiB are free, of which memory_fraction leaves '
            f'{config.memory_fraction:g} of the rest: use a shorter max_context, fewer slots or a '
            'smaller model')
    return pages


def gpu_slots(device: torch.device, page_bytes: int, max_context: int, config: EngineConfig
              ) -> int:
    """Return how many requests have room on a GPU beside all that it holds, the weights for one.

    Each has its full context, taken at once. Raises ``ModelError`` when not one has.
    """
    slot_bytes = -(-max_context // PAGE_TOKENS) * page_bytes
    free = _free_on_gpu(device)
    slots = int(free * config.memory_fraction) // slot_bytes - 1  # one for rows that pad a step
    if slots < 1:
        raise ModelError(
            f'not enough memory: the GPU has {free / 2**30:.2f} GiB beside the weights, of which '
            f'memory_fraction leaves {config.memory_fraction:g} for keys and values, and two '
            f'requests of {max_context} tokens take {2 * slot_bytes / 2**30:.2f} GiB: use a '
            'shorter max_context, a larger memory_fraction or a smaller model')
    if slots < config.slots:
        logger.warning('the memory of the GPU holds %d requests of %d tokens at once, not %d: a '
                       'shorter max_context makes room for more', slots, max_context,
                       config.slots)
    return min(slots, config.slots)


def kv_tokens(pages: int, slots: int, max_context: int) -> int:
    """Return how many tokens all requests together may hold in `pages`."""
    # However many tokens requests hold, each leaves a part of one page unused.
    every = slots * -(-max_context // PAGE_TOKENS)
    return slots * max_context if pages == every else (pages - slots) * PAGE_TOKENS


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc)."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def _free_on_gpu(device: torch.device) -> int:
    gc.collect()  # what an earlier engine held
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0]
    if torch.cuda.get_device_properties(device).is_integrated:
        # A Jetson has one memory for all; what it keeps of files counts as taken there.
        free = max(free, _available_memory() or 0)
    return free


def _available_memory() -> int | None:
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
    except OSError:
        return None  # not Linux
    return next((int(line.split()[1]) * 1024 for line in lines
                 if line.startswith('MemAvailable')), None)
