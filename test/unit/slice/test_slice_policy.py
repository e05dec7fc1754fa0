# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the default policy does beyond the contract that every policy keeps."""

from dataclasses import replace

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.bench.report import attainment
from slice_ros.bench.schedule.noise import Noise
from slice_ros.bench.schedule.simulate import scaled_latency, simulate
from slice_ros.bench.schedule.workload import Arrival, generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.errors import ErrorCode
from slice_ros.request import Request, State
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.lengths import KEEP
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import DEFAULT_CLASSES, SloClass

LATENCY = load_profile(config_file('profiles', 'linear-edge-gpu'))
PUBLISHED = load_workload(config_file('workloads', 'published'))
CONTROL, NAVIGATION, DIALOGUE = DEFAULT_CLASSES


def served(workload, capacity=None, name='slice', believed=None, noise=Noise(), **options):
    policy = make_policy(name, capacity or Capacity(), **options)
    return simulate(policy, LATENCY, workload, believed=believed, noise=noise)


def share(result):
    return attainment(result.reports)


@pytest.fixture(scope='module')
def busy():
    return generate(PUBLISHED, 2.0, 200, 5)


@pytest.fixture(scope='module')
def normal(busy):
    return share(served(busy))


def test_it_attains_more_than_the_published_policy_at_any_ratio(busy, normal):
    for ratio in (.4, .6, .8, 1.0):
        static = share(served(busy, name='slice_static', capacity_ratio=ratio))
        assert normal > static + .05


@pytest.mark.parametrize('factor', [.5, 2.0])
def test_a_model_wrong_by_two_costs_next_to_nothing(busy, normal, factor):
    assert share(served(busy, believed=scaled_latency(LATENCY, factor))) > normal - .05


def test_noise_with_bursts_costs_little(busy, normal):
    noise = Noise(spread=.3, burst_every=10.0, burst_seconds=.5, burst_factor=2.0)
    assert share(served(busy, noise=noise)) > normal - .1


def test_a_burst_of_fifty_leaves_no_lasting_harm():
    calm = [a for a in generate(PUBLISHED, .5, 120, 1)]
    middle = calm[40].time
    burst = [replace(a, time=a.time + middle) for a in generate(PUBLISHED, 50.0, 50, 2)]
    result = served(sorted(calm + burst, key=lambda a: a.time))
    late = [r.report().attained for r in result.requests if r.arrival > middle + 40]
    assert len(late) > 20 and all(late)
    assert all(r.state is State.FINISHED for r in result.requests)


