# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A plot of the engine benchmark: times by case, beside the peer's and the memory floor."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from slice_ros.bench.plot_style import OURS, STYLE


def draw(result: Mapping, path: Path) -> None:
    """Draw the results of `run`; the suffix of `path` selects the format."""
    contexts = sorted({row['context'] for row in result['decode']})
    panels = [(f'decode step behind {c} tokens', 'requests in the step',
               [(row['batch'], row) for row in result['decode'] if row['context'] == c])
              for c in contexts]
    panels.append(('prefill', 'tokens', [(row['tokens'], row) for row in result['prefill']]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(panels), 3.4), layout='constrained', dpi=120)
        for axes, (title, label, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0],
                                              panels):
            at = range(len(rows))
            axes.bar([x - .2 for x in at], [row['ms'] for _, row in rows], .4, color=OURS,
                     label=f'slice_ros, {result["weights"]}')
            if rows[0][1]['peer_ms'] is not None:
                axes.bar([x + .2 for x in at], [row['peer_ms'] for _, row in rows], .4,
                         color='#999999', label=result['peers'][0]['name'])
            if title != 'prefill':
                axes.axhline(result['floor_ms'], color='black', lw=.8, ls=':',
                             label='reading the weights once')
            axes.set(title=title, xlabel=label, ylabel='ms', xticks=list(at),
                     xticklabels=[str(n) for n, _ in rows])
            axes.grid(axis='x', visible=False)
        figure.axes[0].legend(fontsize=8)
        figure.suptitle(f'{result["model"]} on {result["device"]}, {result["threads"]} threads',
                        fontsize=11)
        figure.savefig(path)
