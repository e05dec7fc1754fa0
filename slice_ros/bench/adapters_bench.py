# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench adapters``: steps whose rows have a LoRA adapter, beside the same without.

The adapter has random numbers in every matrix of the layers. A round times each step on an engine
that has no adapter, and on one that has, with rows that choose it and rows that do not.
"""

from argparse import ArgumentParser, Namespace
import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file
from slice_ros.engine import Engine, EngineConfig, load_engine
from slice_ros.engine.adapters.low_rank import JOINED
from slice_ros.engine.adapters.peft_directory import CONFIG, WEIGHTS as FILE
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.hf_directory import CompleteConfig, read_config
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.config import ISAS, WEIGHTS
from slice_ros.engine.models.families import describe
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.runners.runner import NO_ADAPTER, Segment

SEED, SPREAD = 7, 0.01
CONTEXT = 64                       # cached tokens of each request that decodes
STEPS = (('decode', 1), ('decode', 4), ('decode', 8), ('prefill', 64), ('prefill', 256))
MATRICES = {part.rpartition('.')[2] for parts in JOINED for part in parts} | {
    'qkv_proj', 'gate_up_proj'}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--weights', default='auto', choices=WEIGHTS)
    parser.add_argument('--isa', default='auto', choices=ISAS)
    parser.add_argument('--rank', type=int, default=16)
    parser.add_argument('--rounds', type=int, default=31, help='times that each step is measured')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Measure and print a table. Raises ``ModelError``."""
    with TemporaryDirectory() as folder:
        save_adapter(Path(folder), find_model(args.model), args.rank)
        plain, adapted = (load_engine(EngineConfig(
            args.model, 'cpu', args.weights, isa=args.isa, slots=8, max_batch=8, max_context=512,
            adapters=adapters)) for adapters in ((), (f'random={folder}',)))
    ways = {'no adapter loaded': (plain, NO_ADAPTER), 'none chosen': (adapted, NO_ADAPTER),
            'chosen by all rows': (adapted, 0)}
    times = {(step, way): [] for step in STEPS for way in ways}
    for round_ in range(args.rounds + 1):
        for step in STEPS:
            for way, (engine, adapter) in ways.items():
                ms = _step(engine, *step, adapter)
                if round_:
                    times[step, way].append(ms)
    console = Console()
    console.print(plain.info.sentence())
    rows = []
    table = Table(title=f'ms, medians of {args.rounds} rounds, rank {args.rank}')
    for head in ('step', *ways, 'ratio'):
        table.add_column(head, justify='right')
    for step in STEPS:
        first, *_, last = ways
        ratio = median(b / a for a, b in zip(times[step, first], times[step, last]))
        ms = {way: median(times[step, way]) for way in ways}
        rows.append({'step': ' '.join(map(str, step)), 'ms': ms, 'ratio': ratio})
        table.add_row(rows[-1]['step'], *(f'{one:.2f}' for one in ms.values()), f'{ratio:.2f}')
    console.print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + '\n')
    return 0


def save_adapter(folder: Path, model: Path, rank: int) -> None:
    """Write an adapter of a model with random numbers, as PEFT would."""
    config = read_config(model) if model.is_dir() else CompleteConfig(**GgufFile(model).config())
    dice, tensors = np.random.default_rng(SEED), {}
    for name, shape in ModelTensors(describe(config), {}).needed():
        stem = name.removesuffix('.weight')
        if stem.rpartition('.')[2] in MATRICES:
            for side, size in (('A', (rank, shape[1])), ('B', (shape[0], rank))):
                tensors[f'base_model.model.{stem}.lora_{side}.weight'] = (
                    dice.standard_normal(size, np.float32) * np.float32(SPREAD))
    save_file(tensors, folder / FILE)
    (folder / CONFIG).write_text(json.dumps({'peft_type': 'LORA', 'r': rank, 'lora_alpha': rank}))


def _step(engine: Engine, kind: str, size: int, adapter: int) -> float:
    """Return the milliseconds of a step; the slots and their pages are taken for it."""
    ids = [n % 250 for n in range(size if kind == 'prefill' else CONTEXT)]
    slots = [engine._slots.take() for _ in range(1 if kind == 'prefill' else size)]
    engine._slots.reserve((slot, len(ids) + 1) for slot in slots)
    segments = [Segment(slot, 0, ids, True, adapter=adapter) for slot in slots]
    if kind == 'decode':
        engine._runner.forward(segments)
        segments = [Segment(slot, CONTEXT, [1], True, adapter=adapter) for slot in slots]
    started = time.perf_counter()
    engine._runner.greedy(segments)()
    taken = time.perf_counter() - started
    for slot in slots:
        engine._slots.give(slot)
    return 1e3 * taken
