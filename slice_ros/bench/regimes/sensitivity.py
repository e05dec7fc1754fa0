# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench sensitivity``: the default policy, each of its constants halved and doubled."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
from statistics import fmean
import sys

from rich.console import Console
from rich.table import Table
from slice_ros.bench.progress import in_parallel
from slice_ros.bench.regimes.grid import Cell, cells, simulate_cell, URGENT
from slice_ros.bench.regimes.lines import paired
from slice_ros.bench.regimes.policy_constants import changed, Constant, policy_constants
from slice_ros.bench.regimes.regime import shipped_profiles, shipped_regimes
from slice_ros.bench.schedule.options import integers, names, positive_int
from slice_ros.scheduling.contract import PolicyError

POLICY = 'slice'
REGIMES = ('published', 'realtime_heavy', 'equal_utilities', 'deadline_only', 'bursts',
           'long_prompts')
LOADS = (1.0, 2.0)    # of saturation
SEEDS, REQUESTS = [1, 2, 3], 300
WIDTH = 160           # columns where the output is no terminal
FIGURES = ('requests', 'utility', 'completion')   # shares, shares, seconds of control


@dataclass(frozen=True, slots=True)
class Run:
    """The policy in one cell, with one constant at another value, or as it is (None)."""

    cell: Cell
    constant: Constant | None
    value: float


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench sensitivity``."""
    parser.add_argument('--only', type=names, default=[], metavar='NAME,...',
                        help='these constants alone')
    parser.add_argument('--seeds', type=integers, default=SEEDS, help='(default: 1,2,3)')
    parser.add_argument('--requests', type=positive_int, default=REQUESTS,
                        help='requests a run (default: %(default)s)')
    parser.add_argument('--jobs', type=positive_int, default=os.cpu_count() or 1,
                        help='processes (default: one a core)')
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures here')


def run(args: Namespace) -> None:
    """Run ``slice_bench sensitivity``. Raises ``ValueError`` naming a constant that is unknown."""
    constants = policy_constants()
    known = [constant.name for constant in constants]
    if unknown := [name for name in args.only if name not in known]:
        raise ValueError(f'--only {unknown[0]!r:.80}: no constant; there are {", ".join(known)}')
    constants = [c for c in constants if not args.only or c.name in args.only]
    regimes = {regime.name: regime for regime in shipped_regimes()}
    grid = cells([regimes[name] for name in REGIMES], shipped_profiles(), LOADS, args.requests,
                 args.seeds, [POLICY])
    variants = [(None, 0.0)] + [(c, value) for c in constants for value in (c.half, c.double)]
    runs = [Run(cell, *variant) for variant in variants for cell in grid]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    rows = in_parallel([(simulate_run, each) for each in runs], min(args.jobs, len(runs)), console)
    changes = compare(constants, rows)
    if args.json:  # first: the reader of the table may close the pipe
        args.json.write_text(json.dumps({'policy': POLICY, 'changes': changes, 'runs': rows},
                                        indent=1, allow_nan=False) + '\n')
    console.print(changes_table(changes, len(args.seeds)))
    if args.json:
        console.print(f'figures: {args.json}')


def simulate_run(each: Run) -> dict:
    """Return the JSON row of a run. Raises `PolicyError` naming the constant."""
    if each.constant is None:
        return _row(simulate_cell(each.cell), '', '', None)
    constant = each.constant
    try:
        with changed(constant, each.value):
            row = simulate_cell(each.cell)
    except PolicyError as error:
        raise PolicyError(f'{constant.name} = {each.value:g}: {error}') from error
    return _row(row, constant.module, constant.name, each.value)


def _row(row: Mapping, module: str, name: str, value: float | None) -> dict:
    return {'module': module, 'constant': name, 'value': value,
            **{key: row[key] for key in ('regime', 'profile', 'load', 'seed')},
            'requests': row['attainment'], 'utility': row['utility_attainment'],
            'completion': row['classes'].get(URGENT, {}).get('completion_mean')}


def compare(constants: Sequence[Constant], rows: Sequence[Mapping]) -> list[dict]:
    """Return what half and double of each constant change, from the rows of all runs.

    Each figure is a pair: the mean over regimes, profiles and loads of the difference to the
    unchanged policy on the same requests, and its standard error over the seeds. `worst` is the
    place that loses the most utility.
    """
    of: dict[tuple, dict[tuple, Mapping]] = {}
    for row in rows:
        place = row['regime'], row['profile'], row['load'], row['seed']
        of.setdefault((row['module'], row['constant'], row['value']), {})[place] = row
    base = of['', '', None]
    changes = []
    for constant in constants:
        for change, value in (('half', constant.half), ('double', constant.double)):
            runs = of[constant.module, constant.name, value]
            loss, worst = min((fmean(
                runs[place]['utility'] - base[place]['utility'] for place in base
                if place[:3] == where), where) for where in {place[:3] for place in base})
            changes.append({
                'module': constant.module, 'constant': constant.name,
                'unchanged': constant.value, 'change': change, 'value': value,
                **{key: _difference(runs, base, key) for key in FIGURES},
                'worst': {'regime': worst[0], 'profile': worst[1], 'load': worst[2],
                          'utility': loss}})
    return changes


def _difference(runs: Mapping[tuple, Mapping], base: Mapping[tuple, Mapping], key: str
                ) -> tuple[float, float] | None:
    """Return the mean difference and its standard error; None where a figure is not there."""
    both = [(place[3], runs[place][key], base[place][key]) for place in base
            if None not in (runs[place][key], base[place][key])]
    if not both:
        return None
    seeds = sorted({seed for seed, _, _ in both})
    return paired(*([fmean(pair[i] for pair in both if pair[0] == seed) for seed in seeds]
                    for i in (1, 2)))


def changes_table(changes: Sequence[Mapping], seeds: int) -> Table:
    """Return the table of the changes."""
    over = f'± standard error over {seeds} seeds' if seeds > 1 else 'one seed'
    table = Table(title=f'{POLICY} with one constant changed, minus unchanged ({over})',
                  title_justify='left')
    table.add_column('constant', no_wrap=True)
    for name in ('value', 'requests, points', 'utility, points', f'{URGENT} completion, ms',
                 'most utility lost in one place'):
        table.add_column(name, justify='right')
    for change in changes:
        first = change['change'] == 'half'
        worst = change['worst']
        table.add_row(
            f'{change["constant"]} = {change["unchanged"]:g}' if first else '',
            f'{change["change"]} {change["value"]:g}',
            _shown(change['requests'], 100, 1), _shown(change['utility'], 100, 1),
            _shown(change['completion'], 1e3, -1),
            '-' if worst['utility'] >= 0 else
            f'{100 * worst["utility"]:+.1f} [dim]{worst["regime"]}, {worst["profile"]}, '
            f'{worst["load"]:g}[/]', end_section=not first)
    return table


def _shown(figure: tuple[float, float] | None, scale: float, better: int) -> str:
    """Format a difference; in colour where it is more than two standard errors, or of one seed.

    `better` is the sign of an improvement.
    """
    if figure is None:
        return '-'
    mean, error = (scale * part for part in figure)
    text = f'{mean:+.2f}' + (f' ± {error:.2f}' if error else '')
    if abs(mean) <= 2 * error or round(mean, 2) == 0:
        return text
    return f'[{"green" if mean * better > 0 else "red"}]{text}[/]'