def test_control_attains_within_its_gap_while_all_others_are_too_many():
    result = served(generate(PUBLISHED, 4.0, 200, 3))
    control = [r for r in result.requests if r.slo.name == 'control']
    attained = [r for r in control if r.report().attained]
    assert len(attained) > .9 * len(control)
    gaps = sorted(r.max_gap for r in attained)
    assert gaps[-len(gaps) // 10] < 3 * CONTROL.tpot and gaps[-1] < 7 * CONTROL.tpot


def test_a_long_prompt_delays_no_other_request():
    talk = SloClass('talk', ttft_ms=20000, utility=1)
    workload = [Arrival(0.0, talk, 6000, 5, 20)] + [
        Arrival(.1 + .7 * n, CONTROL, 40, 12, 25) for n in range(10)]
    result = served(workload)
    assert all(report.attained for report in result.reports)


def test_a_missed_request_is_answered_or_dropped_as_configured():
    hopeless = SloClass('hopeless', ttft_ms=1, utility=50)
    workload = [Arrival(0.0, hopeless, 50, 9, 20), Arrival(0.0, CONTROL, 50, 9, 25)]
    result = served(workload)
    assert [r.state for r in result.requests] == [State.FINISHED] * 2
    assert result.requests[1].report().attained
    dropped, kept = served(workload, on_miss='drop').requests
    assert (dropped.state, dropped.error) == (State.FAILED, ErrorCode.DEADLINE_MISSED)
    assert kept.report().attained
    with pytest.raises(ValueError, match='on_miss'):
        make_policy('slice', on_miss='cry')


@pytest.mark.parametrize('slo', [
    SloClass('free', utility=1), SloClass('paced', tpot_ms=200, utility=1),
    SloClass('chat', ttft_ms=1000, tpot_ms=200, utility=1)])
def test_no_request_starves_under_permanent_overload(slo):
    policy, now, requests, number = make_policy('slice'), 0.0, [], 0
    patient = Request('patient', slo, 0.0, 40, 20)
    requests.append(patient)
    while patient.generated < 5:
        while sum(r.slo is CONTROL for r in requests) < 8:
            requests.append(Request(f'control-{number}', CONTROL, now, 40, 25))
            number += 1
        step = policy.plan(now, tuple(requests), LATENCY)
        now += LATENCY.step(len(step.decode), 0, [(c.tokens, 0) for c in step.prefill])
        for request in step.decode:
            request.advance(1, now)
        for chunk in step.prefill:
            chunk.request.advance(chunk.tokens, now)
        for request in [r for r in requests if r.generated >= 15 and r is not patient]:
            request.end(State.FINISHED, now)
            requests.remove(request)
            policy.finished(request)
        assert now < 400, f'{patient.generated} tokens after {now:.0f} s'


def test_objectives_long_past_and_absent_are_served_side_by_side():
    free = SloClass('free', utility=3)
    policy = make_policy('slice')
    old = Request('old', CONTROL, -100.0, 40, 5)
    new = Request('new', free, 0.0, 40, 5)
    now = 0.0
    for _ in range(40):
        live = tuple(r for r in (old, new) if not r.ended)
        if not live:
            break
        step = policy.plan(now, live, LATENCY)
        assert not step.idle
        now += LATENCY.step(len(step.decode), 0, [(c.tokens, 0) for c in step.prefill])
        for request, tokens in [(r, 1) for r in step.decode] + [
                (c.request, c.tokens) for c in step.prefill]:
            request.advance(tokens, now)
            if request.generated == 5:
                request.end(State.FINISHED, now)
                policy.finished(request)
    assert old.ended and new.ended


def test_one_strict_caller_does_not_slow_all_others(busy, normal):
    strict = SloClass('control', ttft_ms=1, tpot_ms=1, deadline_ms=1, utility=1e-6)
    extra = [Arrival(a.time, strict, 8, 1, 1) for a in busy[::8]]
    result = served(sorted(list(busy) + extra, key=lambda a: a.time))
    reports = [r for r in result.reports if r.slo != strict]
    assert attainment(reports) > normal - .08


def test_a_thousand_classes_are_forgotten_again():
    policy = make_policy('slice')
    for n in range(1000):
        request = Request(f'r{n}', SloClass(f'c{n}', utility=1), float(n), 10, 2)
        policy.plan(float(n), (request,), LATENCY)
    assert len(policy._classes._records) == KEEP


def test_a_policy_that_inherits_uses_the_objectives_of_now():
    """A live request is measured again by what it needs now."""
    request = Request('a', replace(NAVIGATION, ttft_ms=1), 0.0, 20, 50)
    before = make_policy('slice', Capacity())
    before.plan(0.5, [request], LATENCY)
    assert before._demands[request].missed   # its first token is late
    request.slo = NAVIGATION
    after = make_policy('slice', Capacity(prefill_chunk=8))
    after.inherit(before)
    step = after.plan(0.5, [request], LATENCY)
    assert not after._demands[request].missed and step.prefill[0].tokens == 8
    assert after._classes._records['navigation'].slo == NAVIGATION


@pytest.fixture(scope='module')
def swamped():
    """Three times as much control as the accelerator can do, and nothing else."""
    return served(generate(PUBLISHED.with_mix({'control': 1}), 12.0, 200, 2)).requests


def test_most_requests_that_start_in_time_among_equals_attain(swamped):
    started = [r for r in swamped if r.ttft <= CONTROL.ttft]
    assert sum(r.report().attained for r in started) > .85 * len(started)


def test_best_effort_serves_the_most_useful_even_if_others_have_started():
    late = replace(CONTROL, ttft_ms=1)
    talk = [Arrival(.001 * n, replace(DIALOGUE, ttft_ms=1), 60, 150, 160) for n in range(10)]
    calls = [Arrival(2.0, late, 60, 20, 25) for _ in range(4)]
    requests = served(talk + calls).requests
    ends = {r.slo.name: max(q.ended_at for q in requests if q.slo.name == r.slo.name)
            for r in requests}
    assert ends['control'] < 4.0 < ends['dialogue']


@pytest.mark.parametrize('slo', [SloClass('free'), DIALOGUE])
@pytest.mark.parametrize('last_ms', [8.3, 7.0, 10.0])
def test_the_batch_is_full_where_one_more_request_is_cheap(slo, last_ms):
    latency = LatencyModel('cpu', ((1, 4.3), (4, 5.5), (8, last_ms)), prefill_token_ms=0.3)
    policy = make_policy('slice', Capacity(max_batch=8, slots=8))
    requests = tuple(Request(f'{n}', slo, 0.0, 8, 200) for n in range(8))
    now = 0.1
    for request in requests:
        request.advance(8, now)
    for _ in range(100):
        step = policy.plan(now, requests, latency)
        assert len(step.decode) == 8
        now += latency.decode(8)
        for request in step.decode:
            request.advance(1, now)
