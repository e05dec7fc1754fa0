# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Predictions of a request before it is sent."""

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request
from slice_ros.scheduling.admission import admit, predict, Prediction
from slice_ros.scheduling.latency import load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.registry import make_policy, POLICIES
from slice_ros.scheduling.slice.slice_policy import Slice
from slice_ros.slo import DEFAULT_CLASSES, SloClass

LATENCY = load_profile(config_file('profiles', 'linear-edge-gpu'))
PUBLISHED = load_workload(config_file('workloads', 'published'))
CONTROL, NAVIGATION, DIALOGUE = DEFAULT_CLASSES
CLASSES = {slo.name: slo for slo in DEFAULT_CLASSES}
YES, NO = Prediction(.1, .05, 1.0, ''), Prediction(9.0, .05, 12.0, 'it would be late')


class Asked(Slice):
    """Predicts every request as it comes."""

    def __init__(self, capacity):
        super().__init__(capacity)
        self.predictions = {}

    def plan(self, now, requests, latency):
        for request in requests:
            if request not in self.predictions:
                self.predictions[request] = predict(
                    self, now, request, [r for r in requests if r is not request], latency)
        return super().plan(now, requests, latency)


def test_an_idle_machine_predicts_what_the_model_gives():
    prediction = predict(Slice(Capacity()), 5.0, Request('r', CONTROL, 5.0, 40, 25), (), LATENCY)
    assert prediction.feasible and prediction.reason == ''
    assert prediction.ttft == pytest.approx(LATENCY.prefill(40))
    assert LATENCY.decode(1) <= prediction.tpot <= CONTROL.tpot
    assert prediction.completion <= CONTROL.deadline


def test_what_no_machine_could_do_is_infeasible_with_a_reason():
    request = Request('r', CONTROL, 0.0, 5000, 25)
    prediction = predict(Slice(Capacity()), 0.0, request, (), LATENCY)
    assert not prediction.feasible
    assert 'time to first token would be' in prediction.reason
    assert 'not 500 ms' in prediction.reason


def test_asking_changes_nothing():
    asked, alone = Asked(Capacity()), Slice(Capacity())
    workload = generate(PUBLISHED, 3.0, 60, 4)
    ends = [[r.last_token_at for r in simulate(policy, LATENCY, workload).requests]
            for policy in (asked, alone)]
    assert ends[0] == ends[1]


def test_a_request_that_is_refused_could_not_have_been_served():
    wrong = refused = 0
    for seed in (1, 2):
        policy = Asked(Capacity())
        result = simulate(policy, LATENCY, generate(PUBLISHED, 4.0, 300, seed))
        for request in result.requests:
            if not policy.predictions[request].feasible:
                refused += 1
                wrong += request.report().attained
    assert refused > 40
    # Some of these were served at the cost of an equal, so that fewer still were wrong.
    assert wrong <= .15 * refused


def test_accept_reject_degrade():
    for rule in ('accept', 'reject', 'degrade:dialogue'):
        assert admit(YES, CONTROL, rule, CLASSES) is CONTROL
    assert admit(NO, CONTROL, 'accept', CLASSES) is CONTROL
    assert admit(NO, CONTROL, 'degrade:dialogue', CLASSES) is DIALOGUE
    with pytest.raises(RequestError) as refused:
        admit(NO, CONTROL, 'reject', CLASSES)
    assert refused.value.code is ErrorCode.INFEASIBLE_SLO
    assert 'it would be late' in refused.value.message


@pytest.mark.parametrize('rule', ['', 'degrade', 'degrade:', 'degrade:nobody', 'perhaps'])
def test_an_unknown_rule_is_named_with_those_there_are(rule):
    with pytest.raises(ValueError, match='accept, reject or degrade:CLASS'):
        admit(YES, CONTROL, rule, CLASSES)


def test_no_objectives_can_always_be_met():
    free = SloClass('free', utility=1)
    policy = Slice(Capacity())
    simulate(policy, LATENCY, generate(PUBLISHED, 3.0, 50, 1))
    assert predict(policy, 0.0, Request('r', free, 0.0, 100, 100), (), LATENCY).feasible


@pytest.mark.parametrize('name', sorted({*POLICIES} - {'slice'}))
def test_a_policy_that_cannot_be_asked_is_rolled_out(name):
    ask = Request('r', CONTROL, 5.0, 40, 25)
    prediction = predict(make_policy(name), 5.0, ask, (), LATENCY)
    assert prediction.feasible and prediction.ttft == pytest.approx(LATENCY.prefill(40))
    assert prediction.tpot == pytest.approx(LATENCY.decode(1))
    assert ask.generated == 0


def test_orca_lets_control_wait_behind_a_full_batch_where_slice_would_serve_it():
    live = [Request(f'd{n}', DIALOGUE, 0.0, 40, 160) for n in range(16)]
    for request in live:
        request.advance(40, .1)
    ask = Request('r', CONTROL, 1.0, 40, 25)
    prediction = predict(make_policy('orca'), 1.0, ask, live, LATENCY)
    assert not prediction.feasible and prediction.ttft > 10
    assert 'time to first token would be' in prediction.reason
    assert predict(Slice(Capacity()), 1.0, ask, live, LATENCY).feasible
    assert all(r.generated == 1 and not r.ended for r in live)


def test_a_request_that_the_policy_would_refuse_is_infeasible():
    # 2000 tokens in four chunks take 4 * 20 + 500 ms, and its first token is due within 500 ms.
    request = Request('r', CONTROL, 0.0, 2000, 25)
    prediction = predict(make_policy('scorpio'), 0.0, request, (), LATENCY)
    assert not prediction.feasible and 'scorpio would refuse it' in prediction.reason


def test_a_roll_out_that_does_not_end_is_infeasible():
    request = Request('r', DIALOGUE, 0.0, 40, 100_000)
    prediction = predict(make_policy('orca'), 0.0, request, (), LATENCY)
    assert not prediction.feasible and 'steps' in prediction.reason
