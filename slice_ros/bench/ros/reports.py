# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench reports``: the figures of recorded `slo_reports`, and a trace made of them."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
import json
from pathlib import Path
import sys

from rich.console import Console
from slice_ros.bench.report import attainment, class_summary, class_table, utility_attainment
from slice_ros.bench.ros.recording import read_reports, Record, trace_lines

MAX_PLOTTED = 6  # topics in one picture


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench reports``."""
    parser.add_argument('recording', type=Path, metavar='BAG_OR_JSONL',
                        help='a bag with slo_reports (folder, .db3 or .mcap), or JSON lines')
    parser.add_argument('--topic', default='', help='this topic alone, e.g. /slice/slo_reports '
                                                    '(default: every topic of reports)')
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures here')
    parser.add_argument('--plot', type=Path, metavar='OUT.png', help='draw the figures here')
    parser.add_argument('--trace', type=Path, metavar='OUT.jsonl',
                        help='write the requests here, for slice_bench simulate --trace')


def run(args: Namespace) -> int:
    """Run ``slice_bench reports``. Raises ``ValueError`` saying what is wrong."""
    topics = read_reports(args.recording, args.topic)
    if len(topics) > 1 and args.trace:
        raise ValueError('a trace is of one node: choose its reports with --topic, one of '
                         + ', '.join(topics))
    if len(topics) > MAX_PLOTTED and args.plot:
        raise ValueError(f'{len(topics)} topics are too many for one picture: choose one with '
                         '--topic')
    console = Console(width=None if sys.stdout.isatty() else 120)
    rows = [figures(topic, records) for topic, records in topics.items()]
    if args.json:
        args.json.write_text(json.dumps({'runs': rows}, indent=1, allow_nan=False) + '\n')
    for row in rows:
        console.print(f'{row["topic"]}: {row["requests"]} requests in {row["span_s"]:.1f} s, '
                      f'{row["attainment"]:.0%} attained ({row["utility_attainment"]:.0%} of '
                      f'utility); {row["cancelled"]} more ended by their caller',
                      markup=False, highlight=False)
        console.print(class_table(row['classes']))
    if args.trace:
        _write_trace(next(iter(topics.values())), args.trace, console)
    if args.plot:
        # Imported here: matplotlib takes long to load.
        from slice_ros.bench.ros.reports_plot import draw_reports
        draw_reports(topics, args.recording.name, args.plot)
        console.print(f'plot: {args.plot}', markup=False)
    return 0


def figures(topic: str, records: Sequence[Record]) -> dict[str, object]:
    """Return the figures of the records of one topic, in order of arrival; times in seconds.

    Requests that their caller ended count in ``cancelled`` alone.
    """
    counted = [record.report for record in records if not record.cancelled]
    return {'topic': topic, 'requests': len(counted), 'cancelled': len(records) - len(counted),
            'span_s': records[-1].received - records[0].received,
            'attainment': attainment(counted), 'utility_attainment': utility_attainment(counted),
            'classes': class_summary(counted)}


def _write_trace(records: Sequence[Record], path: Path, console: Console) -> None:
    lines, guessed, left_out = trace_lines(records)
    if not lines:
        raise ValueError('no request got a token: there is nothing to make a trace of')
    path.write_text('\n'.join(lines) + '\n')
    summary = f'trace: {path}, {len(lines)} requests'
    if guessed:
        summary += (f'; {guessed} that were refused or given up have the median lengths of '
                    'their class')
    if left_out:
        summary += f'; {left_out} of unknown length are left out'
    console.print(summary, markup=False, highlight=False)
