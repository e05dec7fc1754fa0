# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""More work than time: deadlines alone, equal utilities, long prompts, a pace out of reach."""

from dataclasses import fields, replace
from statistics import fmean

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.bench.regimes.regime import Regime
from slice_ros.bench.report import attainment, utility_attainment
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival, generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import SloClass


class Unlearning(LatencyModel):
    """Stays as it is, whatever steps take."""

    def observe(self, seconds, batch, context, chunks=(), further=0):
        return self.step(batch, context, chunks, further)


def profile(name):
    return load_profile(config_file('profiles', name))


def workload(name):
    return load_workload(config_file('workloads', name))


def served(arrivals, latency, name='slice', believed=None):
    return simulate(make_policy(name, Capacity()), latency, arrivals, believed=believed).reports


@pytest.mark.parametrize('rate, least', [(1.0, .99), (1.5, .95), (2.4, .9)])
def test_deadlines_alone_pace_nobody_for_the_shortest_answer(rate, least):
    latency = profile('linear-edge-gpu')
    for seed in (1, 2, 3):
        reports = served(generate(workload('deadline_only'), rate, 90, seed), latency)
        assert utility_attainment(reports) >= least


def test_of_equal_requests_it_attains_as_many_as_those_that_go_by_density():
    latency, mix = profile('slice-authors-rtx4060ti'), workload('equal_utilities')
    rate = 2 * Regime('equal', mix).saturation(latency)
    drawn = [generate(mix, rate, 120, seed) for seed in (1, 2)]
    ours, tempo, density = (
        fmean(attainment(served(arrivals, latency, name)) for arrivals in drawn)
        for name in ('slice', 'tempo', 'density'))
    assert ours > max(tempo, density) - .01
    assert ours < .8  # it is an overload


def test_long_prompts_share_the_reading_of_the_weights():
    """If it believes that nothing is shared, it attains far less where 20 ms are."""
    latency = profile('flat-gpu')
    known = {f.name: getattr(latency, f.name) for f in fields(latency) if f.init}
    for seed in (1, 2):
        arrivals = generate(workload('long_prompts'), 7.0, 100, seed)
        mixed = served(arrivals, latency)
        apart = served(arrivals, latency, believed=Unlearning(**{**known, 'shared_ms': 0.0}))
        assert utility_attainment(mixed) > utility_attainment(apart) + .005
        assert attainment(mixed) > attainment(apart) + .1


@pytest.mark.parametrize('name, mix, rate, believed_ms', [
    ('flat-gpu', 'long_prompts', 7.0, .5), ('slice-authors-rtx4060ti', 'published', 3.0, 20.0)])
def test_a_wrong_belief_of_what_is_shared_is_corrected_by_what_it_leads_to(
        name, mix, rate, believed_ms):
    latency, arrivals = profile(name), generate(workload(mix), rate, 100, 1)
    believed = replace(latency, shared_ms=believed_ms)
    right = served(arrivals, latency)
    wrong = served(arrivals, latency, believed=believed)
    assert believed.shared_ms == pytest.approx(latency.shared_ms, abs=1.0)
    assert utility_attainment(wrong) > utility_attainment(right) - .03


def test_what_a_profile_does_not_say_of_shared_time_is_tried_and_learnt(tmp_path):
    """Without a try, no step is mixed and nothing is learnt: see the long prompts above."""
    latency, path = profile('flat-gpu'), tmp_path / 'silent.yaml'
    latency.save(path)
    assert load_profile(path).trials == 0
    path.write_text(path.read_text().replace('shared_ms: 20.0\n', ''))
    believed = load_profile(path)
    assert believed.shared_ms == 0 < believed.trials
    arrivals = generate(workload('long_prompts'), 7.0, 100, 1)
    known, silent = served(arrivals, latency), served(arrivals, latency, believed=believed)
    assert (believed.shared_ms, believed.trials) == (pytest.approx(20, abs=1), 0)
    assert attainment(silent) > attainment(known) - .03


@pytest.mark.parametrize('seed', [1, 2])
def test_a_pace_that_no_machine_keeps_costs_the_others_nothing_whatever_its_utility(seed):
    latency = profile('linear-edge-gpu')
    hasty = SloClass('hasty', ttft_ms=500, tpot_ms=5, utility=1000)
    arrivals = generate(workload('published'), 2.5, 120, seed)
    extra = [Arrival(a.time, hasty, 64, 20, 25) for a in arrivals[::8]]
    beside = served(sorted(arrivals + extra, key=lambda a: a.time), latency)
    others = [report for report in beside if report.slo != hasty]
    assert utility_attainment(others) > utility_attainment(served(arrivals, latency)) - .02
