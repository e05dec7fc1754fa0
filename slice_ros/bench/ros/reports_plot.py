# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Picture of recorded reports: attainment over time, and times beside their objectives."""

from collections import Counter
from collections.abc import Mapping, Sequence
import math
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from slice_ros.bench.plot_style import CLASS_COLORS, STYLE
from slice_ros.bench.report import attainment, completion
from slice_ros.bench.ros.recording import Record

MAX_CLASSES = 10     # drawn, the most useful ones
PER_BIN = 6          # requests of a class in a bin of the time axis, on average
BINS = (4, 40)       # fewest and most of these bins
TIMES = (
    ('time to first token', 'ttft', lambda r: r.ttft),
    ('time per token', 'tpot', lambda r: r.tpot if r.output_tokens > 1 else math.nan),
    ('completion', 'deadline', completion))


def draw_reports(topics: Mapping[str, Sequence[Record]], title: str, path: Path) -> None:
    """Draw the records of each topic, in order of arrival; the ending of `path` sets the format.

    Raises ``ValueError`` when matplotlib does not know the format.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, .4 + 5.2 * len(topics)), layout='constrained', dpi=110)
        rows = figure.subfigures(len(topics), squeeze=False)[:, 0]
        for row, (topic, records) in zip(rows, topics.items()):
            classes = dict(list(_by_class(records).items())[:MAX_CLASSES])
            colors = dict(zip(classes, CLASS_COLORS * MAX_CLASSES))
            upper, lower = row.subfigures(2, height_ratios=[1.15, 1])
            over_time, counts = upper.subplots(2, 1, sharex=True, height_ratios=[2, 1])
            _draw_time(over_time, counts, records, classes, colors)
            over_time.set_title(f'{topic}: attained, of the requests received then')
            for axes, (name, field, value) in zip(lower.subplots(1, len(TIMES)), TIMES):
                _draw_distribution(axes, name, field, value, classes, colors)
        figure.suptitle(title, fontsize=11, fontweight='bold')
        figure.savefig(path)


def _by_class(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the records that count, by class, the most useful first."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if not record.cancelled:
            groups.setdefault(record.report.slo.name, []).append(record)
    return dict(sorted(groups.items(),
                       key=lambda item: (-item[1][0].report.slo.utility, item[0])))


def _draw_time(over_time: Axes, counts: Axes, records: Sequence[Record],
               classes: Mapping[str, Sequence[Record]], colors: Mapping[str, str]) -> None:
    start = records[0].received
    span = max(records[-1].received - start, 1.0)
    bins = min(max(len(records) // (PER_BIN * max(len(classes), 1)), BINS[0]), BINS[1])
    width = span / bins
    middles = [(i + .5) * width for i in range(bins)]
    stacked = [0] * bins
    for name, group in classes.items():
        binned: list[list] = [[] for _ in range(bins)]
        for record in group:
            binned[min(int((record.received - start) / width), bins - 1)].append(record.report)
        known = [(x, attainment(reports)) for x, reports in zip(middles, binned) if reports]
        over_time.plot(*zip(*known), color=colors[name], marker='o', markersize=4, label=name)
        heights = [len(reports) for reports in binned]
        counts.bar(middles, heights, width * .9, stacked, color=colors[name])
        stacked = [a + b for a, b in zip(stacked, heights)]
    over_time.set(ylim=(-.03, 1.05), xlim=(0, span))
    over_time.yaxis.set_major_formatter(PercentFormatter(1))
    if classes:
        over_time.legend(fontsize=8, ncols=len(classes), loc='lower right',
                         bbox_to_anchor=(1, 1), borderaxespad=0)
    counts.set(ylabel='requests', xlabel='seconds since the first request')


def _draw_distribution(axes: Axes, title: str, field: str, value,
                       classes: Mapping[str, Sequence[Record]], colors: Mapping[str, str]) -> None:
    """Draw the distribution of a time by class, and the objective of each class."""
    for name, group in classes.items():
        times = sorted(t for t in (value(record.report) for record in group)
                       if math.isfinite(t))
        if times:
            # A request without this time is never counted: the curve then ends below 100 %.
            axes.step([t * 1e3 for t in (times[0], *times)],
                      [i / len(group) for i in range(len(times) + 1)], where='post',
                      color=colors[name])
        usual = Counter(getattr(record.report.slo, field) for record in group).most_common(1)
        if math.isfinite(usual[0][0]):
            axes.axvline(usual[0][0] * 1e3, color=colors[name], linestyle='--', linewidth=1)
    axes.set(title=f'{title} (dashed: objective)', xscale='log', xlabel='ms', ylim=(0, 1.03))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1))
