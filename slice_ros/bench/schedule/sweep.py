# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench simulate``: policies by loads by seeds, in parallel; tables, JSON and plots."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed, ProcessPoolExecutor
from dataclasses import dataclass
import json
from multiprocessing import get_context
import os
import sys
from types import MappingProxyType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from slice_ros.bench.config_files import config_file
from slice_ros.bench.report import (
    attainment, class_summary, percentile, print_runs, utility_attainment)
from slice_ros.bench.schedule.capacity_bound import capacity_bound
from slice_ros.bench.schedule.noise import Noise
from slice_ros.bench.schedule.options import (
    add_common_arguments, draw_loads, policy_from_spec, positive, positive_int)
from slice_ros.bench.schedule.simulate import Result, scaled_latency, simulate
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.slo import SloReport

COLUMN = 15   # characters that a figure of a policy takes in a table
DEFAULT_PROFILE = 'slice-authors-rtx4060ti'


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of a sweep: one policy on one load and seed."""

    policy: str                      # name[:option=value...]
    rate: float                      # requests a second
    seed: int
    arrivals: tuple[Arrival, ...]
    latency: LatencyModel
    capacity: Capacity
    noise: Noise = Noise()
    model_error: float = 1.0         # the policy's first latency model is wrong by this factor
    reveal: bool = False             # the policy knows the length of every answer


def simulate_run(run: Run, log: bool = False) -> Result:
    """Simulate one cell."""
    return simulate(
        policy_from_spec(run.policy, run.capacity), run.latency, run.arrivals,
        believed=scaled_latency(run.latency, run.model_error), noise=run.noise, seed=run.seed,
        log=log, reveal=run.reveal)


def run_row(run: Run, reports: Sequence[SloReport], plan_us: tuple[float, float]) -> dict:
    """Return the JSON row of a run, simulated or served; `plan_us` is the p50 and p99."""
    return {
        'policy': run.policy, 'rate': run.rate, 'seed': run.seed, 'requests': len(reports),
        'attainment': attainment(reports), 'utility_attainment': utility_attainment(reports),
        'capacity_bound': capacity_bound(run.arrivals, run.latency, run.capacity.max_batch),
        'plan_us_p50': plan_us[0], 'plan_us_p99': plan_us[1],
        'classes': class_summary(reports)}


def _row(run: Run) -> dict:
    result = simulate_run(run)
    return run_row(run, result.reports,
                   (percentile(result.plan_us, .5), percentile(result.plan_us, .99)))


def sweep(runs: Sequence[Run], jobs: int, console: Console) -> list[dict]:
    """Run all cells on `jobs` processes with a progress bar; return their rows in order."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())
    rows: list[dict] = [{}] * len(runs)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task('simulating', total=len(runs))
        if jobs == 1:
            for i, run in enumerate(runs):
                rows[i] = _row(run)
                progress.advance(task)
            return rows
        # Spawned, since forking a process that has threads (the progress bar's) is not safe.
        with ProcessPoolExecutor(jobs, mp_context=get_context('spawn')) as pool:
            futures = {pool.submit(_row, run): i for i, run in enumerate(runs)}
            for future in as_completed(futures):
                rows[futures[future]] = future.result()
                progress.advance(task)
    return rows


def logged(runs: Sequence[Run]) -> dict[str, Result]:
    """Simulate the first and the last two policies again, at one seed of the middle load."""
    rates = sorted({run.rate for run in runs})
    middle = {run.policy: run for run in reversed(runs)
              if run.rate == rates[(len(rates) - 1) // 2]}
    policies = list(reversed(middle))
    chosen = dict.fromkeys([*policies[:1], *policies[-2:]])
    return {policy: simulate_run(middle[policy], log=True) for policy in chosen}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench simulate``."""
    add_common_arguments(parser)
    parser.add_argument('--profile', default=DEFAULT_PROFILE, metavar='NAME_OR_FILE',
                        help='latency model that stands in for the engine (default: %(default)s)')
    parser.add_argument('--kv-tokens', type=positive_int, default=1 << 20,
                        help='tokens in all KV caches together (default: %(default)s)')
    parser.add_argument('--prefill-chunk', type=positive_int, default=512,
                        help='prompt tokens in one step (default: %(default)s)')
    parser.add_argument('--slo-scale', type=positive, default=1.0,
                        help='factor on every objective (default: %(default)s)')
    parser.add_argument('--noise', type=positive, default=0.0, metavar='SPREAD',
                        help='true step times deviate by this share, e.g. 0.3')
    parser.add_argument('--burst-every', type=positive, default=0.0, metavar='SECONDS',
                        help='mean time between bursts of 0.5 s in which steps take twice as long')
    parser.add_argument('--model-error', type=positive, default=1.0, metavar='FACTOR',
                        help="the policies' latency model starts out wrong by this factor")
    parser.add_argument('--reveal-lengths', action='store_true',
                        help='clairvoyant: policies know the length of each answer, which '
                             'max_tokens is as well')
    parser.add_argument('--jobs', type=positive_int, default=os.cpu_count() or 1,
                        help='processes (default: one a core)')


def run(args: Namespace) -> int:
    """Run ``slice_bench simulate``. Raises ``ValueError`` saying what is wrong."""
    latency = load_profile(config_file('profiles', args.profile))
    capacity = Capacity(max_batch=args.max_batch, slots=args.slots, kv_tokens=args.kv_tokens,
                        prefill_chunk=args.prefill_chunk)
    for spec in args.policies:
        policy_from_spec(spec, capacity)
    noise = Noise(spread=args.noise, burst_every=args.burst_every)
    loads = list(draw_loads(args, args.slo_scale, args.reveal_lengths))
    runs = [Run(policy, rate, seed, arrivals, latency, capacity, noise, args.model_error,
                args.reveal_lengths)
            for policy in args.policies for rate, seed, arrivals in loads]
    width = max(120, COLUMN * (len(args.policies) + 2))
    console = Console(width=None if sys.stdout.isatty() else width)
    rows = sweep(runs, min(args.jobs, len(runs)), console)
    finish(args, rows, f'{args.workload} on {latency.name}', console,
           logged(runs) if args.plot else {})
    return 0


def finish(args: Namespace, rows: list[dict], title: str, console: Console,
           strips: Mapping[str, Result] = MappingProxyType({})) -> None:
    """Write the JSON, print the tables and draw the plot, with `strips` of logged results."""
    if args.json:  # first: the reader of the tables may close the pipe
        args.json.write_text(json.dumps({'runs': rows}, indent=1, allow_nan=False) + '\n')
    print_runs(rows, console)
    if args.json:
        console.print(f'figures: {args.json}')
    if args.plot:
        from slice_ros.bench.schedule.sweep_plot import draw  # matplotlib takes its time to load
        draw(rows, strips, title, args.plot)
        console.print(f'plot: {args.plot}')
