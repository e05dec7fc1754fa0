# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Mirrors and plans, against plain objects in place of vLLM's requests."""

from types import SimpleNamespace

import pytest
from slice_ros.request import State
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import DEFAULT_CLASSES
from slice_ros.vllm.step_planner import MOST_REST, StepPlanner

LATENCY = {'decode_ms': ((1, 10), (4, 16)), 'prefill_token_ms': 1}


class Scripted(Policy):
    """Plans what a function says."""

    script = staticmethod(lambda now, requests: Step())

    def plan(self, now, requests, latency):
        return self.script(now, requests)


@pytest.fixture
def planner():
    planner = StepPlanner(make_policy('orca', Capacity()), LatencyModel('flat', **LATENCY), 512)
    planner.now = 100.0
    planner.clock, planner.wall = (lambda: planner.now), (lambda: planner.now + 1e9)
    return planner


def add(planner, name='a', prompt=10, age=0.0):
    """Add a request of vLLM's that arrived `age` seconds ago; return it."""
    theirs = SimpleNamespace(
        request_id=name, arrival_time=planner.wall() - age, max_tokens=20,
        num_prompt_tokens=prompt, num_output_tokens=0, num_output_placeholders=0,
        num_computed_tokens=0, num_stale_output_tokens=0, drop_stale_output=False,
        next_decode_eligible_step=0)
    planner.add(theirs, DEFAULT_CLASSES[0])
    return theirs


def launch(planner, theirs, tokens, ahead=0):
    """Schedule `tokens` as vLLM does; `ahead` of them sampled asynchronously."""
    theirs.num_computed_tokens += tokens
    theirs.num_output_placeholders += ahead
    planner.launched({theirs.request_id: tokens}, 1)


def test_arrival_is_on_the_clock_of_the_policy(planner):
    add(planner, age=0.25)
    assert planner.mirrors['a'].ours.arrival == pytest.approx(99.75)
    planner.end('a', State.CANCELLED)
    add(planner, age=-5)   # the clocks of two processes differ
    assert planner.mirrors['a'].ours.arrival == 100.0


def test_a_step_teaches_the_latency_model_and_the_times_of_its_requests(planner):
    theirs, ours = add(planner), planner.mirrors['a'].ours
    assert planner.plan(1) == Step(prefill=(PrefillChunk(ours, 10),))
    launch(planner, theirs, 10)
    assert (ours.cached, ours.generated, ours.gated) == (10, 1, True)   # its token is in flight
    assert ours.first_token_at == pytest.approx(100.01)
    planner.now = 100.02
    theirs.num_output_tokens = 1
    planner.returned()
    planner.received('a', 1)
    assert ours.first_token_at == ours.last_token_at == 100.02 and ours.ready
    assert planner.latency.error == pytest.approx(1.0)   # it took twice as long
    assert planner.plan(1).decode == (ours,)


def test_asynchronous_steps_are_planned_for_when_the_one_in_flight_ends(planner):
    theirs, ours = add(planner), planner.mirrors['a'].ours
    launch(planner, theirs, 10, ahead=1)
    times = []
    planner.policy = Scripted(Capacity())
    planner.policy.script = lambda now, requests: times.append(now) or Step(decode=(ours,))
    assert planner.plan(2).decode == (ours,)   # although its first token is not known yet
    assert times == [pytest.approx(100.01)]
    launch(planner, theirs, 1, ahead=1)
    assert (ours.cached, ours.generated, planner.in_flight) == (11, 2, 2)
    planner.now = 100.015
    theirs.num_output_tokens, theirs.num_output_placeholders = 1, 1
    planner.returned()
    planner.received('a', 3)
    assert ours.first_token_at == 100.015 and ours.last_token_at == pytest.approx(100.02)
    theirs.num_output_tokens, theirs.num_output_placeholders = 20, 0
    planner.mirrors['a'].refresh(3)
    assert ours.gated   # it has all tokens that it asked for


def test_drafts_that_are_rejected_and_preemption_are_copied(planner):
    theirs, ours = add(planner), planner.mirrors['a'].ours
    theirs.num_output_tokens, theirs.num_computed_tokens = 5, 17   # 14 and three drafts in flight
    planner.mirrors['a'].refresh(1)
    assert ours.gated and ours.decoding
    theirs.num_output_tokens, theirs.num_computed_tokens = 7, 16
    planner.mirrors['a'].refresh(1)
    assert (ours.generated, ours.cached, ours.ready) == (7, 16, True)
    theirs.num_computed_tokens, theirs.num_stale_output_tokens = 0, 1
    assert not planner.mirrors['a'].refresh(1)
    theirs.num_stale_output_tokens = 0
    assert planner.mirrors['a'].refresh(1)
    assert (ours.pending, ours.state) == (17, State.WAITING)


def test_an_idle_step_lasts_until_something_changes(planner):
    add(planner)
    calls = []
    planner.policy = Scripted(Capacity())
    planner.policy.script = lambda now, requests: calls.append(now) or Step(wake_at=100.05)
    for planner.now in (100.0, 100.02, 100.04, 100.06):
        assert planner.plan(1).idle
    assert calls == [100.0, 100.06]
    planner.policy.script = lambda now, requests: calls.append(now) or Step(wake_at=999)
    planner.now = 101
    add(planner, 'b')
    for planner.now in (101, 101.001 + MOST_REST):
        planner.plan(1)
    assert len(calls) == 4
    planner.end('b', State.CANCELLED)
    planner.plan(1)
    assert len(calls) == 5


def fail(now, requests):
    raise RuntimeError('a bug')


def too_much(now, requests):
    return Step(prefill=(PrefillChunk(requests[0], 11),))


@pytest.mark.parametrize('script', [fail, too_much, lambda now, requests: Step(),
                                    lambda now, requests: 'no step'])
def test_a_policy_that_fails_twice_leaves_vllm_to_its_own_order(
        planner, caplog, monkeypatch, script):
    add(planner)
    monkeypatch.setattr(Scripted, 'script', staticmethod(script))
    planner.policy = first = Scripted(Capacity())
    assert planner.plan(1) is None and planner.policy is not first
    for _ in range(5):
        assert planner.plan(1) is None
    planner.end('a', State.FINISHED)
    assert [record.levelname for record in caplog.records] == ['ERROR', 'ERROR']
    assert 'from now on' in caplog.text


def test_what_is_dropped_has_ended(planner):
    add(planner)
    ours = planner.mirrors['a'].ours
    planner.policy = Scripted(Capacity())
    planner.policy.script = lambda now, requests: Step(drop=(ours,))
    assert planner.plan(1).drop == (ours,)
    assert ours.state is State.FAILED and not planner.mirrors
