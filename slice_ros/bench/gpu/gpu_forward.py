# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How the embedded model runs on the GPU, and how quickly the GPU copies: a program.

``python -m slice_ros.bench.gpu.gpu_forward FILE`` writes JSON to FILE.
"""

import json
import logging
import math
from pathlib import Path
import sys
import time

from slice_ros.engine import EngineConfig, load_engine
import torch

_COPIED_BYTES = 1 << 30   # far beyond any cache, and a fraction of any memory


def copy_bandwidth(device: str, size: int = _COPIED_BYTES) -> float:
    """Return the bytes per second that a copy of `size` bytes reads and writes, the best of 5."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copies, best = 4, math.inf   # in a row: the device starts while the host queues more
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        for _ in range(copies):
            target.copy_(source)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * copies * size / best


def forward(device: str, model: str = '') -> dict:
    """Load a model, the embedded one by default; return what runs it, and the warnings of that.

    Raises ``ModelError``.
    """
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logger = logging.getLogger('slice_ros')
    logger.addHandler(handler)
    try:
        info = load_engine(EngineConfig(model, device, max_context=512)).info
    finally:
        logger.removeHandler(handler)
    return {'model': info.model, 'weights': info.weights, 'device': info.device,
            'path': info.path, 'kernels': info.kernels, 'warnings': warnings}


def _wait(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def main() -> None:
    """Write the JSON. Raises ``ModelError``, ``RuntimeError``."""
    copied = copy_bandwidth('cuda')
    torch.cuda.empty_cache()
    found = forward('cuda') | {'copy_gb_per_s': copied / 1e9}
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == '__main__':
    main()
