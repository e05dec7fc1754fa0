"""``slice_bench engine``: how long decode steps and prefills take, and what stands around them.

All cases take turns in every round, those of a peer among them; a case counts with the median of
its rounds.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import closing, ExitStack
from dataclasses import replace
from functools import partial
import json
import logging
from pathlib import Path
import time

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from slice_ros.bench.accuracy import (
    CHUNK, correctness_prompts, engine_perplexity, first_divergence, greedy_texts, LENGTH,
    text_tokens)
from slice_ros.bench.engine_measure import (
    figures, floor_ms, measure, Memory, overhead, read_bandwidth, SHARE_BATCH)
from slice_ros.bench.peer_process import Peer
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.config import DEVICES, WEIGHTS
from slice_ros.engine.loading import find_model
from slice_ros.engine.native.library import PAGE_TOKENS
from slice_ros.errors import ModelError
import torch

logger = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--weights', default='auto', choices=WEIGHTS)
    parser.add_argument('--device', default='auto', choices=DEVICES)
    parser.add_argument('--threads', type=int, default=0, help="0 = torch's default")
    parser.add_argument('--batches', type=_numbers, default='1,2,4,8,16',
                        help='requests in a decode step, for example 1,4,16')
    parser.add_argument('--contexts', type=_numbers, default='64,512',
                        help='cached tokens of each of these requests')
    parser.add_argument('--prefill', type=_numbers, default='16,64,256',
                        help='tokens of a prefill chunk with nothing cached')
    parser.add_argument('--rounds', type=int, default=9, help='times that every case is measured')
    parser.add_argument('--peer', choices=['llama.cpp'], help='measure it in the same rounds')
    parser.add_argument('--peer-model', action='append', default=[], metavar='GGUF',
                        help='what the peer runs; if not given, the model itself and the same '
                        'weights in Q8_0; may be repeated, the quickest counts in each case')
    parser.add_argument('--plot', type=Path, help='file to draw the figures to')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Measure, print a table, write the JSON; returns the exit status.

    Raises ``ValueError`` for options that do not fit each other, ``ModelError``.
    """
    if args.rounds < 1:
        raise ValueError(f'--rounds must be at least 1, not {args.rounds}')
    console = Console()
    with Progress(console=console, transient=True) as bar, ExitStack() as stack:
        task = bar.add_task('', total=1.0)
        result = _measured(args, bar, task, stack)
    _show(console, result)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    if args.plot:
        from slice_ros.bench.engine_plot import draw
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        draw(result, args.plot)
    return 0


def _measured(args: Namespace, bar: Progress, task: TaskID, stack: ExitStack) -> dict:
    def tell(what: str, share: float) -> None:
        bar.update(task, description=what, completed=share)
    batch = max(*args.batches, SHARE_BATCH)
    longest = max(*args.contexts, *args.prefill)
    tokens = -(-(max(longest, CHUNK, 2 * LENGTH) + 2) // PAGE_TOKENS) * PAGE_TOKENS
    config = EngineConfig(args.model, args.device, args.weights, threads=args.threads,
                          slots=max(batch, 2 * SHARE_BATCH), max_batch=batch, max_context=tokens)
    memory = Memory()
    started = time.perf_counter()
    engine = load_engine(config, tell)
    load_s = time.perf_counter() - started
    held = memory.now()
    if longest >= engine.info.max_context:
        raise ValueError(f'this model holds {engine.info.max_context} tokens: '
                         f'{longest} are too many')
    threads = torch.get_num_threads()
    peers = [stack.enter_context(closing(peer)) for peer in _peers(args, batch, longest, threads)]
    cases = [('decode', b, c) for c in args.contexts for b in args.batches]
    cases += [('prefill', n, 0) for n in args.prefill]
    bar.update(task, description='measuring', total=args.rounds * len(cases), completed=0)
    times, peer_ms = measure(engine, peers, cases, args.rounds, lambda: bar.advance(task))
    bandwidth = read_bandwidth(engine.info.device)
    bar.update(task, description='reading a text', total=1.0, completed=0.0)
    text = text_tokens(engine)
    found = engine_perplexity(engine, text)
    shares = overhead(engine)
    tell('writing greedy texts', 0.0)
    prompts = correctness_prompts(engine)
    exact = _exact_texts(config, prompts)
    diverged = first_divergence(greedy_texts(engine, prompts), exact) if exact else None
    for peer in peers:
        peer.settings['perplexity'] = peer.perplexity(text)
        peer.settings['first_divergence'] = first_divergence(
            [peer.greedy(prompt, LENGTH) for prompt in prompts], exact) if exact else None
    told = [peer.settings for peer in peers]
    floor = partial(floor_ms, engine, bandwidth)
    return {
        'model': engine.info.model, 'weights': engine.info.weights, 'device': engine.info.device,
        'threads': threads, 'floor_ms': floor(),
        'decode': [{'batch': b, 'context': c}
                   | figures(times, peer_ms, ('decode', b, c), floor(b, c))
                   for c in args.contexts for b in args.batches],
        'prefill': [{'tokens': n} | figures(times, peer_ms, ('prefill', n, 0), floor())
                    for n in args.prefill],
        'perplexity': found,
        'peer_perplexity': min((peer['perplexity'] for peer in told), default=None),
        'first_divergence': diverged,
        'peer_first_divergence': max((peer['first_divergence'] for peer in told if exact),
                                     default=None),
        'divergence_length': LENGTH, **shares, 'path': engine.info.path,
        'kernels': engine.info.kernels, 'load_s': load_s, 'read_gb_per_s': bandwidth / 1e9,
        'weight_mb': engine.info.weight_bytes / 2**20, **held,
        'torch': torch.__version__, 'peers': told,
    }


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(',')]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ArgumentTypeError(f'{text!r} is not a list of whole numbers from 1, like 1,4,16')
    return numbers


