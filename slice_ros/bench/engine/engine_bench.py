# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench engine``: times of decode steps and prefills, beside floors and peers.

Every round measures each case once, of the engine and of each peer in turn. The result of a case
is the median of its rounds.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from contextlib import closing, ExitStack
from dataclasses import replace
from functools import partial
import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
import time

from rich.console import Console
from rich.progress import Progress, TaskID
from slice_ros.bench.answers.answer_times import answer_times, ANSWERS, show_answers
from slice_ros.bench.engine.accuracy import (
    CHUNK, correctness_prompts, engine_perplexity, first_divergence, greedy_texts, LENGTH,
    text_tokens)
from slice_ros.bench.engine.engine_measure import (
    figures, floor_ms, measure, overhead, read_bandwidth, SHARE_BATCH, SHARES, together)
from slice_ros.bench.engine.engine_table import show
from slice_ros.bench.engine.peer_process import Peer
from slice_ros.bench.engine.peers import make_peers, PEERS
from slice_ros.bench.engine.roofline import roofline
from slice_ros.bench.engine.shapes import RandomTensors, SHAPES, write
from slice_ros.bench.engine.start_times import Memory, show_starts, starts
from slice_ros.engine import Engine, EngineConfig, load_engine
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.config import DEVICES, ISAS, KV, WEIGHTS
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.runners.native import KINDS
from slice_ros.errors import ModelError
import torch

