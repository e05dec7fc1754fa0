# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of processes that convert one model at the same time, each pair in a cache of its own.

`python simultaneous_starts.py PAIRS` prints what went wrong, and how many conversions there were.
"""

import json
import multiprocessing
import os
from pathlib import Path
import sys
import tempfile
import time
import traceback

import gguf_files
import numpy as np
from slice_ros.engine.checkpoints import model_cache
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.tensor_files import Tensors
import tiny

READINGS = 12       # times that a start reads its model
READING_S = 0.02    # between two of them: a start takes a while
APART_S = 0.03      # at most, between the two starts of a pair


def write_model(folder: Path) -> Path:
    """Return a GGUF file without a tokenizer; `GgufFile.tokenizer` gives that of `tiny`."""
    config = tiny.llama()
    gguf_files.write(folder / 'model.gguf', 'llama', config, tiny.model(config).state_dict())
    GgufFile.tokenizer = lambda self: tiny.tokenizer()
    return folder / 'model.gguf'


def read(directory: Path) -> None:
    """Read all that loading a model reads."""
    assert json.loads((directory / 'config.json').read_text())['model_type'] == 'llama'
    assert json.loads((directory / 'tokenizer.json').read_text())
    tensors = Tensors(directory)
    assert all(tensors[name].isfinite().all() for name in ('model.norm.weight', 'lm_head.weight')
               if name in tensors)


def start(model: Path, barrier, wait_s: float, faults, conversions) -> None:
    convert = model_cache._convert

    def counted(*args: object) -> None:
        with conversions.get_lock():
            conversions.value += 1
        convert(*args)
    model_cache._convert = counted
    barrier.wait()
    time.sleep(wait_s)
    try:
        with model_cache.converted(model, np.float16) as directory:
            for _ in range(READINGS):
                read(directory)
                time.sleep(READING_S)
    except BaseException:
        faults.put(traceback.format_exc(limit=-2))


def main(pairs: int) -> None:
    fork = multiprocessing.get_context('fork')  # this process has no other thread
    faults, conversions = fork.SimpleQueue(), fork.Value('i', 0)
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder))
        for pair in range(pairs):
            os.environ['XDG_CACHE_HOME'] = f'{folder}/cache{pair}'
            barrier = fork.Barrier(2)
            processes = [fork.Process(target=start, args=(
                model, barrier, wait_s, faults, conversions))
                for wait_s in (0.0, APART_S * pair / pairs)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            cache = Path(folder, f'cache{pair}', 'slice_ros', 'models')
            left = [path.name for path in cache.iterdir()]
            if len(left) != 1:
                faults.put(f'the cache has {left}')
    while not faults.empty():
        print('FAULT', faults.get())
    print(pairs, 'pairs', conversions.value, 'conversions')


if __name__ == '__main__':
    main(int(sys.argv[1]))
