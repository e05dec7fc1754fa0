# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench serve``: the same policies and workloads on the real engine, in real time.

Each run is also simulated, with the same requests, on the engine's latency profile and the
deviations from it that were measured during the run, so that the two can be compared.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
import math
from pathlib import Path
import random
import sys
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from slice_ros.bench.answers.answer_schemas import response_format
from slice_ros.bench.answers.answer_times import jumping
from slice_ros.bench.report import attainment, load_table
from slice_ros.bench.schedule.load_costs import (
    auto_scale, mixed_cost, saturation, terms, with_overhead)
from slice_ros.bench.schedule.noise import Noise
from slice_ros.bench.schedule.options import (
    add_common_arguments, draw_loads, policy_from_spec, positive, spec_options, ways)
from slice_ros.bench.schedule.sweep import bound_of, finish, Run, run_row, simulate_run
from slice_ros.bench.vllm.peer_runs import PATIENCE, peer_list, peer_table, serve_peers
from slice_ros.bench.vllm.vllm_peer import find_vllm
from slice_ros.engine import Engine, EngineConfig, load_engine, Sampling
from slice_ros.engine.runners.vllm_runner import DTYPES
from slice_ros.request import Request, State
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.serving import Server, ServerConfig


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench serve``."""
    add_common_arguments(parser)
    parser.add_argument('--model', default='', help='a Hugging Face directory or .gguf file '
                                                    '(default: the embedded model)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument('--weights', default='auto', help='see slice_bench engine')
    parser.add_argument('--threads', type=int, default=0, help="0: torch's default")
    parser.add_argument('--profile', type=Path, metavar='FILE',
                        help='latency profile of the engine (default: measured when it loads)')
    parser.add_argument('--slo-scale', type=_scale, default=math.nan, metavar='FACTOR|auto',
                        help='factor on every objective; auto (default) makes them as tight '
                             'here as they are in the published setting')
    parser.add_argument('--peer', type=peer_list, default=[], metavar='vllm[:ORDER],...',
                        help='send the same arrivals to vLLM as well: vllm as it comes, '
                             'vllm:priority with the classes ranked, vllm:slice with our policy')
    parser.add_argument('--peer-python', default='', metavar='FILE',
                        help='the Python that has vLLM (default: that of .venv-vllm)')
    parser.add_argument('--peer-weights', choices=tuple(DTYPES), default='auto',
                        help="precision of vLLM's weights; auto = its own choice")
    parser.set_defaults(requests=60, seeds=[1], rates=None)


def run(args: Namespace) -> int:
    """Run ``slice_bench serve``. Raises ``ValueError`` saying what is wrong."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    config = EngineConfig(model=args.model, device=args.device, weights=args.weights,
                          slots=args.slots, max_batch=args.max_batch, threads=args.threads)
    with console.status('loading the model') as status:
        engine = load_engine(config, lambda what, share: status.update(f'{what} {share:.0%}'))
        latency = load_profile(args.profile) if args.profile else engine.profile(
            lambda what, share: status.update(f'{what} {share:.0%}'))
    capacity = Capacity(max_batch=args.max_batch, slots=engine.info.slots,
                        kv_tokens=engine.info.kv_tokens)
    for spec in args.policies:
        policy_from_spec(spec, capacity)
    if args.peer:
        args.peer_python = find_vllm(args.peer_python)
        if args.structured:
            raise ValueError('--structured does not go with --peer')
    args.rates = args.rates or [1.0]
    sample = next(iter(draw_loads(args)))[2]
    scale = args.slo_scale if args.slo_scale > 0 else auto_scale(sample, latency)
    full = saturation(sample, latency, args.max_batch)
    console.print(f'{engine.info.model} on {engine.info.device} ({engine.info.weights}, '
                  f'{engine.info.kv_bits} bit KV, {engine.info.path}): objectives x '
                  f'{scale:.3f}, saturated at about {full:.2f} requests/s')
    mixed = mixed_cost(sample, latency)
    console.print('a decode of {batch} and a prefill of {tokens} tokens in one step: {ms:.0f} ms, '
                  '{separate_ms:.0f} one by one ({ratio:.2f})'.format(**mixed))
    # Policy by policy at each load: what disturbs the machine disturbs all of them alike.
    runs = [Run(policy, rate, seed, arrivals, latency, capacity, jump=jump)
            for rate, seed, arrivals in draw_loads(args, scale) for policy in args.policies
            for jump in ways(args)]
    rows = serve_all(engine, runs, console)
    rows += serve_peers(args, engine.info.vocab_size, runs, console)
    console.print(load_table(rows, lambda row: row['predicted_attainment'],
                             'attained, % of requests, as the simulator predicts it', 100))
    if args.peer:
        console.print(peer_table(rows))
    finish(args, rows, f'{args.workload} on {engine.info.model}', console)
    return 0


