# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Summaries of finished requests: percentiles, figures per class, and tables to print."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
import math
from statistics import fmean, stdev

from rich.console import Console, Group
from rich.table import Table
from slice_ros.slo import SloReport


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the nearest-rank percentile of the finite `values`, or None; `share` is 0 to 1."""
    ranked = sorted(value for value in values if math.isfinite(value))
    if not ranked:
        return None
    return ranked[max(0, math.ceil(share * len(ranked) - 1e-9) - 1)]


def attainment(reports: Sequence[SloReport]) -> float:
    """Return attained requests over all requests; 1 for none."""
    return sum(report.attained for report in reports) / len(reports) if reports else 1.0


def utility_attainment(reports: Sequence[SloReport]) -> float:
    """Return `attainment` with each request weighted by its class's utility."""
    total = sum(report.slo.utility for report in reports)
    return sum(r.slo.utility for r in reports if r.attained) / total if total else 1.0


def completion(report: SloReport) -> float:
    """Return the seconds to a request's end, as completion figures count them.

    A request that was not served counts the later of its deadline and its end, so that giving it
    up early does not look faster.
    """
    if report.served:
        return report.completion
    ends = [x for x in (report.elapsed, report.completion, report.slo.deadline)
            if math.isfinite(x)]
    return max(ends, default=math.nan)


def tardiness(report: SloReport) -> float:
    """Return the seconds by which a request exceeded the objective that it exceeded most.

    It is 0 if it exceeded none. TTFT and deadline count by their own times; TPOT by how much later
    the last token came than (n - 1) TPOT behind the first one. What a request that was not served
    lacks counts as if it came at the end of the request.
    """
    slo, tokens = report.slo, report.output_tokens
    end = report.completion if report.served else report.elapsed
    beyond = [(report.ttft if tokens else end) - slo.ttft, end - slo.deadline]
    if report.served:
        beyond.append((tokens - 1) * (report.tpot - slo.tpot) if tokens > 1 else 0.0)
    elif tokens:
        beyond.append(end - report.ttft - tokens * slo.tpot)   # the next token was due
    return max([0.0, *(seconds for seconds in beyond if math.isfinite(seconds))])


def share_of(attained: float, bound: float) -> float:
    """Return what was attained as a share of a bound; 1 where nothing could be."""
    return attained / bound if bound else 1.0


def class_summary(reports: Iterable[SloReport]) -> dict[str, dict]:
    """Return the figures of each class, in order of utility; times in seconds.

    TTFT counts requests that got a token, TPOT those that got two, completion all of them.
    ``tardiness`` is the time beyond the objectives (`tardiness`), of all requests as well.
    ``max_gap_p99`` is the 99th percentile over requests of the longest wait between two tokens.
    A figure without a measurement is None.
    """
    groups: dict[str, list[SloReport]] = defaultdict(list)
    for report in reports:
        groups[report.slo.name].append(report)
    ordered = sorted(groups.items(), key=lambda item: (-item[1][0].slo.utility, item[0]))
    return {name: _summary(group) for name, group in ordered}


def _summary(group: list[SloReport]) -> dict:
    ttft = [report.ttft for report in group]
    tpot = [report.tpot for report in group if report.output_tokens > 1]
    ends = [x for x in map(completion, group) if math.isfinite(x)]
    beyond = [tardiness(report) for report in group]
    return {
        'requests': len(group),
        'attained': sum(report.attained for report in group),
        'attainment': attainment(group),
        'ttft_p50': percentile(ttft, .5), 'ttft_p99': percentile(ttft, .99),
        'tpot_p50': percentile(tpot, .5), 'tpot_p99': percentile(tpot, .99),
        'completion_mean': fmean(ends) if ends else None,
        'completion_p99': percentile(ends, .99),
        'tardiness_p50': percentile(beyond, .5), 'tardiness_p99': percentile(beyond, .99),
        'max_gap_p99': percentile((r.max_gap for r in group if r.output_tokens > 1), .99),
    }


