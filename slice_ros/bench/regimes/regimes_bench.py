# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench regimes``: all regimes, profiles, loads and policies; fails where a line fails."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
import json
import os
from pathlib import Path
import sys

from rich.console import Console
from rich.markup import escape
from slice_ros.bench.progress import in_parallel
from slice_ros.bench.regimes.grid import cells, grid_section
from slice_ros.bench.regimes.lines import Line, Section
from slice_ros.bench.regimes.loose_limits import loose_section
from slice_ros.bench.regimes.published_setting import published_section
from slice_ros.bench.regimes.regime import read_folder, shipped_profiles, shipped_regimes
from slice_ros.bench.regimes.regimes_table import lines_table, standings_table
from slice_ros.bench.regimes.special_cases import (
    burst_section, first_token_section, plan_section, starvation_section)
from slice_ros.bench.schedule.options import (
    DEFAULT_POLICIES, floats, integers, names, policy_from_spec, positive_int)
from slice_ros.scheduling.policy import Capacity

SECTIONS = ('grid', 'gains', 'loose_limits', 'nine', 'first_token', 'starvation', 'plan')
LOADS = [.7, 1.0, 1.5, 2.0]     # of saturation
SEEDS, REQUESTS = 10, 200       # of a cell of the grid
LONG = 2                        # times as many requests in the sections of the published mix
QUICK = {'seeds': [1, 2, 3], 'requests': 80, 'loads': [1.0, 2.0]}
WIDTH = 160     # columns where the output is no terminal
TUNED = 'slice_static:capacity_ratio=0.5'


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench regimes``."""
    parser.add_argument('--dir', type=Path, metavar='FOLDER',
                        help='more workloads and profiles (.yaml) and traces (.jsonl)')
    parser.add_argument('--only', type=names, default=[], metavar='NAME,...',
                        help=f'these sections ({", ".join(SECTIONS)}), or regimes with one of '
                             'these texts in their name')
    parser.add_argument('--profiles', type=names, default=[], metavar='NAME,...',
                        help='these profiles alone')
    parser.add_argument('--ours', default='slice', metavar='POLICY',
                        help='the policy that the lines are about (default: %(default)s)')
    parser.add_argument('--policies', type=names, default=[*DEFAULT_POLICIES, TUNED],
                        help='the policies it is compared with (default: those built in)')
    parser.add_argument('--loads', type=floats, help='of saturation (default: 0.7,1,1.5,2)')
    parser.add_argument('--seeds', type=integers, help='(default: 1 to 10)')
    parser.add_argument('--requests', type=positive_int,
                        help=f'requests a run (default: {REQUESTS}; the sections gains and '
                             f'loose_limits take {LONG} times as many)')
    parser.add_argument('--quick', action='store_true',
                        help='3 seeds, 80 requests and loads 1,2, unless the flags say otherwise')
    parser.add_argument('--jobs', type=positive_int, default=os.cpu_count() or 1,
                        help='processes (default: one a core)')
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures here')
    parser.add_argument('--plot', type=Path, metavar='OUT.png', help='draw the grid here')


def run(args: Namespace) -> int:
    """Run ``slice_bench regimes``; return 1 if a line fails.

    Raises ``ValueError`` saying what is wrong.
    """
    full = {'seeds': list(range(1, SEEDS + 1)), 'requests': REQUESTS, 'loads': LOADS}
    for name, value in (QUICK if args.quick else full).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    for spec in (args.ours, *args.policies):
        policy_from_spec(spec, Capacity())
    rows: list[dict] = []
    sections = chosen_sections(args, rows)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    calls = [call for section in sections for call in section.calls]
    results = in_parallel(calls, min(args.jobs, len(calls)), console)
    lines: list[Line] = []
    for section in sections:
        lines += section.judge(results[:len(section.calls)])
        results = results[len(section.calls):]
    report(args, rows, lines, console)
    return int(not all(line.holds for line in lines))


def chosen_sections(args: Namespace, rows: list[dict]) -> list[Section]:
    """Return the sections that the flags ask for; the grid adds its rows to `rows`.

    Raises ``ValueError`` when a name of ``--only`` or ``--profiles`` fits nothing.
    """
    regimes, profiles = shipped_regimes(), shipped_profiles()
    if args.dir:
        regimes, profiles = read_folder(args.dir, regimes, profiles)
    texts = [name for name in args.only if name not in SECTIONS]
    for text in texts:
        if not any(text in regime.name for regime in regimes):
            raise ValueError(f'--only {text!r:.80}: no section and no regime; there are '
                             f'{", ".join([*SECTIONS, *(r.name for r in regimes)])}')
    if unknown := set(args.profiles) - {profile.name for profile in profiles}:
        raise ValueError(f'--profiles: {", ".join(sorted(unknown))} is none of '
                         f'{", ".join(profile.name for profile in profiles)}')
    if texts:
        regimes = [r for r in regimes if any(text in r.name for text in texts)]
    if args.profiles:
        profiles = [profile for profile in profiles if profile.name in args.profiles]
    policies = list(dict.fromkeys([args.ours, *args.policies]))
    long = LONG * args.requests
    made = {
        'grid': lambda: grid_section(
            cells(regimes, profiles, args.loads, args.requests, args.seeds, policies),
            args.ours, rows),
        'gains': lambda: published_section(args.ours, long, args.seeds),
        'loose_limits': lambda: loose_section(args.ours, long, args.seeds),
        'nine': lambda: burst_section(args.ours, args.seeds),
        'first_token': lambda: first_token_section(args.ours, args.seeds),
        'starvation': lambda: starvation_section(args.ours, args.seeds),
        'plan': lambda: plan_section(args.ours)}
    wanted = [name for name in SECTIONS if name in args.only] or ([] if texts else SECTIONS)
    return [made[name]() for name in dict.fromkeys([*(['grid'] if texts else []), *wanted])]


def report(args: Namespace, rows: Sequence[dict], lines: Sequence[Line], console: Console) -> None:
    """Write the JSON, print the tables and draw the grid."""
    if args.json:  # first: the reader of the tables may close the pipe
        args.json.write_text(json.dumps(
            {'ours': args.ours, 'lines': [asdict(line) for line in lines], 'runs': rows},
            indent=1, allow_nan=False) + '\n')
    if rows:
        console.print(standings_table(rows, args.ours))
    console.print(lines_table(lines))
    failed = sum(not line.holds for line in lines)
    console.print(f'{len(lines) - failed} of {len(lines)} lines hold for {escape(args.ours)}')
    if args.json:
        console.print(f'figures: {args.json}')
    if args.plot and rows:
        from slice_ros.bench.regimes.regimes_plot import draw_grid  # matplotlib takes its time
        draw_grid(rows, args.ours, args.plot)
        console.print(f'plot: {args.plot}')
