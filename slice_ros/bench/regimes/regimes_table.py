# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the regimes: where our policy stands on each, and which lines hold."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from slice_ros.bench.regimes.grid import by_place, standing
from slice_ros.bench.regimes.lines import EXACT, Line

MOST_FAILED = 12    # failed lines of one requirement that are printed; the JSON has all


def standings_table(rows: Sequence[Mapping], ours: str) -> Table:
    """Return the utility of our policy in each place, and how far the best rival is behind."""
    table = Table(title=f'{ours}: % of utility attained, points beyond the best rival ± standard '
                        'error', title_justify='left')
    loads = sorted({row['load'] for row in rows})
    for name in ('regime', 'profile'):
        table.add_column(name, no_wrap=True)
    for load in loads:
        table.add_column(f'{load:g}', justify='right')
    places = by_place(rows)
    for regime, profile in dict.fromkeys(place[:2] for place in places):
        table.add_row(regime, profile, *(_cell(*standing(places[regime, profile, load], ours))
                                         for load in loads))
    return table


def _cell(share: float, rival: str, gain: float, error: float) -> str:
    if not rival:
        return f'{100 * share:.1f}'
    color = 'red' if gain < -error - EXACT else 'green'
    return (f'{100 * share:.1f}, [{color}]{100 * gain:+.1f} ± {100 * error:.1f}[/]\n'
            f'[dim]{rival.replace(":capacity_ratio", "")}[/]')


def lines_table(lines: Sequence[Line]) -> Table:
    """Return how many lines of each requirement hold, and the figures of those that fail.

    A requirement of a few cases shows all of them.
    """
    table = Table(title='lines', title_justify='left', show_lines=False)
    for name in ('', 'case', 'measured'):
        table.add_column(name)
    for what in dict.fromkeys(line.what for line in lines):
        same = [line for line in lines if line.what == what]
        failed = [line for line in same if not line.holds]
        table.add_row(_mark(not failed), f'[bold]{what}[/]',
                      f'{len(same) - len(failed)} of {len(same)} hold')
        shown = same if len(same) <= MOST_FAILED else failed[:MOST_FAILED]
        for line in shown:
            table.add_row('', f'  {_mark(line.holds)} {line.where}', line.figure)
        if len(failed) > len(shown):
            table.add_row('', f'  and {len(failed) - len(shown)} more that fail', '')
    return table


def _mark(holds: bool) -> str:
    return '[green]holds[/]' if holds else '[red]fails[/]'
