# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The engines that the engine benchmark measures beside its own."""

from collections.abc import Iterator, Sequence

from slice_ros.bench.engine.accuracy import CHUNK, LENGTH
from slice_ros.bench.engine.cyllama_peer import Cyllama
from slice_ros.bench.engine.llama_cpp import LlamaCpp
from slice_ros.bench.engine.peer_process import Peer
from slice_ros.bench.engine.transformers_peer import Transformers, TYPES
from slice_ros.engine import EngineInfo
from slice_ros.engine.checkpoints.model_path import find_model

PEERS = ('llama.cpp', 'cyllama', 'transformers')


def make_peers(name: str | None, files: Sequence[str], model: str, random: bool, info: EngineInfo,
               slots: int, longest: int, threads: int) -> Iterator[Peer]:
    """Start the peers of `name`, one of `PEERS`, on `model`, or llama.cpp and cyllama on `files`.

    Steps have at most `slots` requests and `longest` tokens. A `random` model was made by
    `shapes.write`. Raises ``ValueError`` for a model that the peer cannot run.
    """
    if name == 'llama.cpp':
        rows = max(longest, CHUNK)
        path = str(find_model(model))
        for path, requantise in [(file, False) for file in files] or [(path, False), (path, True)]:
            yield Peer(name, LlamaCpp, path, threads, slots, max(rows, 2 * LENGTH) + 2, rows,
                       requantise)
    elif name == 'cyllama':
        rows = max(longest, CHUNK)
        for path in files or [str(find_model(model))]:
            yield Peer(name, Cyllama, path, threads, slots, max(rows, 2 * LENGTH) + 2, rows)
    elif name == 'transformers':
        device = info.device.split(':')[0]
        # Which of them is quicker depends on the CPU.
        types = ('fp32', 'bf16')
        if device == 'cuda':
            types = (info.weights if info.weights in TYPES else 'bf16',)
        for weights in types:
            yield Peer(name, Transformers, str(find_model(model)), random, weights, device,
                       threads, max(longest, 2 * LENGTH) + 2)
