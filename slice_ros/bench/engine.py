"""``slice_bench engine``: how long decode steps and prefills take, and what stands around them.

All cases take turns in every round, so that a disturbance of the machine hits them alike; a case
counts with the median of its rounds.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
import json
from pathlib import Path
from statistics import median, quantiles
import time

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from slice_ros.bench.accuracy import CHUNK, engine_perplexity, perplexity, text_tokens
from slice_ros.bench.peer import LlamaCpp
from slice_ros.engine import Engine, EngineConfig, load_engine, Sampling
from slice_ros.engine.config import DEVICES, WEIGHTS
from slice_ros.engine.loading import find_model
from slice_ros.engine.profile import Probe
import torch

_READ_BYTES = 1 << 28  # for the read bandwidth: far beyond any cache
_SHARE_BATCH = 8
_SHARE_STEPS = 32


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
                        help='what the peer runs, the model itself if not given; may be repeated, '
                        'the quickest counts in each case')
    parser.add_argument('--plot', type=Path, help='file to draw the figures to')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Measure, print a table, write the JSON; returns the exit status.

    Raises ``ValueError`` for options that do not fit each other, ``ModelError``.
    """
    if args.rounds < 1:
        raise ValueError(f'--rounds must be at least 1, not {args.rounds}')
    console = Console()
    batch = max(*args.batches, _SHARE_BATCH)
    config = EngineConfig(
        args.model, args.device, args.weights, threads=args.threads, slots=batch, max_batch=batch,
        max_context=max(*args.contexts, *args.prefill, CHUNK, 2 * _SHARE_STEPS) + 2)
    started = time.perf_counter()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task('', total=1.0)
        engine = load_engine(
            config, lambda what, share: bar.update(task, description=what, completed=share))
        load_s = time.perf_counter() - started
        longest = max(*args.contexts, *args.prefill)
        if longest >= engine.info.max_context:
            raise ValueError(f'this model holds {engine.info.max_context} tokens: '
                             f'{longest} are too many')
        cases = [('decode', b, c) for c in args.contexts for b in args.batches]
        cases += [('prefill', n, 0) for n in args.prefill]
        peers = _peers(args, batch, longest)
        bar.update(task, description='measuring', total=args.rounds * len(cases), completed=0)
        times, peer_ms = _measure(engine, peers, cases, args.rounds, lambda: bar.advance(task))
        bar.update(task, description='reading a text')
        tokens = text_tokens(engine)
        found = engine_perplexity(engine, tokens)
        peers_found = [perplexity(tokens, peer.logits) for peer in peers]
        for peer in peers:
            peer.close()
    share = _overhead_share(engine)
    bandwidth = _read_bandwidth(engine)
    result = {
        'model': engine.info.model, 'weights': engine.info.weights, 'device': engine.info.device,
        'threads': torch.get_num_threads(),
        'floor_ms': 1e3 * engine._runner.streamed_bytes / bandwidth,
        'decode': [{'batch': b, 'context': c} | _figures(times, peer_ms, ('decode', b, c))
                   for c in args.contexts for b in args.batches],
        'prefill': [{'tokens': n} | _figures(times, peer_ms, ('prefill', n, 0))
                    for n in args.prefill],
        'perplexity': found, 'peer_perplexity': min(peers_found, default=None),
        'overhead_share': share,
        'path': engine.info.path, 'kernels': engine.info.kernels, 'load_s': load_s,
        'read_gb_per_s': bandwidth / 1e9, 'resident_mb': _resident_mb(),
    }
    _show(console, result)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    if args.plot:
        from slice_ros.bench.engine_plot import draw
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        draw(result, args.plot)
    return 0


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(',')]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ArgumentTypeError(f'{text!r} is not a list of whole numbers from 1, like 1,4,16')
    return numbers


def _peers(args: Namespace, slots: int, longest: int) -> list[LlamaCpp]:
    if not args.peer:
        return []
    paths = args.peer_model or [str(find_model(args.model))]
    rows = max(longest, CHUNK)
    return [LlamaCpp(path, torch.get_num_threads(), slots, rows + 2, rows) for path in paths]


