# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Every regime on every profile at every load: our policy against each of the others."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from slice_ros.bench.regimes.lines import EXACT, Line, paired, points, Section
from slice_ros.bench.regimes.regime import FLAT, Regime
from slice_ros.bench.report import attainment, class_summary, utility_attainment
from slice_ros.bench.schedule.options import policy_from_spec
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity

POINT = .01           # share by which requests may be fewer, and long prompts behind the best
ALIKE = 2.0           # ratio of utilities up to which the number of requests counts
AS_USEFUL = .02       # share by which utility may be less for tardiness to be compared
URGENT = 'control'    # class whose tardiness is compared
LONG_PROMPTS = 'long_prompts'

UTILITY = 'utility at least that of every policy, within one standard error'
REQUESTS = 'requests within 1 point of every policy, where utilities are within 2x'
TARDINESS = "control's p99 tardiness at most that of every policy as useful, within one error"
LONG = 'long prompts with shared costs: within 1 point of the best policy'


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy on one regime, profile, load (relative to saturation) and seed."""

    regime: Regime
    latency: LatencyModel
    load: float
    rate: float
    requests: int
    seed: int
    policy: str


def simulate_cell(cell: Cell) -> dict:
    """Return the JSON row of a cell."""
    arrivals = cell.regime.draw(cell.rate, cell.requests, cell.seed)
    reports = simulate(policy_from_spec(cell.policy, Capacity()), cell.latency, arrivals).reports
    return {'regime': cell.regime.name, 'profile': cell.latency.name, 'load': cell.load,
            'rate': round(cell.rate, 3), 'seed': cell.seed, 'policy': cell.policy,
            'requests': len(reports), 'attainment': attainment(reports),
            'utility_attainment': utility_attainment(reports),
            'classes': class_summary(reports)}


def cells(regimes: Sequence[Regime], profiles: Sequence[LatencyModel], loads: Sequence[float],
          requests: int, seeds: Sequence[int], policies: Sequence[str]) -> list[Cell]:
    """Return the cells of the grid."""
    found = []
    for regime in regimes:
        for latency in profiles:
            full = regime.saturation(latency)
            found += [Cell(regime, latency, load, load * full, requests, seed, policy)
                      for load in loads for seed in seeds for policy in policies]
    return found


def grid_section(grid: Sequence[Cell], ours: str, rows: list[dict]) -> Section:
    """Return the section of the grid; its rows are appended to `rows` as they are judged."""
    alike = {cell.regime.name for cell in grid
             if max(cell.regime.utilities()) <= ALIKE * min(cell.regime.utilities())}

    def judge(results: Sequence[dict]) -> list[Line]:
        rows.extend(results)
        return [line for (regime, profile, load), at in by_place(results).items()
                for line in place_lines(f'{regime} on {profile} at {load:g}', at, ours,
                                        regime in alike,
                                        regime == LONG_PROMPTS and profile == FLAT)]

    return Section('grid', [(simulate_cell, cell) for cell in grid], judge)


def by_place(rows: Sequence[Mapping]) -> dict[tuple, dict[str, list[Mapping]]]:
    """Return the rows by (regime, profile, load) and by policy, in order of the seeds."""
    found: dict[tuple, dict[str, list[Mapping]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows, key=lambda row: row['seed']):
        found[row['regime'], row['profile'], row['load']][row['policy']].append(row)
    return found


def figure(rows: Sequence[Mapping], key: str) -> list[float]:
    """Return a figure of each row."""
    return [row[key] for row in rows]


def place_lines(where: str, at: Mapping[str, Sequence[Mapping]], ours: str, alike: bool,
                long_prompts: bool) -> list[Line]:
    """Return the lines of one regime, profile and load, from the rows of each policy there.

    `alike` says that utilities differ little, `long_prompts` that the best is to be matched.
    """
    lines = []
    mine = at[ours]
    for rival in at:
        if rival == ours:
            continue
        versus = f'{where}, {rival}'
        gain, error = paired(figure(mine, 'utility_attainment'),
                             figure(at[rival], 'utility_attainment'))
        lines.append(Line(UTILITY, versus, points(gain, error), gain >= -error - EXACT))
        more, spread = paired(figure(mine, 'attainment'), figure(at[rival], 'attainment'))
        if alike:
            lines.append(Line(REQUESTS, versus, points(more, spread), more >= -POINT - EXACT))
        if long_prompts:
            least = min(gain, more)
            lines.append(Line(LONG, versus, f'{100 * least:+.1f} points',
                              least >= -POINT - EXACT))
        late = [[row['classes'].get(URGENT, {}).get('tardiness_p99') for row in rows]
                for rows in (mine, at[rival])]
        if gain <= AS_USEFUL and None not in late[0] + late[1]:
            later, spread = paired(*late)
            lines.append(Line(
                TARDINESS, versus, f'{fmean(late[0]):.2f} s, {later:+.2f} ± {spread:.2f}',
                later <= spread + EXACT))
    return lines


def standing(at: Mapping[str, Sequence[Mapping]], ours: str) -> tuple[float, str, float, float]:
    """Return our mean utility, the best rival's name, and the difference to it with its error."""
    mine = figure(at[ours], 'utility_attainment')
    rivals = {name: figure(rows, 'utility_attainment') for name, rows in at.items()
              if name != ours}
    if not rivals:
        return fmean(mine), '', 0.0, 0.0
    best = max(rivals, key=lambda name: fmean(rivals[name]))
    return fmean(mine), best, *paired(mine, rivals[best])
