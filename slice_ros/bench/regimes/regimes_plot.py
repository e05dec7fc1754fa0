# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Picture of the grid: how far our policy is beyond the best of the others, place by place."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from slice_ros.bench.plot_style import STYLE
from slice_ros.bench.regimes.grid import by_place, standing

RANGE = 20     # points at which the colours end


def draw_grid(rows: Sequence[Mapping], ours: str, path: Path) -> None:
    """Draw a row for each regime, a column for each profile and load.

    The ending of `path` sets the format. Raises ``ValueError`` when matplotlib does not know it.
    """
    places = by_place(rows)
    regimes = list(dict.fromkeys(place[0] for place in places))
    columns = list(dict.fromkeys(place[1:] for place in places))
    gains = [[100 * standing(places[regime, *column], ours)[2] for column in columns]
             for regime in regimes]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3 + .62 * len(columns), 1.9 + .3 * len(regimes)),
                        layout='constrained', dpi=120)
        axes = figure.subplots()
        image = axes.imshow(gains, cmap='RdBu', vmin=-RANGE, vmax=RANGE, aspect='auto')
        for y, row in enumerate(gains):
            for x, gain in enumerate(row):
                axes.text(x, y, f'{gain:+.1f}', ha='center', va='center', fontsize=7,
                          color='white' if abs(gain) > .6 * RANGE else 'black')
        axes.set_yticks(range(len(regimes)), regimes)
        axes.set_xticks(range(len(columns)), [f'{profile}\n{load:g}' for profile, load in columns],
                        fontsize=6, rotation=90)
        axes.grid(False)
        axes.set(title=f'{ours}: points of utility beyond the best of the others, by load')
        figure.colorbar(image, label='points')
        figure.savefig(path)