def class_table(classes: Mapping[str, Mapping], title: str = '') -> Table:
    """Return a rich table of a `class_summary`."""
    table = Table(title=title or None, title_justify='left')
    table.add_column('class', no_wrap=True)
    for column in ('requests', 'attained', 'TTFT p50', 'TTFT p99', 'TPOT p50', 'TPOT p99',
                   'completion', 'beyond p50', 'beyond p99'):
        table.add_column(column, justify='right')
    for name, row in classes.items():
        share = row['attained'] / row['requests'] if row['requests'] else 1.0
        color = 'green' if share >= .9 else 'yellow' if share >= .5 else 'red'
        table.add_row(
            name, str(row['requests']), f'[{color}]{row["attained"]} ({share:.0%})[/]',
            *(_seconds(row[key]) for key in
              ('ttft_p50', 'ttft_p99', 'tpot_p50', 'tpot_p99', 'completion_mean',
               'tardiness_p50', 'tardiness_p99')))
    return table


def print_runs(runs: Sequence[Mapping], console: Console) -> None:
    """Print the figures of the runs of a sweep: policies by load, mean ± spread over the seeds."""
    seeds = len({run['seed'] for run in runs})
    over = f'mean ± standard deviation over {seeds} seeds' if seeds > 1 else 'one seed'
    for name, key, bound in (('requests', 'attainment', 'bound'),
                             ('utility', 'utility_attainment', 'utility_bound')):
        console.print(load_table(runs, _of_run(key), f'attained, % of {name} ({over})', 100,
                                 bound))
        console.print(load_table(runs, _of_run(f'{bound}_share'),
                                 f'attained, % of the {name} that any schedule could', 100))
    urgent = next(iter(runs[0]['classes']))
    for title, figure, scale in (
            ('attained, %', 'attainment', 100), ('mean completion, s', 'completion_mean', 1),
            ('longest gap between tokens, p99, ms', 'max_gap_p99', 1e3)):
        console.print(load_table(runs, _of_class(urgent, figure), f'{urgent}: {title}', scale))
    for name in runs[0]['classes']:
        console.print(load_table(runs, _of_class(name, 'tardiness_p50'),
                                 f'{name}: beyond the objectives, s: p50 / p99', 1,
                                 beside=_of_class(name, 'tardiness_p99')))
    console.print(load_table(runs, _of_run('plan_us_p50'), 'plan, median µs', 1))


def _of_run(key: str) -> Callable[[Mapping], float | None]:
    return lambda run: run[key]


def _of_class(name: str, figure: str) -> Callable[[Mapping], float | None]:
    return lambda run: run['classes'].get(name, {}).get(figure)


def load_table(runs: Sequence[Mapping], figure: Callable[[Mapping], float | None], title: str,
               scale: float, bound: str = '',
               beside: Callable[[Mapping], float | None] | None = None) -> Group:
    """Return a titled table of a figure of runs: loads down, policies (and the bound) across.

    `bound` is the key of the bound, and `beside` a second figure that each cell shows.
    """
    policies = list(dict.fromkeys(run['policy'] for run in runs))
    table = Table()
    table.add_column('req/s', justify='right')
    for policy in policies:
        table.add_column(policy.replace(':', ' '), justify='right')
    if bound:
        table.add_column('bound', justify='right', style='dim')
    for rate in sorted({run['rate'] for run in runs}):
        cells = []
        for policy in policies:
            at = [run for run in runs if run['rate'] == rate and run['policy'] == policy]
            if beside:
                cells.append(' / '.join(_mean(list(map(each, at))) for each in (figure, beside)))
            else:
                cells.append(_spread(list(map(figure, at)), scale))
        if bound:
            cells.append(_spread([run[bound] for run in runs if run['rate'] == rate
                                  and run['policy'] == policies[0]], scale))
        table.add_row(f'{rate:g}', *cells)
    return Group(title, table)  # a table's own title wraps at the width of the table


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (0 of one value)."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def _spread(values: Sequence[float | None], scale: float) -> str:
    known = [value * scale for value in values if value is not None]
    if not known:
        return '-'
    mean, spread = mean_and_spread(known)
    digits = 2 if mean < 10 and scale == 1 else 1
    return f'{mean:.{digits}f}' + (f' ± {spread:.{digits}f}' if len(known) > 1 else '')


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f'{fmean(known):.2f}' if known else '-'


def _seconds(value: float | None) -> str:
    if value is None:
        return '-'
    return f'{value * 1e3:.0f} ms' if value < 1 else f'{value:.2f} s'
