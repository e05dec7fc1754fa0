# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a `max_tokens` far above the true lengths costs: the same answers, a loose limit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from slice_ros.bench.config_files import config_file
from slice_ros.bench.regimes.lines import EXACT, Line, Section
from slice_ros.bench.regimes.regime import AUTHORS
from slice_ros.bench.report import utility_attainment
from slice_ros.bench.schedule.options import policy_from_spec
from slice_ros.bench.schedule.simulate import Result, simulate
from slice_ros.bench.schedule.workload import Arrival, generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.request import State
from slice_ros.scheduling.latency import load_profile
from slice_ros.scheduling.policy import Capacity

RATE = 3.0              # requests a second of the published mix
LOOSE = 1024            # what people write
LEARNT = 30             # answers after which the limit should not matter
POINTS = .02            # of utility that it may cost from then on
EARLY = .9              # share of the utility that is kept before
WHO = ('control', 'navigation', 'dialogue', 'all')

LATER = f'max_tokens {LOOSE}: within 2 points of the true limit from the {LEARNT}th answer on'
SOON = f'max_tokens {LOOSE}: at least 90 % of the true limit before the {LEARNT}th answer'


@dataclass(frozen=True, slots=True)
class Case:
    """A policy on one seed; `who` asks for the loose limit."""

    policy: str
    seed: int
    requests: int
    who: str


def loose_section(ours: str, requests: int, seeds: Sequence[int]) -> Section:
    """Return the section: one class or all with the loose limit."""
    cases = [Case(ours, seed, requests, who) for who in WHO for seed in seeds]

    def judge(results: Sequence[tuple]) -> list[Line]:
        lines = []
        for who in WHO:
            early, later = zip(*(result for case, result in zip(cases, results)
                                 if case.who == who))
            lines += loose_lines(who, early, later)
        return lines

    return Section('loose_limits', [(loosened, case) for case in cases], judge)


def loose_lines(who: str, early: Sequence[tuple[float, float]],
                later: Sequence[tuple[float, float]]) -> list[Line]:
    """Return the lines of (loose, true) utility attained before and after, by seed."""
    lost = fmean(true - loose for loose, true in later)
    kept = sum(loose for loose, _ in early) / max(sum(true for _, true in early), 1e-9)
    return [Line(LATER, who, f'{-100 * lost:+.1f} points', lost <= POINTS + EXACT),
            Line(SOON, who, f'{kept:.1%}', kept >= EARLY - EXACT)]


def loosened(case: Case) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (with the loose limit, with the true one) of utility attained: early, and later.

    Early are the requests that came before the `LEARNT`th answer had ended in both runs.
    """
    true = generate(load_workload(config_file('workloads', 'published')), RATE, case.requests,
                    case.seed)
    loose = [replace(a, max_tokens=LOOSE) if case.who in ('all', a.slo.name) else a for a in true]
    runs = [_served(case.policy, arrivals) for arrivals in (loose, true)]
    learnt = max(map(_learnt, runs))
    split = sum(a.time < learnt for a in true)
    return tuple(tuple(utility_attainment(run.reports[part]) for run in runs)
                 for part in (slice(split), slice(split, None)))


def _served(policy: str, arrivals: Sequence[Arrival]) -> Result:
    latency = load_profile(config_file('profiles', AUTHORS))
    return simulate(policy_from_spec(policy, Capacity()), latency, arrivals)


def _learnt(run: Result) -> float:
    """Return when the `LEARNT`th answer ended, or the last one if there are fewer."""
    ends = sorted(r.ended_at for r in run.requests if r.state is State.FINISHED)
    return ends[min(LEARNT, len(ends)) - 1] if ends else 0.0