logger = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--shape', choices=SHAPES, help='random weights in the shape of this '
                        'model, instead of a model')
    parser.add_argument('--weights', default='auto', choices=WEIGHTS)
    parser.add_argument('--kv', default='auto', choices=KV, help='bits of keys and values')
    parser.add_argument('--device', default='auto', choices=DEVICES)
    parser.add_argument('--threads', type=int, default=0, help="0 = torch's default")
    parser.add_argument('--isa', default='auto', choices=ISAS, help='instruction set of the '
                        'native kernels; auto = the best of this processor')
    parser.add_argument('--batches', type=numbers, default='1,2,4,8,16',
                        help='requests in a decode step, for example 1,4,16')
    parser.add_argument('--contexts', type=numbers, default='64,512',
                        help='cached tokens of each of these requests')
    parser.add_argument('--prefill', type=numbers, default='16,64,256',
                        help='tokens of a prefill chunk with nothing cached, alone and in one '
                        'step with a decode of each batch at the first context')
    parser.add_argument('--rounds', type=int, default=9, help='times that every case is measured')
    parser.add_argument('--times-only', action='store_true', help='decode steps and prefills '
                        'alone: no mixed steps, no share of the server, no accuracy, which take '
                        'minutes with a billion weights')
    parser.add_argument('--peer', choices=PEERS, help='measure it in the same rounds')
    parser.add_argument('--peer-model', action='append', default=[], metavar='GGUF',
                        help='what llama.cpp or cyllama runs; if not given, the model itself, and '
                        'in llama.cpp the same weights in Q8_0; may be repeated, the quickest '
                        'counts in each case')
    parser.add_argument('--roofline', nargs='*', choices=KINDS, metavar='WEIGHTS',
                        help='also measure what limits the native kernels, and the share of it '
                        'that decode at batch 1 and the longest prefill reach, with the weights '
                        'of the run or with these')
    parser.add_argument('--starts', action='store_true', help='measure nothing but a first and a '
                        'later start with the model: time, memory and disk')
    parser.add_argument('--answers', action='store_true', help='measure nothing but '
                        'structured and free answers, with a step for each token, and without '
                        'those of forced tokens and right guesses')
    parser.add_argument('--draft-model', default='', metavar='PATH', help='with --answers: also '
                        'with guesses of this model, a directory or .gguf file')
    parser.add_argument('--draft-weights', default='auto', choices=WEIGHTS)
    parser.add_argument('--plot', type=Path, help='file to draw the figures to')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Measure, print a table, write the JSON; returns the exit status.

    Raises ``ValueError`` for options that exclude each other, ``ModelError``.
    """
    if args.rounds < 1:
        raise ValueError(f'--rounds must be at least 1, not {args.rounds}')
    if args.shape and (args.model or args.peer in ('llama.cpp', 'cyllama')):
        raise ValueError('--shape goes with neither --model nor a peer that runs a file')
    if args.draft_model and not args.answers:
        raise ValueError('--draft-model goes with --answers')
    console = Console()
    if args.starts:
        show_starts(console, starts(find_model(args.model)))
        return 0
    with Progress(console=console, transient=True) as bar, ExitStack() as stack:
        task = bar.add_task('', total=1.0)
        if args.answers:
            result = _answers(args, console, bar, task)
        else:
            result = _measured(args, bar, task, stack)
            show(console, result)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    if args.plot and not args.answers:
        from slice_ros.bench.engine.engine_plot import draw
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        draw(result, args.plot)
    return 0


def _measured(args: Namespace, bar: Progress, task: TaskID, stack: ExitStack) -> dict:
    def report(what: str, share: float) -> None:
        bar.update(task, description=what, completed=share)
    batch = max(*args.batches, SHARE_BATCH)
    longest = max(*args.contexts, *args.prefill)
    tokens = -(-(max(longest, CHUNK, 2 * LENGTH) + 2) // PAGE_TOKENS) * PAGE_TOKENS
    model, tensors = args.model, None
    if args.shape:
        model = str(write(args.shape, Path(stack.enter_context(TemporaryDirectory()))))
        tensors = RandomTensors
    config = EngineConfig(model, args.device, args.weights, args.kv, threads=args.threads,
                          isa=args.isa, slots=max(batch + 1, 2 * SHARE_BATCH), max_batch=batch,
                          max_context=tokens)
    memory = Memory()
    started = time.perf_counter()
    engine = load_engine(config, report, tensors)
    load_s = time.perf_counter() - started
    resident = memory.now()
    if longest >= engine.info.max_context:
        raise ValueError(f'this model holds {engine.info.max_context} tokens: '
                         f'{longest} are too many')
    threads = engine.info.threads
    limits = None if args.roofline is None else _roofline(args, engine, config, tensors, report)
    peers = [stack.enter_context(closing(peer)) for peer in make_peers(
        args.peer, args.peer_model, model, bool(args.shape), engine.info, batch, longest, threads)]
    cases = [('decode', b, c) for c in args.contexts for b in args.batches]
    cases += [('prefill', n, 0) for n in args.prefill]
    mixed = [] if args.times_only else [
        (b, args.contexts[0], n) for b in args.batches for n in args.prefill]
    cases += [('mixed', *case) for case in mixed]
    bar.update(task, description='measuring', total=args.rounds * len(cases), completed=0)
    times, peer_ms = measure(engine, peers, cases, args.rounds, lambda: bar.advance(task))
    bandwidth = read_bandwidth(engine.info.device)
    shares = dict.fromkeys(SHARES) if args.times_only else overhead(engine)
    accuracy = {} if args.shape or args.times_only else _accuracy(engine, config, peers, report)
    settings = [peer.settings for peer in peers]
    floor = partial(floor_ms, engine, bandwidth)
    return {
        'model': f'{args.shape}, random weights' if args.shape else engine.info.model,
        'weights': engine.info.weights, 'kv_bits': engine.info.kv_bits,
        'device': engine.info.device,
        'threads': threads, 'floor_ms': floor(),
        'decode': [{'batch': b, 'context': c}
                   | figures(times, peer_ms, ('decode', b, c), floor(b, c))
                   for c in args.contexts for b in args.batches],
        'prefill': [{'tokens': n} | figures(times, peer_ms, ('prefill', n, 0), floor())
                    for n in args.prefill],
        'mixed': [together(times, *case) for case in mixed],
        'perplexity': accuracy.get('perplexity'),
        'peer_perplexity': min((peer['perplexity'] for peer in settings if accuracy),
                               default=None),
        'first_divergence': accuracy.get('first_divergence'),
        'peer_first_divergence': max((peer['first_divergence'] for peer in settings
                                      if peer.get('first_divergence') is not None), default=None),
        'divergence_length': LENGTH, **shares, 'path': engine.info.path,
        'kernels': engine.info.kernels, 'load_s': load_s, 'read_gb_per_s': bandwidth / 1e9,
        'weight_mb': engine.info.weight_bytes / 2**20, **resident,
        'torch': torch.__version__, 'peers': settings, 'roofline': limits,
    }


def _answers(args: Namespace, console: Console, bar: Progress, task: TaskID) -> dict:
    engine = load_engine(EngineConfig(
        args.model, args.device, args.weights, args.kv, threads=args.threads, isa=args.isa,
        max_context=1024, slots=4, max_batch=4, draft_model=args.draft_model,
        draft_weights=args.draft_weights))
    bar.update(task, description='measuring', total=(1 + args.rounds) * len(ANSWERS), completed=0)
    rows = answer_times(engine, engine.profile(), args.rounds, lambda: bar.advance(task))
    show_answers(console, engine, rows)
    return {'model': engine.info.model, 'weights': engine.info.weights,
            'kernels': engine.info.kernels, 'draft_model': engine.info.draft_model,
            'answers': rows}


def numbers(text: str) -> list[int]:
    """Return the numbers of an option, for `argparse`."""
    try:
        found = [int(part) for part in text.split(',')]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ArgumentTypeError(f'{text!r} is not a list of whole numbers from 1, like 1,4,16')
    return found


def _roofline(args: Namespace, engine: Engine, config: EngineConfig, tensors: Callable | None,
              report: Callable[[str, float], None]) -> dict:
    """Return the roofline of the weights that are asked for, else of the engine's own."""
    engines = {weights: engine if weights == engine.info.weights else load_engine(
        replace(config, weights=weights, slots=1, max_batch=1), report, tensors)
        for weights in args.roofline or [engine.info.weights]}
    return roofline(engines, args.isa, args.rounds, args.contexts[0], max(args.prefill),
                    partial(report, 'measuring limits'))


def _accuracy(engine: Engine, config: EngineConfig, peers: list[Peer],
              report: Callable[[str, float], None]) -> dict[str, float | None]:
    """Return perplexity and first divergence; store those of the peers in their settings."""
    report('reading a text', 0.0)
    text = text_tokens(engine)
    found = engine_perplexity(engine, text)
    report('writing greedy texts', 0.0)
    prompts = correctness_prompts(engine)
    exact = _exact_texts(config, prompts)
    for peer in peers:
        peer.settings['perplexity'] = peer.perplexity(text)
        peer.settings['first_divergence'] = first_divergence(
            [peer.greedy(prompt, LENGTH) for prompt in prompts], exact) if exact else None
    return {'perplexity': found, 'first_divergence': first_divergence(
        greedy_texts(engine, prompts), exact) if exact else None}


def _exact_texts(config: EngineConfig, prompts: list[list[int]]) -> list[list[int]] | None:
    """Return the greedy texts of the same weights in fp32, None if they do not fit in memory."""
    slots = len(prompts)
    try:
        exact = load_engine(replace(config, weights='fp32', slots=slots, max_batch=slots))
    except ModelError as error:
        logger.warning('no text of fp32 weights to compare with: %s', error)
        return None
    return greedy_texts(exact, prompts)
