# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench simulate``: policies by loads by seeds, in parallel; tables, JSON and plots."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import json
import os
import sys
from types import MappingProxyType

from rich.console import Console
from slice_ros.bench.config_files import config_file
from slice_ros.bench.progress import in_parallel
from slice_ros.bench.report import (
    attainment, class_summary, percentile, print_runs, share_of, utility_attainment)
from slice_ros.bench.schedule.lp_bound import Bound, lp_bound
from slice_ros.bench.schedule.noise import Noise
from slice_ros.bench.schedule.options import (
    add_common_arguments, draw_loads, policy_from_spec, positive, positive_int, spec_options, ways)
from slice_ros.bench.schedule.simulate import Result, scaled_latency, simulate
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.slo import SloReport

COLUMN = 15   # characters that a figure of a policy takes in a table
DEFAULT_PROFILE = 'slice-authors-rtx4060ti'
# With --engine vllm: the orders that vLLM has itself.
VLLM_ORDERS = {'vllm_fcfs': 'fcfs', 'vllm_priority': 'priority'}


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
    jump: bool = True                # forced tokens of structured answers take no step
    engine: str = 'native'           # whose steps are simulated: ours, or vLLM's


def simulate_run(run: Run, log: bool = False) -> Result:
    """Simulate one cell."""
    if run.engine == 'vllm':
        return simulate_vllm(run, log)
    arrivals = run.arrivals if run.jump else [replace(a, forced=0.0) for a in run.arrivals]
    return simulate(
        policy_from_spec(run.policy, run.capacity), run.latency, arrivals,
        believed=scaled_latency(run.latency, run.model_error), noise=run.noise, seed=run.seed,
        log=log, reveal=run.reveal)


def simulate_vllm(run: Run, log: bool) -> Result:
    """Simulate one cell with the scheduler of vLLM. Raises ``ValueError`` if it is missing."""
    try:
        from slice_ros.bench.schedule.vllm_engine import (
            make_scheduler, options_of, VirtualEngine, VllmSettings)
    except ImportError as error:
        raise ValueError(f'--engine vllm needs vLLM, see docs/scaling.md: {error}') from error
    context = max(a.prompt_tokens + a.max_tokens for a in run.arrivals)
    if run.policy in VLLM_ORDERS:
        settings = VllmSettings(run.capacity, context, VLLM_ORDERS[run.policy])
    else:
        believed = scaled_latency(run.latency, run.model_error)
        settings = VllmSettings(run.capacity, context, slice_options=options_of(
            run.policy.split(':')[0], spec_options(run.policy), believed, run.arrivals,
            run.capacity))
    return VirtualEngine(make_scheduler(settings), run.latency, run.arrivals, run.noise,
                         run.seed, log).run()


def bound_of(run: Run) -> Bound:
    """Return the bounds of a cell's load: those of every policy on it.

    How long structured answers are is not known beforehand: nothing bounds these but one.
    """
    if any(a.answer for a in run.arrivals):
        return Bound(1.0, 1.0)
    return lp_bound(run.arrivals, run.latency, run.capacity)


def run_row(run: Run, reports: Sequence[SloReport], plan_us: tuple[float, float],
            bound: Bound) -> dict:
    """Return the JSON row of a run, simulated or served; `plan_us` is the p50 and p99."""
    attained, utility = attainment(reports), utility_attainment(reports)
    return {
        'policy': run.policy if run.jump else f'{run.policy}, plain', 'rate': run.rate,
        'seed': run.seed, 'requests': len(reports),
        'attainment': attained, 'utility_attainment': utility,
        'bound': bound.requests, 'utility_bound': bound.utility,
        'bound_share': share_of(attained, bound.requests),
        'utility_bound_share': share_of(utility, bound.utility),
        'plan_us_p50': plan_us[0], 'plan_us_p99': plan_us[1],
        'classes': class_summary(reports)}


def simulated(run: Run) -> tuple[Sequence[SloReport], tuple[float, float]]:
    """Return the reports of a cell, and the p50 and p99 of its plans in microseconds."""
    result = simulate_run(run)
    return result.reports, (percentile(result.plan_us, .5), percentile(result.plan_us, .99))


def sweep(runs: Sequence[Run], jobs: int, console: Console) -> list[dict]:
    """Run all cells on `jobs` processes with a progress bar; return their rows in order."""
    loads = {(run.rate, run.seed): run for run in runs}
    done = in_parallel([(bound_of, run) for run in loads.values()]
                       + [(simulated, run) for run in runs], jobs, console)
    bounds = dict(zip(loads, done))
    return [run_row(run, *outcome, bounds[run.rate, run.seed])
            for run, outcome in zip(runs, done[len(loads):])]


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
    parser.add_argument('--engine', choices=('native', 'vllm'), default='native',
                        help="whose scheduling loop is simulated: ours, or vLLM's with its KV "
                             f'blocks; it has the policies {", ".join(VLLM_ORDERS)} as well')
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
    vllm = args.engine == 'vllm'
    if vllm and args.reveal_lengths:
        raise ValueError('--reveal-lengths does not go with --engine vllm')
    for spec in args.policies:
        if not (vllm and spec in VLLM_ORDERS):
            policy_from_spec(spec, capacity)
    noise = Noise(spread=args.noise, burst_every=args.burst_every)
    loads = list(draw_loads(args, args.slo_scale, args.reveal_lengths))
    runs = [Run(policy, rate, seed, arrivals, latency, capacity, noise, args.model_error,
                args.reveal_lengths, jump, args.engine)
            for policy in args.policies for jump in ways(args) for rate, seed, arrivals in loads]
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
