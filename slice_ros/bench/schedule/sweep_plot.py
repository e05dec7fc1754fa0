# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a sweep: attainment against load, per class, completion, and the decode mask."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from slice_ros.bench.plot_style import CLASS_COLORS, OURS, POLICY_COLORS, STYLE
from slice_ros.bench.report import mean_and_spread
from slice_ros.bench.schedule.simulate import Result, StepRecord

WINDOW = 1.5       # seconds of a Gantt strip


def draw(runs: Sequence[Mapping], strips: Mapping[str, Result], title: str, path: Path) -> None:
    """Draw the figures of a sweep and the steps of `strips`, logged results by policy.

    The ending of `path` sets the format. Raises ``ValueError`` when matplotlib does not know it.
    """
    classes = list(runs[0]['classes'])
    policies = list(dict.fromkeys(run['policy'] for run in runs))
    with matplotlib.rc_context(STYLE):
        heights = [1.25, 1] + [.85] * len(strips)
        figure = Figure(figsize=(11, 3 * sum(heights)), layout='constrained', dpi=120)
        rows = figure.subfigures(len(heights), height_ratios=heights, hspace=.02)
        attained, completed = rows[0].subplots(1, 2, width_ratios=[1.4, 1])
        _draw_lines(attained, runs, policies, lambda run: run['attainment'])
        _draw_bound(attained, runs)
        _draw_percent(attained, 'requests attained')
        rows[0].legend(*attained.get_legend_handles_labels(), loc='outside upper left', fontsize=8,
                       ncols=6)
        _draw_lines(completed, runs, policies,
                    lambda run: run['classes'].get(classes[0], {}).get('completion_mean'))
        completed.set(title=f'mean completion of {classes[0]}, served or not (s)', yscale='log',
                      xlabel='load (requests/s)')
        for axes, name in zip(rows[1].subplots(1, len(classes), squeeze=False)[0], classes):
            _draw_lines(axes, runs, policies,
                        lambda run, name=name: run['classes'].get(name, {}).get('attainment'))
            _draw_percent(axes, f'{name} attained')
        _draw_strips(rows[2:], strips, classes)
        figure.suptitle(title, fontsize=11, fontweight='bold')
        figure.savefig(path)


def _draw_lines(axes: Axes, runs: Sequence[Mapping], policies: Sequence[str],
                figure: Callable[[Mapping], float | None]) -> None:
    colors = iter(POLICY_COLORS * len(policies))
    for policy in policies:
        ours = policy.split(':')[0] == 'slice'
        color = OURS if ours else next(colors)
        points = _by_rate([run for run in runs if run['policy'] == policy], figure)
        rates, means, spreads = zip(*points) if points else ((), (), ())
        axes.errorbar(rates, means, spreads, color=color, marker='o', markersize=3.5, capsize=2,
                      linewidth=2.4 if ours else 1.4, label=policy.replace(':', ' '),
                      zorder=3 if ours else 2)


def _draw_bound(axes: Axes, runs: Sequence[Mapping]) -> None:
    points = _by_rate(runs, lambda run: run['bound'])
    axes.plot([p[0] for p in points], [p[1] for p in points], color='black', linestyle='--',
              linewidth=1, label='bound of any schedule')


def _draw_percent(axes: Axes, title: str) -> None:
    axes.set(title=title, ylim=(0, 1.03), xlabel='load (requests/s)')
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _by_rate(runs: Sequence[Mapping], figure: Callable) -> list[tuple[float, float, float]]:
    points = []
    for rate in sorted({run['rate'] for run in runs}):
        values = [figure(run) for run in runs if run['rate'] == rate]
        known = [value for value in values if value is not None]
        if known:
            points.append((rate, *mean_and_spread(known)))
    return points


def _draw_strips(rows: Sequence, strips: Mapping[str, Result], classes: Sequence[str]) -> None:
    """Draw one Gantt strip a policy: a line is a request, a box a step it took part in."""
    if not strips:
        return
    colors = dict(zip(classes, CLASS_COLORS * len(classes)))
    start = busiest(list(strips.values())[-1].log, WINDOW)
    for i, (row, (policy, result)) in enumerate(zip(rows, strips.items())):
        axes = row.subplots()
        window = [s for s in result.log
                  if s.start < start + WINDOW and s.start + s.seconds > start]
        spans, prefills = _spans(window, start)
        order = sorted({*spans, *prefills}, key=lambda r: (
            classes.index(_class_of(r)), int(r.rpartition('-')[2])), reverse=True)
        for y, request in enumerate(order):
            axes.broken_barh(spans.get(request, []), (y - .4, .8), edgecolor='white',
                             linewidth=.6, facecolor=colors[_class_of(request)])
            axes.broken_barh(prefills.get(request, []), (y - .4, .8), facecolor='#333333',
                             edgecolor='white', linewidth=.6)
        axes.set(title=f'{policy.replace(":", " ")}: steps by request '
                       '(a box is a step; black is prefill)',
                 xlim=(0, WINDOW), xlabel='s', ylim=(-.6, max(len(order), 6) - .4))
        axes.set_yticks(range(len(order)), order, fontsize=6)
        axes.grid(False)
        if not i:
            axes.legend(handles=[Patch(color=colors[name], label=name) for name in classes],
                        fontsize=8, ncols=len(classes), loc='lower right',
                        bbox_to_anchor=(1, 1), borderaxespad=0)


def busiest(log: Sequence[StepRecord], window: float) -> float:
    """Return when the `window` seconds begin in which most classes, then most steps, decode."""
    best, begin = (-1, -1.0), log[0].start if log else 0.0
    first = 0
    members: list[frozenset[str]] = [frozenset(map(_class_of, step.decode)) for step in log]
    for last, step in enumerate(log):
        while log[first].start < step.start - window:
            first += 1
        if last % 5:
            continue  # a fifth of the windows is choice enough
        inside = members[first:last + 1]
        widths = {len(s.decode) for s in log[first:last + 1]}
        score = (len(frozenset().union(*inside)), len(widths))
        if score > best:
            best, begin = score, log[first].start
    return begin


def _spans(window: Sequence[StepRecord], start: float) -> tuple[dict, dict]:
    spans: dict[str, list[tuple[float, float]]] = {}
    prefills: dict[str, list[tuple[float, float]]] = {}
    for step in window:
        for members, target in ((step.decode, spans), (step.prefill, prefills)):
            for request in members:
                target.setdefault(request, []).append((step.start - start, step.seconds))
    return spans, prefills


def _class_of(request_id: str) -> str:
    return request_id.rpartition('-')[0]
