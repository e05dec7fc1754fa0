# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench kv``: a KV cache of 8 bits beside one of 16: memory, step times, perplexity.

A round times each step on an engine of 16 bits and on one of 8, one after the other.
"""

from argparse import ArgumentParser, Namespace
import json
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from slice_ros.bench.engine.accuracy import CHUNK, engine_perplexity, text_tokens
from slice_ros.bench.engine.engine_bench import numbers
from slice_ros.bench.engine.engine_measure import measure
from slice_ros.engine import Engine, EngineConfig, load_engine
from slice_ros.engine.config import ISAS, WEIGHTS
from slice_ros.engine.profile import Probe

BITS = ('16', '8')


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--weights', default='auto', choices=WEIGHTS)
    parser.add_argument('--isa', default='auto', choices=ISAS)
    parser.add_argument('--threads', type=int, default=0, help='0 = one for each core')
    parser.add_argument('--batches', type=numbers, default='1,8',
                        help='requests in a decode step')
    parser.add_argument('--contexts', type=numbers, default='64,1000,4000',
                        help='cached tokens of each of these requests, and in front of a prefill')
    parser.add_argument('--prefill', type=int, default=64, help='tokens of a prefill chunk')
    parser.add_argument('--rounds', type=int, default=9, help='times that each step is measured')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Measure and print a table. Raises ``ModelError``, ``ValueError``."""
    if min(args.rounds, args.prefill) < 1:
        raise ValueError('--rounds and --prefill must be at least 1')
    room = max(*args.contexts, 2 * CHUNK) + args.prefill
    batch = max(args.batches)
    wide, narrow = engines = [load_engine(EngineConfig(
        args.model, 'cpu', args.weights, kv=kv, isa=args.isa, threads=args.threads, slots=batch,
        max_batch=batch, max_context=room)) for kv in BITS]
    if max(args.contexts) + args.prefill > wide.info.max_context:
        raise ValueError(f'this model holds {wide.info.max_context} tokens: shorten --contexts')
    console = Console()
    for engine in engines:
        console.print(engine.info.sentence())
    cases = [(kind, size, context) for context in sorted(args.contexts)
             for kind, sizes in (('decode', args.batches), ('prefill', [args.prefill]))
             for size in sizes]
    with Probe(narrow, batch) as probe:
        wide_ms, (narrow_ms,) = measure(wide, [probe], cases, args.rounds, lambda: None)
    steps = [{'step': kind, 'size': size, 'context': context, 'ms': median(wide_ms[case]),
              'ms_8': median(narrow_ms[case]),
              'ratio': median(b / a for a, b in zip(wide_ms[case], narrow_ms[case]))}
             for case in cases for kind, size, context in [case]]
    console.print(_table(steps, args.rounds))
    result = {'model': wide.info.model, 'weights': wide.info.weights,
              'kernels': wide.info.kernels, 'threads': wide.info.threads, 'steps': steps,
              'token_bytes': [e.info.kv_bytes / e.info.kv_tokens for e in engines],
              'perplexity': [_perplexities(engine) for engine in engines]}
    before, after = result['token_bytes']
    console.print(f'a token takes {before:.0f} bytes in 16 bits, {after:.0f} in 8: '
                  f'{before / after:.2f} times as many fit')
    for chunk, one, other in zip((CHUNK, room), *result['perplexity']):
        console.print(f'perplexity of a text in chunks of {chunk} tokens: {one:.4f} with 16 bits, '
                      f'{other:.4f} with 8')
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    return 0


def _perplexities(engine: Engine) -> list[float]:
    text = text_tokens(engine)
    return [engine_perplexity(engine, text, chunk) for chunk in (CHUNK, engine.info.max_context)]


def _table(steps: list[dict], rounds: int) -> Table:
    table = Table(title=f'ms, medians of {rounds} rounds')
    for head in ('step', 'cached', '16 bits', '8 bits', 'ratio'):
        table.add_column(head, justify='right')
    for row in steps:
        table.add_row(f'{row["step"]} {row["size"]}', str(row['context']), f'{row["ms"]:.2f}',
                      f'{row["ms_8"]:.2f}', f'{row["ratio"]:.2f}')
    return table
