# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench plan``: the time of one plan, with a few live requests to thousands."""

from argparse import ArgumentParser, Namespace
import json
import math
from pathlib import Path
import random
import sys
from time import perf_counter_ns

from rich.console import Console
from rich.table import Table
from slice_ros.bench.config_files import config_file
from slice_ros.bench.report import percentile
from slice_ros.bench.schedule.options import (
    DEFAULT_POLICIES, policy_from_spec, policy_specs, positive_int, positive_ints)
from slice_ros.bench.schedule.simulate import scaled_latency
from slice_ros.request import Request, State
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.slo import DEFAULT_CLASSES


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench plan``."""
    parser.add_argument('--policies', type=policy_specs, default=DEFAULT_POLICIES,
                        help='comma-separated, with their options, or all '
                             f'(default: {",".join(DEFAULT_POLICIES)})')
    parser.add_argument('--live', type=positive_ints, default=[16, 64, 256, 1024, 4096],
                        help='live requests (default: 16,64,256,1024,4096)')
    parser.add_argument('--steps', type=positive_int, default=300,
                        help='plans timed for each (default: %(default)s)')
    parser.add_argument('--profile', default='slice-authors-rtx4060ti',
                        metavar='NAME_OR_FILE', help='(default: %(default)s)')
    parser.add_argument('--engine', choices=('native', 'vllm'), default='native',
                        help="vllm: the plan of slice beside vLLM's own scheduling of a step")
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures here')


def run(args: Namespace) -> int:
    """Run ``slice_bench plan``. Raises ``ValueError`` saying what is wrong."""
    latency = load_profile(config_file('profiles', args.profile))
    if args.engine == 'vllm':
        return _beside_vllm(args, latency)
    rows = []
    for policy in args.policies:
        for live in args.live:
            times = time_plans(policy, live, latency, args.steps)
            rows.append({'policy': policy, 'live': live, 'us_p50': percentile(times, .5),
                         'us_p99': percentile(times, .99)})
    table = Table(title='one plan, µs: median (p99)', title_justify='left')
    table.add_column('live', justify='right')
    for policy in args.policies:
        table.add_column(policy, justify='right')
    for live in args.live:
        table.add_row(str(live), *(f'{row["us_p50"]:.0f} ({row["us_p99"]:.0f})'
                                   for row in rows if row['live'] == live))
    if len(args.live) > 1:
        table.add_row('growth', *(f'n^{growth(rows, policy):.2f}' for policy in args.policies))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if args.json:
        args.json.write_text(json.dumps({'plans': rows}, indent=1) + '\n')
    return 0


def _beside_vllm(args: Namespace, latency: LatencyModel) -> int:
    try:
        from slice_ros.bench.vllm.plan_costs import plan_costs
    except ImportError as error:
        raise ValueError(f'--engine vllm needs vLLM, see docs/scaling.md: {error}') from error
    rows = [{'live': live, **plan_costs(live, latency, args.steps)} for live in args.live]
    table = Table(title='one step in vLLM, µs, median', title_justify='left')
    for name in ('live', "vLLM's own schedule", 'plan of slice', 'whole schedule with slice'):
        table.add_column(name, justify='right')
    for row in rows:
        table.add_row(str(row['live']), *(f'{row[key]:.0f}'
                                          for key in ('vllm', 'plan', 'slice_vllm')))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if args.json:
        args.json.write_text(json.dumps({'vllm': rows}, indent=1) + '\n')
    return 0


def growth(rows: list[dict], policy: str) -> float:
    """Return the exponent k of n^k between the two largest numbers of live requests."""
    (n0, t0), (n1, t1) = sorted((row['live'], row['us_p50'])
                                for row in rows if row['policy'] == policy)[-2:]
    return math.log(t1 / t0) / math.log(n1 / n0) if n1 > n0 else math.nan


def time_plans(spec: str, live: int, latency, steps: int) -> list[float]:
    """Return the microseconds of each of `steps` plans with `live` requests.

    The requests are of all three default classes and at all stages of progress; the KV cache has
    room for half of them. A new request replaces each that ends or is dropped, so that arrivals
    and completions occur. The accelerator is faster in proportion to the requests above 16:
    otherwise nearly all would be out of reach, and these cost a policy no time.
    """
    latency = scaled_latency(latency, min(1.0, 16 / live))
    draw = random.Random(live)
    policy = policy_from_spec(spec, Capacity(slots=max(live // 2, 16)))
    requests = [_new_request(draw, i, -draw.uniform(0, .5)) for i in range(live)]
    for request in requests[:min(live, policy.capacity.slots) - 1]:
        for _ in range(draw.randint(1, 8)):
            request.advance(request.pending, request.arrival + .05 + .04 * request.generated)
    requests.sort(key=lambda request: request.arrival)
    now, times = 0.0, []
    while len(times) < steps:
        view = tuple(requests)
        before = perf_counter_ns()
        step = policy.plan(now, view, latency)
        times.append((perf_counter_ns() - before) / 1e3)
        for request in step.evict:
            request.evict()
        now += latency.step(*step.shape) or .01
        for request in step.decode:
            request.advance(1, now)
        for chunk in step.prefill:
            chunk.request.advance(chunk.tokens, now)
        done = [r for r in step.decode if r.generated >= r.max_tokens // 2]
        for request in {*done, *step.drop}:
            request.end(State.FINISHED, now)
            requests.remove(request)
            policy.finished(request)
            requests.append(_new_request(draw, len(times), now))
    return times


def _new_request(draw: random.Random, number: int, arrival: float) -> Request:
    slo = draw.choice(DEFAULT_CLASSES)
    return Request(f'{slo.name}-{number}', slo, arrival, draw.randint(32, 128),
                   draw.choice((25, 60, 160)))