def _measure(engine: Engine, peers: list[LlamaCpp], cases: list[tuple[str, int, int]], rounds: int,
             done: Callable[[], None]) -> tuple[dict, list[dict]]:
    """Return ms by case, in order of the rounds: the engine's, and those of each peer."""
    with Probe(engine, max([n for kind, n, _ in cases if kind == 'decode'] or [1])) as probe:
        measured = [(timed, {case: [] for case in cases}) for timed in (probe, *peers)]
        for round_ in range(-1, rounds):
            for case in cases:
                for timed, times in measured:
                    ms = 1e3 * getattr(timed, case[0])(*case[1:])
                    if round_ >= 0:
                        times[case].append(ms)
                if round_ >= 0:
                    done()
    return measured[0][1], [times for _, times in measured[1:]]


def _figures(times: dict, peers: list[dict], case: tuple[str, int, int]) -> dict:
    ms = times[case]
    low, middle, high = quantiles(ms, n=4) if len(ms) > 1 else ms * 3
    peer = min((median(times[case]) for times in peers), default=None)
    return {'ms': middle, 'low_ms': low, 'high_ms': high, 'peer_ms': peer,
            'ratio': None if peer is None else middle / peer}


def _overhead_share(engine: Engine) -> float:
    """Return the share of a step at batch 8 that is not the forward pass of the model.

    That is sampling, bookkeeping and text; planning and delivery are not the engine's.
    """
    inside = 0.0
    forward = engine._runner.forward

    def timed(segments):
        nonlocal inside
        started = time.perf_counter()
        logits = forward(segments)
        if logits.is_cuda:
            torch.cuda.synchronize()
        inside += time.perf_counter() - started
        return logits

    prompt = engine.encode('The robot drives to the table and')[:_SHARE_STEPS]
    live = [engine.open(prompt, 4 * _SHARE_STEPS, Sampling()) for _ in range(_SHARE_BATCH)]
    engine.step([(s, s.pending) for s in live])
    engine._runner.forward = timed
    try:
        started = time.perf_counter()
        for _ in range(_SHARE_STEPS):
            work = [(s, 1) for s in live if not s.finish_reason]
            if not work:
                break
            engine.step(work)
        whole = time.perf_counter() - started
    finally:
        engine._runner.forward = forward
        for sequence in live:
            engine.close(sequence)
    return 1 - inside / whole


def _read_bandwidth(engine: Engine) -> float:
    """Return bytes a second that a plain sum reads from memory, the best of five."""
    data = torch.ones(_READ_BYTES // 4, device=engine.info.device)
    best = float('inf')
    for _ in range(5):
        started = time.perf_counter()
        data.sum().item()
        best = min(best, time.perf_counter() - started)
    return _READ_BYTES / best


def _resident_mb() -> float | None:
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None  # not Linux
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmRSS'))


def _show(console: Console, result: dict) -> None:
    table = Table(title=f'{result["model"]}: {result["weights"]} on {result["device"]}, '
                  f'{result["threads"]} threads')
    peer = result['decode'][0]['peer_ms'] is not None
    for name in ('step', 'cached', 'ms', 'quartiles', 'tokens/s',
                 *(('llama.cpp', 'ratio') if peer else ())):
        table.add_column(name, justify='right' if name != 'step' else 'left')
    rows = [(f'decode, batch {d["batch"]}', d['context'], d['batch'], d)
            for d in result['decode']]
    rows += [(f'prefill, {p["tokens"]} tokens', 0, p['tokens'], p) for p in result['prefill']]
    for what, cached, tokens, row in rows:
        table.add_row(what, str(cached), f'{row["ms"]:.1f}',
                      f'{row["low_ms"]:.1f} - {row["high_ms"]:.1f}',
                      f'{1e3 * tokens / row["ms"]:.0f}',
                      *((f'{row["peer_ms"]:.1f}', f'{row["ratio"]:.2f}') if peer else ()))
    console.print(table)
    console.print(f'forward: {result["path"]} ({result["kernels"]})')
    console.print(f'memory floor of a step: {result["floor_ms"]:.1f} ms '
                  f'at {result["read_gb_per_s"]:.1f} GB/s')
    console.print(f'perplexity of a text: {result["perplexity"]:.3f}' + (
        '' if result['peer_perplexity'] is None
        else f'; llama.cpp: {result["peer_perplexity"]:.3f}'))
    console.print(f'loaded in {result["load_s"]:.1f} s; share of a step outside the model: '
                  f'{100 * result["overhead_share"]:.1f} %')
