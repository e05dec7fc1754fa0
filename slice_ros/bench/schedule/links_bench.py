# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench links``: what the link between GPUs that divide a model costs the objectives.

Tensor parallelism divides the work of a step among n GPUs, and adds two all-reduces a layer
(Megatron-LM, arXiv 1909.08053). In a ring, each sends 2 (n - 1) messages one after the other, of
2 (n - 1) / n of the activations together (Thakur et al. 2005, doi 10.1177/1094342005051521). The
step times that follow stand in for the engine; links are assumed, not measured.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
import json
import os
import sys

from rich.console import Console
from rich.table import Table
from slice_ros.bench.config_files import config_file
from slice_ros.bench.progress import in_parallel
from slice_ros.bench.report import attainment, utility_attainment
from slice_ros.bench.schedule.options import add_common_arguments, draw_loads, positive_int
from slice_ros.bench.schedule.sweep import DEFAULT_PROFILE, Run, simulated
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.serving.server_config import DEFAULT_POLICY
from slice_ros.slo import SloReport

ALL_REDUCES = 2         # of a layer: behind attention, and behind the MLP
ACTIVATION_BYTES = 2    # of a number that GPUs exchange: float16
BATCH, PROMPT = 8, 256  # whose step times the table shows


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two GPUs, as programs see it: one message, and many bytes."""

    name: str
    latency_us: float
    gb_per_s: float


LINKS = (
    Link('NVLink', 5, 200), Link('PCIe 4.0 x16', 10, 20), Link('InfiniBand, 100 Gbit/s', 15, 11),
    Link('Ethernet, 10 Gbit/s', 50, 1.1), Link('Ethernet, 1 Gbit/s', 100, 0.11),
    Link('Wi-Fi', 2000, 0.04))


def divided(latency: LatencyModel, gpus: int, layers: int, hidden: int, link: Link
            ) -> LatencyModel:
    """Return the step times of `gpus` over `link` from those of one, `latency`."""
    reduces = ALL_REDUCES * layers
    fixed = reduces * 2 * (gpus - 1) * link.latency_us / 1e3                  # ms of a part
    row = reduces * 2 * (gpus - 1) / gpus * hidden * ACTIVATION_BYTES / (link.gb_per_s * 1e6)
    return LatencyModel(
        name=f'{latency.name}, {gpus} over {link.name}',
        decode_ms=tuple((b, ms / gpus + fixed + b * row) for b, ms in latency.decode_ms),
        decode_context_ms=latency.decode_context_ms / gpus,
        prefill_base_ms=latency.prefill_base_ms / gpus + fixed,
        prefill_token_ms=latency.prefill_token_ms / gpus + row,
        prefill_context_ms=latency.prefill_context_ms / gpus,
        shared_ms=latency.shared_ms / gpus + fixed,
        further_ms=latency.further_ms / gpus + row)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench links``."""
    add_common_arguments(parser, policies=False)
    parser.set_defaults(rates=[2.0], requests=300)
    parser.add_argument('--profile', default=DEFAULT_PROFILE, metavar='NAME_OR_FILE',
                        help='step times of one GPU (default: %(default)s)')
    parser.add_argument('--gpus', type=positive_int, default=2, help='(default: %(default)s)')
    parser.add_argument('--layers', type=positive_int, default=28, help='(default: %(default)s)')
    parser.add_argument('--hidden', type=positive_int, default=4096,
                        help='numbers of a token between layers (default: %(default)s)')


def run(args: Namespace) -> int:
    """Run ``slice_bench links``. Raises ``ValueError`` saying what is wrong."""
    one = load_profile(config_file('profiles', args.profile))
    ways = [('one GPU', None, one)] + [
        (link.name, link, divided(one, args.gpus, args.layers, args.hidden, link))
        for link in LINKS]
    capacity = Capacity(max_batch=args.max_batch, slots=args.slots)
    loads = list(draw_loads(args))
    cells = [(way, rate) for rate in dict.fromkeys(load[0] for load in loads) for way in ways]
    runs = [[Run(DEFAULT_POLICY, rate, seed, arrivals, way[2], capacity)
             for at, seed, arrivals in loads if at == rate] for way, rate in cells]
    done = iter(in_parallel([(simulated, run) for several in runs for run in several],
                            os.cpu_count() or 1, Console(stderr=True)))
    rows = [_row(way, rate, [next(done)[0] for _ in several])
            for (way, rate), several in zip(cells, runs)]
    Console(width=None if sys.stdout.isatty() else 120).print(_table(rows, args))
    if args.json:
        args.json.write_text(json.dumps({'rows': rows}, indent=1) + '\n')
    return 0


def _row(way: tuple[str, Link | None, LatencyModel], rate: float,
         reports: Sequence[Sequence[SloReport]]) -> dict:
    name, link, latency = way
    control = [r for each in reports for r in each if r.slo.name == 'control']
    return {
        'link': name, 'latency_us': link and link.latency_us,
        'gb_per_s': link and link.gb_per_s, 'rate': rate,
        'decode_ms': 1e3 * latency.decode(1), 'decode_batch_ms': 1e3 * latency.decode(BATCH),
        'prefill_ms': 1e3 * latency.prefill(PROMPT),
        'attainment': _mean([attainment(each) for each in reports]),
        'utility_attainment': _mean([utility_attainment(each) for each in reports]),
        'control': attainment(control) if control else None}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _table(rows: list[dict], args: Namespace) -> Table:
    table = Table(title=f'{args.gpus} GPUs, {args.layers} layers of {args.hidden}; step times in '
                  'ms, attained in %', title_justify='left')
    for name in ('link', 'us', 'GB/s', 'req/s', 'batch 1', f'batch {BATCH}',
                 f'prompt {PROMPT}', 'requests', 'utility', 'control'):
        table.add_column(name, justify='left' if name == 'link' else 'right')
    for row in rows:
        given = ('-' if row[key] is None else f'{row[key]:g}'
                 for key in ('latency_us', 'gb_per_s', 'rate'))
        times = (f'{row[key]:.1f}' for key in ('decode_ms', 'decode_batch_ms', 'prefill_ms'))
        shares = ('-' if row[key] is None else f'{100 * row[key]:.1f}'
                  for key in ('attainment', 'utility_attainment', 'control'))
        table.add_row(row['link'], *given, *times, *shares)
    return table