def _peers(args: Namespace, slots: int, longest: int, threads: int) -> Iterator[Peer]:
    if not args.peer:
        return
    rows = max(longest, CHUNK)
    files = [(path, False) for path in args.peer_model]
    if not files:
        path = str(find_model(args.model))
        files = [(path, False), (path, True)]
    for path, requantise in files:
        yield Peer(path, threads, slots, max(rows, 2 * LENGTH) + 2, rows, requantise)


def _exact_texts(config: EngineConfig, prompts: list[list[int]]) -> list[list[int]] | None:
    """Return the greedy texts of the same weights in fp32, None where they do not fit."""
    slots = len(prompts)
    try:
        exact = load_engine(replace(config, weights='fp32', slots=slots, max_batch=slots))
    except ModelError as error:
        logger.warning('no text of fp32 weights to compare with: %s', error)
        return None
    return greedy_texts(exact, prompts)


def _show(console: Console, result: dict) -> None:
    table = Table(title=f'{result["model"]}: {result["weights"]} on {result["device"]}, '
                  f'{result["threads"]} threads')
    peer = bool(result['peers'])
    for name in ('step', 'cached', 'ms', 'quartiles', 'floor',
                 *(('llama.cpp', 'ratio') if peer else ('tokens/s',))):
        table.add_column(name, justify='right' if name != 'step' else 'left')
    rows = [(f'decode, batch {d["batch"]}', d['context'], d['batch'], d)
            for d in result['decode']]
    rows += [(f'prefill {p["tokens"]}', 0, p['tokens'], p) for p in result['prefill']]
    for what, cached, tokens, row in rows:
        table.add_row(what, str(cached), f'{row["ms"]:.1f}',
                      f'{row["low_ms"]:.1f} - {row["high_ms"]:.1f}', f'{row["floor_ms"]:.1f}',
                      *((f'{row["peer_ms"]:.1f}', f'{row["ratio"]:.2f}') if peer
                        else (f'{1e3 * tokens / row["ms"]:.0f}',)))
    console.print(table)
    console.print(f'forward: {result["path"]} ({result["kernels"]})')
    console.print(f'floor: reading the weights once, {result["floor_ms"]:.1f} ms, and what is '
                  f'cached, at {result["read_gb_per_s"]:.1f} GB/s')
    console.print(f'perplexity of a text: {result["perplexity"]:.3f}' + ''.join(
        f'; {p["name"]}, {p["model"]}: {p["perplexity"]:.3f}' for p in result['peers']))
    if result['first_divergence'] is not None:
        console.print(
            f'greedy text leaves that of fp32 after {result["first_divergence"]:g} tokens (median '
            f'of 5 prompts, {result["divergence_length"]} at most)' + ''.join(
                f'; {p["name"]}, {p["model"]}: {p["first_divergence"]:g}'
                for p in result['peers']))
    console.print(
        f'outside the model: {100 * result["overhead_share"]:.1f} % of a step at batch '
        f'{SHARE_BATCH} (tokens and text {100 * result["engine_share"]:.1f} %, '
        f'plan {100 * result["plan_share"]:.1f} %, the rest bookkeeping and delivery)')
    memory = '' if result['peak_mb'] is None else (
        f'; {result["resident_mb"]:.0f} MiB resident then, {result["peak_mb"]:.0f} at most, '
        f'{result["before_mb"]:.0f} before')
    console.print(f'loaded in {result["load_s"]:.1f} s: {result["weight_mb"]:.0f} MiB of weights'
                  + memory)
    for p in result['peers']:
        console.print(f'{p["name"]}: {p["model"]}, {p["package"]}, {p["threads"]} threads, '
                      f'flash attention {p["flash_attention"]}, {p["system"]}')
