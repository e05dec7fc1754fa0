# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Cases of a few requests, and figures of the policy itself: their sections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import random
from statistics import fmean

from slice_ros.bench.config_files import config_file
from slice_ros.bench.regimes.burst_search import best_found
from slice_ros.bench.regimes.lines import EXACT, Line, Section
from slice_ros.bench.regimes.regime import AUTHORS
from slice_ros.bench.report import percentile
from slice_ros.bench.schedule.lp_bound import lp_bound
from slice_ros.bench.schedule.options import policy_from_spec
from slice_ros.bench.schedule.plan import growth, time_plans
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival, generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.slo import DEFAULT_CLASSES, SloClass

# Bursts of nine requests of the published classes within half a second, most of them control.
BURST, BURST_SECONDS, BURSTS_A_SEED = 9, .5, 3
BURST_MIX = {'control': .6, 'navigation': .3, 'dialogue': .1}
OF_OPTIMUM, PROVEN = .9, .01    # utility by which the search may miss a bound that it reaches
OPTIMUM = 'bursts of nine: at least 90 % of the optimum'

# A control request that cannot keep its TTFT: 64 tokens at 8 ms are 532 ms. Two others have their
# first tokens by then: an earlier one would make them miss an objective that they can still keep.
SLOW_PREFILL_MS, SECONDS = 8.0, (1.5, 3.5)
MISSED = 'a control request that misses its TTFT: first token within its prefill and a step'

# A flood beside five requests that nobody would miss.
FLOOD, FLOOD_RATE, FLOOD_UTILITY, OTHERS = 1600, 8.0, 1e9, 5
OWED, OWED_FROM = .005, 30.0    # share of the time owed to who waits longest, after seconds
NEARLY = .9                     # of it, since the flood ends
STARVATION = 'a flood: 0.5 % of the time for who waits longest, in turn'

PLAN_US = {16: 80.0, 256: 250.0}        # live requests: median microseconds
N_LOG_N = 4096 * 12 / (1024 * 10)       # t(4096) / t(1024) of n log n
GROWTH_SLACK = 1.25                     # of a timing on a machine that is not idle
PLAN_STEPS = 200                        # plans timed for each
PLAN = 'a plan takes at most its time'


def latency_model() -> LatencyModel:
    """Return the latency model of these cases."""
    return load_profile(config_file('profiles', AUTHORS))


@dataclass(frozen=True, slots=True)
class Case:
    """One case: a policy and a seed."""

    policy: str
    seed: int


def burst_section(ours: str, seeds: Sequence[int]) -> Section:
    """Return the section of bursts against a bound on the optimum of whole requests."""
    return Section('nine', [(burst, Case(ours, seed * BURSTS_A_SEED + i)) for seed in seeds
                            for i in range(BURSTS_A_SEED)], burst_lines)


def burst_lines(results: Sequence[tuple[float, float, float]]) -> list[Line]:
    """Return the lines of (utility attained, best found, most that could be) of each burst.

    Where the best schedule found reaches the bound, it is the optimum; elsewhere the optimum is
    between them, and the bound counts: what holds against it holds against the optimum.
    """
    lines = []
    proven = [result for result in results if result[1] >= result[2] - PROVEN]
    for which, of in (('whose optimum is proven', proven), ('against the bound', results)):
        if of:
            ours, found, most = (sum(figures) for figures in zip(*of))
            lines.append(Line(OPTIMUM, f'{len(of)} bursts, {which}', f'{ours / most:.1%} of the '
                              f'utility; of the best found {ours / found:.1%}',
                              ours >= OF_OPTIMUM * most - PROVEN))
    return lines


def burst(case: Case) -> tuple[float, float, float]:
    """Return the utility attained in a burst, the best found, and the most that could be."""
    draw = random.Random(case.seed)
    workload = load_workload(config_file('workloads', 'published')).with_mix(BURST_MIX)
    drawn = generate(workload, 1.0, BURST, case.seed)
    times = sorted(draw.uniform(0, BURST_SECONDS) for _ in drawn)
    arrivals = [replace(a, time=time) for a, time in zip(drawn, times)]
    capacity, latency = Capacity(), latency_model()
    reports = simulate(policy_from_spec(case.policy, capacity), latency, arrivals).reports
    ours = sum(r.slo.utility for r in reports if r.attained)
    most = (lp_bound(arrivals, latency, capacity, whole=True).utility
            * sum(a.slo.utility for a in arrivals))
    return ours, max(ours, best_found(arrivals, latency, capacity, most, case.seed)), most


def first_token_section(ours: str, seeds: Sequence[int]) -> Section:
    """Return the section of the control request that must miss its TTFT."""
    return Section('first_token', [(late_first_token, Case(ours, seed)) for seed in seeds],
                   first_token_lines)


