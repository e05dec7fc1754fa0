# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Orca and FastServe keep to their published rules."""

import pytest
from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import DEFAULT_CLASSES

CONTROL, _, DIALOGUE = DEFAULT_CLASSES
FLAT = LatencyModel('flat', ((1, 10), (16, 160)), prefill_base_ms=20, prefill_token_ms=1)


def make(count, slo=DIALOGUE, prompt=10, arrival=0.0):
    return [Request(f'{slo.name}-{i}', slo, arrival, prompt, 100) for i in range(count)]


def run(step, now):
    for request in step.decode:
        request.advance(1, now)
    for chunk in step.prefill:
        chunk.request.advance(chunk.tokens, now)


def test_orca_decodes_and_prefills_in_one_step_in_order_of_arrival():
    policy = make_policy('orca', Capacity(max_batch=4, prefill_chunk=25))
    requests = make(6)
    requests[0].advance(10, 0.0)
    step = policy.plan(0.0, requests, FLAT)
    assert step.decode == (requests[0],)
    assert [(c.request, c.tokens) for c in step.prefill] == [
        (requests[1], 10), (requests[2], 10), (requests[3], 5)]


def test_orca_does_not_let_control_overtake():
    policy = make_policy('orca', Capacity(max_batch=2))
    requests = make(2) + make(1, CONTROL)
    run(policy.plan(0.0, requests, FLAT), 0.1)
    assert set(policy.plan(0.1, requests, FLAT).decode) == set(requests[:2])


def test_fastserve_joins_the_first_level_that_covers_the_prefill():
    policy = make_policy('fastserve', q0=.05)
    long, short = make(1, prompt=150)[0], make(1, prompt=10)[0]   # 170 ms: level 2; 30 ms: level 0
    policy.capacity = Capacity(max_batch=1)
    step = policy.plan(0.0, [long, short], FLAT)
    assert [c.request for c in step.prefill] == [short]


def test_fastserve_moves_a_request_down_once_its_quantum_is_used_up():
    policy = make_policy('fastserve', Capacity(max_batch=1), q0=.05)
    first, second = make(2)
    now, served = 0.0, []
    for _ in range(6):
        step = policy.plan(now, [first, second], FLAT)
        now += .03
        run(step, now)
        served += [*step.decode, *(c.request for c in step.prefill)]
    # Two steps of 30 ms fill the quantum of level 0 (50 ms), four that of level 1 (100 ms).
    assert served == [first, first, second, second, first, first]


def test_fastserve_promotes_a_request_after_a_long_wait():
    policy = make_policy('fastserve', Capacity(max_batch=1), q0=.01, promote_after=1.0)
    old = make(1, prompt=150)[0]
    now = 0.0
    policy.plan(now, [old], FLAT)
    while now < 2.0:
        fresh = make(1, arrival=now)[0]    # a stream of newcomers, each above the old one
        step = policy.plan(now, [old, fresh], FLAT)
        now += .03
        run(step, now)
        policy.finished(fresh)
        if old.generated:
            break
    assert 1.0 < now < 1.2


def test_fastserve_charges_swapping_only_where_asked_and_only_on_return():
    costs = {}
    for swap in (False, True):
        policy = make_policy('fastserve', Capacity(max_batch=1), q0=.02, swap=swap,
                             swap_token_ms=1.0)
        requests, now = make(2), 0.0
        costs[swap] = []
        for _ in range(6):
            run(policy.plan(now, requests, FLAT), now + .03)
            now += .03
            costs[swap].append(policy.overhead())
    assert costs[False] == [0] * 6
    # Each prefills and decodes once (two steps of 30 ms, quantum 40 ms); then the first returns
    # from the host with 12 tokens of context, and stays.
    assert costs[True] == pytest.approx([0, 0, 0, 0, .012, 0])


@pytest.mark.parametrize('option', ['q0', 'levels', 'promote_after', 'swap_token_ms'])
def test_fastserve_refuses_bad_options(option):
    with pytest.raises(ValueError, match=option):
        make_policy('fastserve', **{option: -1})


@pytest.mark.parametrize('name', ['', 'Orca', 'x' * 1000])
def test_unknown_policy_is_refused_with_the_names_there_are(name):
    with pytest.raises(ValueError, match='choose one of density, edf, fastserve, orca'):
        make_policy(name)