def serve_all(engine: Engine, runs: Sequence[Run], console: Console) -> list[dict]:
    """Serve all cells one after the other behind a progress bar; return their rows.

    Each row also has ``predicted_attainment``, the result of simulating the same requests, and
    ``mixed``, the cost of a mixed step by the profile as the run refined it.
    """
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())
    rows = []
    bounds = {load: bound_of(cell)
              for load, cell in {(cell.rate, cell.seed): cell for cell in runs}.items()}
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task('serving', total=sum(len(cell.arrivals) for cell in runs))
        for cell in runs:
            progress.update(task, description=f'{cell.policy} at {cell.rate:g}/s')
            with jumping(engine, cell.jump):
                requests, plan_us, learnt, noise = serve_run(
                    engine, cell, lambda: progress.advance(task))
            row = run_row(cell, [request.report() for request in requests], plan_us,
                          bounds[cell.rate, cell.seed])
            # A stop may end an answer before its scripted length: what was generated is true.
            known = tuple(
                replace(a, output_tokens=r.generated, forced=r.jumped / r.generated)
                if r.state is State.FINISHED else a for a, r in zip(cell.arrivals, requests))
            row['predicted_attainment'] = attainment(
                simulate_run(
                    replace(cell, arrivals=known, latency=learnt, noise=noise)).reports)
            row['mixed'] = mixed_cost(cell.arrivals, learnt)
            row |= {'steps': len(noise.slowness), 'tokens': sum(r.generated for r in requests)}
            rows.append(row)
    return rows


def serve_run(engine: Engine, cell: Run, on_end
              ) -> tuple[list[Request], tuple[float, float], LatencyModel, Noise]:
    """Serve one cell in real time; `on_end` is called for each request that ends.

    Return its requests in order of arrival, the median and 99th percentile of the plan time in
    microseconds, the profile as the run refined it (with the time that the loop spends around a
    step), and the deviations of the steps from that profile.
    """
    scripted = _ScriptedEngine(engine)
    latency = _Recording(**terms(cell.latency))
    server = Server(scripted, latency, ServerConfig(
        policy=cell.policy.split(':')[0], policy_options=spec_options(cell.policy),
        classes=tuple({a.slo.name: a.slo for a in cell.arrivals}.values()),
        max_batch=cell.capacity.max_batch, prefill_chunk=cell.capacity.prefill_chunk,
        max_queued=len(cell.arrivals) + 1, window=math.inf))
    for a in cell.arrivals:
        server.check(a.prompt_tokens, a.max_tokens)
    draw = random.Random(cell.seed)
    prompts = [[draw.randrange(engine.info.vocab_size) for _ in range(a.prompt_tokens)]
               for a in cell.arrivals]
    left = len(cell.arrivals)
    over = threading.Event()

    def on_output(delivery) -> None:
        nonlocal left
        if delivery.finish_reason is not None:
            left -= 1
            on_end()
            if not left:
                over.set()

    server.start()
    try:
        start = server.clock() + .05
        requests = []
        for a, prompt in zip(cell.arrivals, prompts):
            time.sleep(max(0.0, start + a.time - server.clock()))
            scripted.lengths[id(prompt)] = (
                a.max_tokens if a.answer else min(a.output_tokens, a.max_tokens))
            requests.append(server.submit(
                a.slo, prompt, a.max_tokens, Sampling(), on_output, arrival=start + a.time,
                response_format=response_format(a.answer) if a.answer else None))
        over.wait(PATIENCE)
        snapshot = server.snapshot()
    finally:
        server.stop()
    around = snapshot.step[0] * snapshot.overhead / max(1 - snapshot.overhead, .1) * 1e3
    learnt = with_overhead(latency, around)
    slowness = tuple((ended - seconds - start, (seconds + around / 1e3) / learnt.step(*shape))
                     for ended, shape, seconds in latency.steps)
    return (requests, (snapshot.plan[0] * 1e6, snapshot.plan[1] * 1e6), learnt,
            Noise(slowness=slowness))


@dataclass(slots=True)
class _Recording(LatencyModel):
    """A latency model that records each observed step: its end, shape and seconds."""

    steps: list = field(default_factory=list, init=False)

    def observe(self, seconds: float, *shape) -> float:
        """Learn from a step as every latency model does, and remember it."""
        self.steps.append((time.monotonic(), shape, seconds))
        return LatencyModel.observe(self, seconds, *shape)


class _ScriptedEngine:
    """The engine with answers of the workload's lengths, while policies see `max_tokens` alone."""

    draft_model = None   # as `draft`

    def __init__(self, engine: Engine) -> None:
        self.engine, self.info = engine, engine.info
        self.launch, self.collect = engine.launch, engine.collect
        self.evict, self.close = engine.evict, engine.close
        self.lengths: dict[int, int] = {}   # id of a prompt's list -> tokens of its answer

    def open(self, tokens: list[int], max_tokens: int, sampling: Sampling, stop=(),
             response_format=None, request: Request | None = None, adapter: str = '', images=()):
        """Open a sequence of the scripted length."""
        return self.engine.open(tokens, self.lengths[id(tokens)], sampling, stop, response_format,
                                request, adapter, images=images)

    def adopt(self, sequence) -> int:
        """Adopt nothing: every policy gets the same prompts, and none may find them cached."""
        return 0

    def draft(self, sequence, most: int) -> list[int]:
        """Guess nothing: answers to random prompts repeat themselves as no real ones do."""
        return []


def _scale(text: str) -> float:
    if text == 'auto':
        return math.nan
    try:
        return positive(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f'{text!r:.80} is neither auto nor a number above 0') from None
