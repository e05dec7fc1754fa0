# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The published mix on the authors' table: against Orca and FastServe, and against the bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from slice_ros.bench.config_files import config_file
from slice_ros.bench.regimes.lines import Line, Section
from slice_ros.bench.regimes.regime import AUTHORS
from slice_ros.bench.schedule.sweep import bound_of, Run, run_row, simulated
from slice_ros.bench.schedule.workload import generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.scheduling.latency import load_profile
from slice_ros.scheduling.policy import Capacity

RIVALS = ('orca', 'fastserve')
URGENT = 'control'
RATES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)     # requests a second
SOONER, SOONER_FROM = 3.4, 1.5             # the paper's gain in completion, from which rate
TIMES = 35.0                               # the paper's gain in attainment
# (workload, figure, its bound): {rate: least share of the bound}
OF_BOUND = {
    ('published', 'utility'): {1.0: .98, 1.5: .98, 2.0: .98, 3.0: .98, 6.0: .95},
    ('published', 'requests'): {1.0: .92, 1.5: .92, 2.0: .92, 4.0: .82},
    ('realtime_heavy', 'utility'): {8.0: .88},
}
SHARE = {'utility': 'utility_bound_share', 'requests': 'bound_share'}

COMPLETION = f'control completes at least {SOONER:g} times sooner than under orca and fastserve'
PEAK = f'at least {TIMES:g} times the requests, or the utility, of orca and fastserve at the peak'
BOUND = 'share of the bound of any schedule'


@dataclass(frozen=True, slots=True)
class Load:
    """A workload at a rate; `policies` run on it beside ours."""

    workload: str
    rate: float
    policies: tuple[str, ...]


def loads() -> list[Load]:
    """Return the loads of this section."""
    return [Load('published', rate, RIVALS) for rate in RATES] + [
        Load(workload, rate, ()) for (workload, _), bars in OF_BOUND.items()
        for rate in bars if workload != 'published']


def published_section(ours: str, requests: int, seeds: Sequence[int]) -> Section:
    """Return the section; its rows are those of `slice_bench simulate`."""
    latency = load_profile(config_file('profiles', AUTHORS))
    runs, keys = [], []
    for load in loads():
        workload = load_workload(config_file('workloads', load.workload))
        for seed in seeds:
            arrivals = tuple(generate(workload, load.rate, requests, seed))
            for policy in (ours, *load.policies):
                runs.append(Run(policy, load.rate, seed, arrivals, latency, Capacity()))
                keys.append((load.workload, load.rate, policy))
    bounded = [run for run in runs if run.policy == ours]

    def judge(results: Sequence) -> list[Line]:
        bounds = {id(run.arrivals): bound for run, bound in zip(bounded, results)}
        rows: dict[tuple, list[Mapping]] = {}
        for key, run, outcome in zip(keys, runs, results[len(bounded):]):
            rows.setdefault(key, []).append(run_row(run, *outcome, bounds[id(run.arrivals)]))
        return [*gain_lines(rows, ours), *bound_lines(rows, ours)]

    return Section('gains', [(bound_of, run) for run in bounded]
                   + [(simulated, run) for run in runs], judge)


def gain_lines(rows: Mapping[tuple, Sequence[Mapping]], ours: str) -> list[Line]:
    """Return the lines against Orca and FastServe, from rows by (workload, rate, policy)."""
    lines, gains = [], {'requests': [], 'utility': []}
    for rate in RATES:
        mine, *rivals = (rows['published', rate, policy] for policy in (ours, *RIVALS))
        ends = [fmean(row['classes'][URGENT]['completion_mean'] for row in of)
                for of in (mine, *rivals)]
        sooner = min(ends[1:]) / ends[0]
        if rate >= SOONER_FROM:
            lines.append(Line(COMPLETION, f'{rate:g} req/s', f'{sooner:.1f}x: {ends[0]:.2f} s, '
                              f'the better of them {min(ends[1:]):.2f} s', sooner >= SOONER))
        for name, key in (('requests', 'attainment'), ('utility', 'utility_attainment')):
            one = 1 / sum(row['requests'] for row in mine)  # nothing attained counts as a request
            shares_of = [fmean(row[key] for row in of) for of in (mine, *rivals)]
            gains[name].append((shares_of[0] / max(*shares_of[1:], one), rate))
    (most, at), name = max((max(found), name) for name, found in gains.items())
    lines.append(Line(PEAK, f'{name}, at {at:g} req/s', f'{most:.0f}x', most >= TIMES))
    return lines


def bound_lines(rows: Mapping[tuple, Sequence[Mapping]], ours: str) -> list[Line]:
    """Return the lines on shares of the bound."""
    lines = []
    for (workload, name), bars in OF_BOUND.items():
        for rate, bar in bars.items():
            share = fmean(row[SHARE[name]] for row in rows[workload, rate, ours])
            lines.append(Line(BOUND, f'{name} of {workload} at {rate:g} req/s',
                              f'{share:.1%}, at least {bar:.0%}', share >= bar))
    return lines
