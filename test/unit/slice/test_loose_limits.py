# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A `max_tokens` far above what answers need costs next to nothing; known lengths pay."""

from dataclasses import replace
import math
from statistics import fmean

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.bench.regimes.loose_limits import Case, loosened
from slice_ros.bench.report import attainment, utility_attainment
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.request import Request, State
from slice_ros.scheduling.admission import predict
from slice_ros.scheduling.latency import load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.registry import make_policy
from slice_ros.scheduling.slice.classes import ClassRecord
from slice_ros.scheduling.slice.limits import limits_of
from slice_ros.slo import DEFAULT_CLASSES, SloClass

PROFILES = {name: load_profile(config_file('profiles', name))
            for name in ('linear-edge-gpu', 'slice-authors-rtx4060ti')}
PUBLISHED = load_workload(config_file('workloads', 'published'))
CONTROL, _, DIALOGUE = DEFAULT_CLASSES


@pytest.mark.parametrize('who', ['control', 'all'])
@pytest.mark.parametrize('policy', ['slice', 'slice:on_miss=drop'])
def test_a_loose_limit_costs_little_at_first_and_nothing_later(policy, who):
    early, later = zip(*(loosened(Case(policy, seed, 110, who)) for seed in (1, 2)))
    assert all(loose >= .9 * true > .5 for loose, true in early)
    assert fmean(true - loose for loose, true in later) <= .02
    assert all(true > .9 for _, true in later)


@pytest.mark.parametrize('profile', PROFILES)
@pytest.mark.parametrize('max_tokens', [25, 128, 1024, 32000])
def test_control_with_a_loose_limit_is_feasible_on_an_idle_machine(profile, max_tokens):
    latency = PROFILES[profile]
    request = Request('r', CONTROL, 5.0, 64, max_tokens)
    prediction = predict(make_policy('slice'), 5.0, request, (), latency)
    assert prediction.feasible and prediction.reason == ''
    assert prediction.ttft == pytest.approx(latency.prefill(64))
    assert latency.decode(1) <= prediction.tpot <= CONTROL.tpot
    assert prediction.completion <= CONTROL.deadline


def test_a_caller_that_does_use_its_limit_is_predicted_to_once_that_is_known():
    """The benefit of the doubt ends: 60 answers of 200 tokens do not fit 1.5 s at 14 ms each."""
    latency, policy = PROFILES['linear-edge-gpu'], make_policy('slice')
    long = [replace(a, output_tokens=200, max_tokens=1024, time=5.0 * n) for n, a in enumerate(
        generate(PUBLISHED.with_mix({'control': 1}), 1.0, 60, 1))]
    simulate(policy, latency, long)
    prediction = predict(policy, 1e3, Request('r', CONTROL, 1e3, 64, 1024), (), latency)
    assert not prediction.feasible and prediction.completion > 2.0


@pytest.mark.parametrize('slo, tokens', [
    # After 500 ms to the first one, 1000 ms have room for 20 more at 50 ms each.
    (CONTROL, 21),
    (replace(CONTROL, ttft_ms=0), 31),       # 1500 ms for 30
    (replace(CONTROL, ttft_ms=1500), 31),    # no objective but the deadline says when to start
    (replace(CONTROL, deadline_ms=0), math.inf),
    (SloClass('late', deadline_ms=2800), 141)])   # 14 ms a token alone, of 20 that it has
def test_a_deadline_leaves_room_for_so_many_tokens(slo, tokens):
    record = ClassRecord(slo)
    record.set_costs(limits_of(PROFILES['slice-authors-rtx4060ti'], Capacity(), [slo]), 1)
    assert record.reach == pytest.approx(tokens)


def test_a_revealed_length_is_planned_for_and_forgotten_with_its_request():
    latency, policy = PROFILES['slice-authors-rtx4060ti'], make_policy('slice')
    known, other = (Request(name, DIALOGUE, 0.0, 40, 160) for name in ('known', 'other'))
    policy.reveal(known, 7)
    policy.plan(0.0, (known, other), latency)
    for demands in (policy._demands, inherited(policy, (known, other), latency)._demands):
        # The prefill brings the first token, six decodes the others: at 250 ms each.
        assert (demands[known].least, demands[known].longest) == (7, 7)
        assert demands[known].finish_due == pytest.approx(1.5 + 6 * .25)
        assert demands[other].longest > 50
    known.end(State.CANCELLED, 1.0)
    policy.finished(known)
    assert known not in policy._known and known not in policy._demands


def inherited(policy, requests, latency):
    after = make_policy('slice', on_miss='drop')
    after.inherit(policy)
    after.plan(.01, requests, latency)
    return after


@pytest.mark.parametrize('profile', PROFILES)
def test_who_knows_the_lengths_attains_as_much_at_least(profile):
    known, guessed = [], []
    for seed in (1, 2, 3):
        arrivals = generate(PUBLISHED, 3.0, 100, seed)
        for reveal, runs in ((True, known), (False, guessed)):
            runs.append(simulate(make_policy('slice', Capacity()), PROFILES[profile], arrivals,
                                 reveal=reveal).reports)
    assert fmean(map(attainment, known)) > fmean(map(attainment, guessed))
    # A control request is two points of a seed's utility: three seeds show no less than one.
    assert fmean(map(utility_attainment, known)) > fmean(map(utility_attainment, guessed)) - .008