def first_token_lines(results: Sequence[tuple[float, float]]) -> list[Line]:
    """Return the lines of the seconds beyond what is allowed, of (alone, beside others) each."""
    return [Line(MISSED, f'{where}, {len(late)} times', f'worst {1e3 * max(late):+.0f} ms beyond '
                 'it', max(late) <= EXACT)
            for where, late in zip(('on an idle engine', 'beside a navigation and a dialogue'),
                                   zip(*results))]


def late_first_token(case: Case) -> tuple[float, float]:
    """Return the seconds from prefill and one step to the first token; negative when sooner.

    First of a request that is alone, then beside a navigation and a dialogue. The step is the
    longest that begins before the token without the request.
    """
    draw = random.Random(case.seed)
    latency = replace(latency_model(), prefill_token_ms=SLOW_PREFILL_MS)
    control, navigation, dialogue = DEFAULT_CLASSES
    urgent = Arrival(draw.uniform(*SECONDS), control, 64, 20, 25)
    others = [Arrival(0.0, navigation, 64, 50, 60), Arrival(0.0, dialogue, 64, 150, 160)]
    return (_beyond(case, [urgent], latency), _beyond(case, [*others, urgent], latency))


def _beyond(case: Case, arrivals: Sequence[Arrival], latency: LatencyModel) -> float:
    """Return the seconds by which the first token of the last arrival comes too late."""
    result = simulate(policy_from_spec(case.policy, Capacity()), latency, arrivals, log=True)
    request = result.requests[-1]
    end = request.arrival + request.ttft
    other = max((step.seconds for step in result.log if step.start < end
                 and step.start + step.seconds > request.arrival
                 and request.id not in step.decode + step.prefill), default=0.0)
    return request.ttft - latency.prefill(64) - other


def starvation_section(ours: str, seeds: Sequence[int]) -> Section:
    """Return the section of the flood."""
    return Section('starvation', [(flood, Case(ours, seed)) for seed in seeds], starvation_lines)


def starvation_lines(results: Sequence[tuple[float, int]]) -> list[Line]:
    """Return the line of (share of the time, others that had any) of each flood."""
    share, moved = fmean(r[0] for r in results), min(r[1] for r in results)
    return [Line(STARVATION, f'{OTHERS} beside {FLOOD} of utility {FLOOD_UTILITY:g}',
                 f'{share:.2%} of the time, {moved} of {OTHERS} served',
                 share >= NEARLY * OWED and moved == OTHERS)]


def flood(case: Case) -> tuple[float, int]:
    """Return the share of the time that the others had in the flood, and how many had any.

    A step counts in equal parts for the requests in it.
    """
    draw = random.Random(case.seed)
    slo = SloClass('flood', ttft_ms=1000, tpot_ms=100, deadline_ms=6000, utility=FLOOD_UTILITY)
    arrivals = [Arrival(0.0, DEFAULT_CLASSES[2], 64, 300, 300) for _ in range(OTHERS)]
    time = .001
    for _ in range(FLOOD):
        arrivals.append(Arrival(time, slo, draw.randint(64, 160), draw.randint(30, 60), 60))
        time += draw.expovariate(FLOOD_RATE)
    last = arrivals[-1].time
    result = simulate(policy_from_spec(case.policy, Capacity()), latency_model(), arrivals,
                      log=True)
    served: dict[str, float] = {}
    for step in result.log:
        if OWED_FROM <= step.start < last:
            members = step.decode + step.prefill
            for name in members:
                served[name] = served.get(name, 0.0) + step.seconds / len(members)
    others = [seconds for name, seconds in served.items() if not name.startswith('flood-')]
    return sum(others) / (last - OWED_FROM), len(others)


def plan_section(ours: str) -> Section:
    """Return the section of the time of a plan; other processes make it longer."""
    lives = (*PLAN_US, 1024, 4096)

    return Section('plan', [(plan_us, (ours, live)) for live in lives],
                   lambda results: plan_lines(dict(zip(lives, results))))


def plan_lines(us: Mapping[int, float]) -> list[Line]:
    """Return the lines of the median microseconds of a plan by live requests."""
    lines = [Line(PLAN, f'{live} live requests', f'median {us[live]:.0f} us, at most '
                  f'{most:.0f}', us[live] <= most) for live, most in PLAN_US.items()]
    rows = [{'policy': '', 'live': live, 'us_p50': us[live]} for live in (1024, 4096)]
    lines.append(Line(PLAN, '1024 to 4096 live requests', f'n^{growth(rows, ""):.2f}, at most '
                      'n log n', us[4096] / us[1024] <= N_LOG_N * GROWTH_SLACK))
    return lines


def plan_us(case: tuple[str, int]) -> float:
    """Return the median microseconds of a plan of (policy, live requests)."""
    return percentile(time_plans(*case, latency_model(), PLAN_STEPS), .5)
