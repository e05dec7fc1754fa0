# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The optimistic bound, on hand-worked examples."""

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.bench.report import attainment
from slice_ros.bench.schedule.capacity_bound import capacity_bound
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival, generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import SloClass

# l(1) = 10, l(2) = 15 and l(3) = 21 ms: the cheapest share is 7 ms a token, at batch 3.
LATENCY = LatencyModel('convex', ((1, 10), (2, 15), (3, 21)), prefill_base_ms=20,
                       prefill_token_ms=1)


def at(time, tpot_ms=100, deadline_ms=1000, prompt=10, output=11):
    return Arrival(time, SloClass('a', tpot_ms=tpot_ms, deadline_ms=deadline_ms), prompt, output,
                   output)


@pytest.mark.parametrize('tpot_ms, fits', [
    (100, 10),   # 30 ms + 10 * 7 ms = 100 ms each, ten in the second
    (20, 9),     # at most batch 2: 30 + 10 * 7.5 = 105 ms
    (14, 7),     # alone only: 30 + 100 = 130 ms
    (9, 0),      # not even alone
])
def test_cost_is_the_least_share_that_keeps_the_tpot(tpot_ms, fits):
    workload = [at(0.0, tpot_ms) for _ in range(20)]
    assert capacity_bound(workload, LATENCY, 3) == pytest.approx(fits / 20)


def test_the_batch_cap_bounds_the_share():
    assert capacity_bound([at(0.0)] * 20, LATENCY, 2) == pytest.approx(9 / 20)


def test_the_horizon_ends_with_the_last_chance():
    # From 2.0 s (first arrival) to 4.0 s (second deadline): 20 requests of 100 ms.
    assert capacity_bound([at(2.0)] + [at(3.0)] * 29, LATENCY, 3) == pytest.approx(20 / 30)


def test_the_cheapest_come_first():
    workload = [at(0.0, output=111)] + [at(0.0)] * 9       # 800 ms and 9 * 100 ms
    assert capacity_bound(workload, LATENCY, 3) == pytest.approx(.9)


def test_without_objectives_all_may_attain():
    free = Arrival(0.0, SloClass('free'), 10, 1000, 1000)
    assert capacity_bound([free] * 50, LATENCY, 3) == 1.0


def test_a_single_token_needs_no_decode_step():
    assert capacity_bound([at(0.0, tpot_ms=1, output=1)], LATENCY, 3) == 1.0


def test_the_first_token_comes_with_the_prefill():
    assert capacity_bound([at(0.0, deadline_ms=100)], LATENCY, 3) == 1.0
    assert capacity_bound([at(0.0, deadline_ms=99)], LATENCY, 3) == 0.0


@pytest.mark.parametrize('rate', [1.5, 3, 6])
def test_no_policy_beats_it(rate):
    latency = load_profile(config_file('profiles', 'slice-authors-rtx4060ti'))
    published = load_workload(config_file('workloads', 'published'))
    work = generate(published, rate, 150, 5)
    policy = make_policy('slice_static', capacity_ratio=.5)
    assert attainment(simulate(policy, latency, work).reports) <= capacity_bound(work, latency, 16)
