# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Requests that take several tokens in a step: prices, learning, room, policies, simulation."""

from dataclasses import replace

import pytest
from slice_ros.bench.schedule.options import structured
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.request import MAX_FORCED, Request
from slice_ros.scheduling.contract import check_capacity, PolicyError
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Step
from slice_ros.scheduling.registry import make_policy, POLICIES
from slice_ros.scheduling.slice.demand import step_share
from slice_ros.slo import SloClass

TRUTH = LatencyModel('truth', ((1, 10), (4, 16), (16, 40)), prefill_base_ms=5, prefill_token_ms=.5,
                     shared_ms=4, further_ms=2)
SLO = SloClass('paced', tpot_ms=100)


def running(forced=0, prompt=10, slo=SLO):
    """Return a request that has had its first token at 1 s, and `forced` ones with it."""
    request = Request('r', slo, 0.0, prompt, 60)
    request.advance(prompt, 1.0)
    for _ in range(forced):
        request.jump()
    return request


def test_forced_tokens_are_pending_and_counted_without_a_step():
    request = running(3)
    assert (request.generated, request.pending, request.forced, request.jumped) == (4, 4, 3, 3)
    assert request.decoding and request.ready and request.last_token_at == 1.0
    assert request.advance(4, 2.0)
    assert (request.generated, request.pending, request.forced, request.jumped) == (5, 1, 0, 3)
    assert request.tpot == pytest.approx(1 / 4) and request.decoding


def test_the_lead_of_an_answer_is_fed_with_the_prompt_and_generated_with_the_first_token():
    request = Request('a', SLO, 0.0, 10, 50)
    request.lead = 4
    assert (request.pending, request.context, request.generated) == (14, 14, 0)
    assert not request.advance(12, 1.0)
    assert (request.pending, request.generated, request.decoding) == (2, 0, False)
    request.evict()
    request.adopt(12)
    assert request.reused == 10
    assert request.advance(2, 2.0)
    assert (request.generated, request.jumped, request.lead, request.pending) == (5, 4, 0, 1)
    assert request.decoding and request.ttft == 2.0 and request.tpot == 0.0
    assert request.advance(1, 2.5) and request.max_gap == 0.5 and request.context == 16


def test_an_evicted_request_prefills_its_forced_tokens_too():
    request = running(3)
    request.evict()
    assert request.pending == 14 and not request.decoding
    with pytest.raises(ValueError, match='none can be forced'):
        request.jump()
    assert not request.advance(9, 2.0) and not request.decoding
    assert request.advance(5, 3.0) and request.forced == 0 and request.decoding


def test_a_step_tells_and_the_model_prices_its_further_tokens():
    step = Step(decode=(running(3), running()))
    assert step.shape == (2, 20, [], 3)
    assert TRUTH.step(*step.shape) == pytest.approx(TRUTH.decode(2, 20) + .006)


def test_a_profile_that_does_not_know_takes_the_price_of_one_request_more():
    assert LatencyModel('old', ((1, 10), (16, 40))).further_ms == 2
    assert LatencyModel('one', ((1, 10),)).further_ms == 10


def test_only_what_a_further_token_takes_is_learnt_from_jumps():
    model = replace(TRUTH, further_ms=0.0)
    for n in range(60):
        model.observe(TRUTH.step(2, 0, (), 1 + n % 9), 2, 0, (), 1 + n % 9)
    assert model.further_ms == pytest.approx(2, rel=.1)
    assert replace(model, further_ms=2.0) == TRUTH
    before = model.further_ms
    model.observe(.5, 2, 0, [(64, 0)], 5)   # whose the time was is not known
    assert model.further_ms == before and replace(model, further_ms=2.0) == TRUTH


def test_room_in_the_cache_is_for_all_pending_tokens():
    request = running(6)
    assert fit_step(Capacity(kv_tokens=17), [request], [request]).decode == (request,)
    assert fit_step(Capacity(kv_tokens=16), [request], [request]).idle
    policy = make_policy('orca', Capacity(kv_tokens=16))
    with pytest.raises(PolicyError, match='17 tokens of KV cache, over 16'):
        check_capacity(policy, Step(decode=(request,)), [request])


def test_the_share_of_steps_follows_the_jumps():
    assert step_share(running()) == 1.0
    assert 0 < step_share(running(12)) < step_share(running(2)) < 1


@pytest.mark.parametrize('name', sorted(POLICIES))
def test_every_policy_serves_jumps_in_fewer_steps(name):
    arrivals = [Arrival(.3 * n, SLO, 20, 30, 40) for n in range(6)]
    forced = [replace(a, forced=.8 if n % 2 else .95) for n, a in enumerate(arrivals)]
    plain, jumping = (simulate(make_policy(name, Capacity()), TRUTH, work)
                      for work in (arrivals, forced))
    assert [r.generated for r in jumping.requests] == [30] * 6
    assert sum(r.jumped for r in plain.requests) == 0
    assert all(r.jumped >= 20 for r in jumping.requests)
    assert jumping.steps < plain.steps / 2 and jumping.end <= plain.end


def test_the_published_mask_counts_tokens_not_steps():
    policy = make_policy('slice_static', Capacity())
    both = [running(), replace(running(), id='b')]
    assert policy.plan(1.0, both, TRUTH).decode == tuple(both)
    for request in both:
        request.advance(1, 1.1)
    for _ in range(4):
        both[0].jump()
    decodes = []
    for _ in range(8):
        step = policy.plan(1.2, both, TRUTH)
        decodes.append(len(step.decode))
        for request in step.decode:
            request.advance(request.pending, 1.2)
    assert decodes == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_lone_request_is_never_left_waiting_by_the_mask():
    policy, request = make_policy('slice_static', Capacity()), running(MAX_FORCED)
    for _ in range(5):
        assert policy.plan(1.0, [request], TRUTH).decode == (request,)
        request.advance(request.pending, 1.1)
        for _ in range(MAX_FORCED):
            request.jump()


def test_a_structured_share_of_a_workload_keeps_times_and_classes():
    arrivals = [Arrival(n, SLO, 20, 5, (25, 60, 160)[n % 3]) for n in range(60)]
    found = structured(arrivals, .5, 1)
    assert [(a.time, a.slo, a.max_tokens) for a in found] == [
        (a.time, a.slo, a.max_tokens) for a in arrivals]
    asked = [a for a in found if a.answer]
    assert 20 < len(asked) < 40 and {a.answer for a in asked} == {'choice', 'pose', 'planner'}
    assert all(a.output_tokens <= a.max_tokens and a.forced > .5 for a in asked)
    assert structured(arrivals, .5, 1) == found and structured(arrivals, 0, 1) == arrivals
