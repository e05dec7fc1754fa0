# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The published scheduler, on hand-worked examples."""

import pytest
from slice_ros.request import Request, State
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import DEFAULT_CLASSES, SloClass

CONTROL, NAVIGATION, DIALOGUE = DEFAULT_CLASSES
PUBLISHED = LatencyModel('published', tuple(enumerate(
    (14, 27, 38, 50, 60, 72, 83, 95, 106, 118, 129, 141, 152, 164, 175, 187), 1)),
    prefill_base_ms=20, prefill_token_ms=.25)


def make(slo, count=1, prompt=32, limit=60):
    return [Request(f'{slo.name}-{i}', slo, 0.0, prompt, limit) for i in range(count)]


def prefilled(requests, now=0.0):
    for request in requests:
        request.advance(request.pending, now)
    return requests


def test_order_is_utility_times_tpot():
    policy = make_policy('slice_static')
    cheap = SloClass('cheap', tpot_ms=400, utility=20)    # 8.0: above control's 5.0
    requests = make(DIALOGUE) + make(NAVIGATION) + make(CONTROL) + make(cheap)
    assert [r.slo.name for r in policy.rank(requests)] == [
        'cheap', 'control', 'navigation', 'dialogue']


def test_equals_keep_their_order_of_arrival():
    requests = make(CONTROL, 3)
    assert make_policy('slice_static').rank(requests) == requests


@pytest.mark.parametrize('ratio, mix, selected', [
    # Controls alone: 20 l(n) <= 1 holds up to n = 4, where it is 20 * 0.050 = 1.0 exactly.
    (1.0, (6, 0, 0), (4, 0, 0)),
    (0.9, (6, 0, 0), (3, 0, 0)),     # 20 * 0.038 = 0.76; a fourth would make 1.0
    (0.5, (6, 0, 0), (1, 0, 0)),     # 20 * 0.027 = 0.54 is over 0.5
    # 2 control, then navigation: 10 l(3) + 10 l(2) = 0.65; 10 l(4) + 10 l(2) = 0.77;
    # 10 l(5) + 10 l(2) = 0.87; 10 l(6) + 10 l(2) = 0.99; a fifth would make 1.10.
    (1.0, (2, 9, 9), (2, 4, 0)),
    # 1 + 1, then dialogue: 4 l(2+k) + 6 l(2) + 10 l(1) = 4 l(2+k) + 0.302, so l(2+k) <= 0.1745.
    (1.0, (1, 1, 20), (1, 1, 12)),   # l(14) = 0.164 fits, l(15) = 0.175 does not
])
def test_selection_stops_at_the_first_that_does_not_fit(ratio, mix, selected):
    policy = make_policy('slice_static', capacity_ratio=ratio)
    requests = [r for slo, n in zip(DEFAULT_CLASSES, mix) for r in make(slo, n)]
    chosen = [r.slo.name for r in policy.select(requests, PUBLISHED)]
    assert tuple(chosen.count(slo.name) for slo in DEFAULT_CLASSES) == selected


def test_selection_does_not_go_on_past_one_that_does_not_fit():
    fast = SloClass('fast', tpot_ms=15, utility=1000)    # 67 * l(1) = 0.938, 15.0 of utility rate
    policy = make_policy('slice_static')
    chosen = policy.select(make(DIALOGUE) + make(fast) + make(CONTROL), PUBLISHED)
    assert [r.slo.name for r in chosen] == ['fast']


def test_batch_cap_and_slots_bound_the_selection():
    requests = make(DIALOGUE, 12)
    for capacity in (Capacity(max_batch=5), Capacity(slots=5)):
        assert len(make_policy('slice_static', capacity).select(requests, PUBLISHED)) == 5


def test_one_that_overfills_the_cycle_alone_is_still_served():
    impossible = SloClass('impossible', tpot_ms=1, utility=1)
    policy = make_policy('slice_static')
    requests = make(impossible, 2)
    assert policy.select(requests, PUBLISHED) == requests[:1]


@pytest.mark.parametrize('slo, tpot', [
    (SloClass('a', deadline_ms=6000), .1),     # 6 s for 60 tokens
    (SloClass('b', deadline_ms=600000), 1.0),  # at most one cycle
    (SloClass('c'), 1.0),
    (SloClass('d', tpot_ms=2000), 2.0),
])
def test_rate_without_a_tpot_objective(slo, tpot):
    assert make_policy('slice_static').tpot(make(slo)[0]) == pytest.approx(tpot)


def test_columns_are_scanned_in_order_and_over_again():
    requests = prefilled(make(CONTROL) + make(NAVIGATION) + make(DIALOGUE))
    policy = make_policy('slice_static')
    batches = []
    for _ in range(40):
        step = policy.plan(0.0, requests, PUBLISHED)
        assert not step.prefill
        batches.append(len(step.decode))
    assert batches == ([3] * 4 + [2] * 6 + [1] * 10) * 2


def test_the_selected_are_prefilled_first_whole_and_in_order():
    control, dialogue = make(CONTROL)[0], make(DIALOGUE, prompt=700)[0]
    policy = make_policy('slice_static', Capacity(prefill_chunk=512))
    requests = [dialogue, control]
    fed = []
    while not (control.decoding and dialogue.decoding):
        step = policy.plan(0.0, requests, PUBLISHED)
        assert not step.decode
        (chunk,) = step.prefill
        fed.append((chunk.request.slo.name, chunk.tokens))
        chunk.request.advance(chunk.tokens, 0.0)
    assert fed == [('control', 32), ('dialogue', 512), ('dialogue', 188)]


def test_arrival_and_completion_plan_again_and_progress_does_not():
    policy = make_policy('slice_static')
    plans = []
    replan = policy._replan
    policy._replan = lambda latency: (plans.append(1), replan(latency))
    requests = prefilled(make(CONTROL) + make(DIALOGUE))
    for _ in range(3):
        policy.plan(0.0, requests, PUBLISHED)
    assert len(plans) == 1

    arrived = make(NAVIGATION)[0]
    step = policy.plan(0.1, [*requests, arrived], PUBLISHED)
    assert len(plans) == 2
    assert [chunk.request for chunk in step.prefill] == [arrived]

    requests[0].end(State.FINISHED, 0.2)
    step = policy.plan(0.2, [requests[1], *prefilled([arrived], 0.2)], PUBLISHED)
    assert len(plans) == 3
    assert set(step.decode) == {requests[1], arrived}


def test_a_new_control_request_pushes_the_least_useful_out():
    policy = make_policy('slice_static')
    requests = prefilled(make(CONTROL, 3) + make(NAVIGATION, 2))
    first = policy.plan(0.0, requests, PUBLISHED)     # 10 l(4) + 10 l(3) = 0.88; a fifth: 0.98
    assert len(first.decode) == 5
    late = prefilled(make(CONTROL))[0]
    step = policy.plan(0.0, [*requests, late], PUBLISHED)
    assert set(step.decode) == {*requests[:3], late}  # 20 l(4) = 1.0: no room for navigation


@pytest.mark.parametrize('options', [
    {'capacity_ratio': 0}, {'capacity_ratio': 1.1}, {'cycle': 0}, {'cycle': float('nan')},
    {'capacity_ratio': float('nan')}, {'ratio': 1}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make_policy('slice_static', **options)
