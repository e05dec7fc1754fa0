# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The gate: when tokens are released, by a clock that runs, crawls, stops or jumps."""

from itertools import pairwise

import pytest
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, Step
from slice_ros.scheduling.registry import make_policy, policy_names
from slice_ros.serving import Gate, RateControl
from slice_ros.slo import SloClass

TICK = 0.005


class Rig:
    """A gate that is opened every tick, and requests that run at once when they may.

    `wall` seconds pass for `ros` seconds on the clock of the node, which begins at 1e9 s.
    """

    def __init__(self, *slos, mode='paced', max_tokens=10_000, step=0.0):
        self.wall, self.ros, self.step = 50.0, 1e9, step
        self.gate = Gate(RateControl(mode, TICK, 0.5), lambda: self.wall)
        self.requests = [Request(str(n), slo, self.wall, 1, max_tokens)
                         for n, slo in enumerate(slos)]
        self.times = {request: [] for request in self.requests}   # on the wall clock
        self.steps = 0
        for request in self.requests:
            request.cached, request.generated = 1, 1   # the first token is out
            request.first_token_at = request.last_token_at = self.wall

    def run(self, seconds, speed=1.0, ticks=True):
        end = self.wall + seconds
        while self.wall < end - 1e-9:
            self.turn()
            self.wall += TICK
            self.ros += TICK * speed
            if ticks:
                self.gate.open(self.ros)
        return self

    def turn(self):
        if self.gate.shut(self.wall):
            self.gate.await_opening()
            return
        self.gate.update(self.requests, self.wall)
        ready = [request for request in self.requests if request.ready]
        self.steps += bool(ready)
        for request in ready:
            request.advance(1, self.wall + self.step)
            self.times[request].append(self.wall)

    def gaps(self, request=0):
        return [b - a for a, b in pairwise(self.times[self.requests[request]])]


def paced(ms=100.0, deadline=0.0):
    return SloClass('x', tpot_ms=ms, deadline_ms=deadline)


@pytest.mark.parametrize('ms', [20.0, 50.0, 77.0, 100.0, 250.0])
def test_the_rate_is_that_of_the_class_and_gaps_are_even(ms):
    rig = Rig(paced(ms)).run(30.0)
    request, pace = rig.requests[0], ms / 1e3
    steady = [t for t in rig.times[request] if t > 60.0]
    assert (len(steady) - 1) / (steady[-1] - steady[0]) == pytest.approx(1 / pace, rel=0.005)
    lead = min(0.1 * pace, 0.006)
    assert all(abs(gap - pace) <= lead + TICK + 1e-9 for gap in rig.gaps())
    assert request.pace == pace


def test_the_lead_keeps_the_mean_within_the_objective():
    """Each token is delivered some time after its release; the first one was, too, before."""
    for ms, step in ((50, 0.012), (100, 0.03), (250, 0.06)):
        rig = Rig(paced(ms), step=step).run(20.0)
        request = rig.requests[0]
        assert 0.97 * ms / 1e3 < request.tpot <= ms / 1e3
        assert request.tpot < ms / 1e3 - 0.2 * (0.4 * ms / 1e3 - step) / request.generated


@pytest.mark.parametrize('speed', [0.01, 0.5, 2.0, 5.0])
def test_the_rate_follows_the_clock_of_the_node(speed):
    rig = Rig(paced()).run(60.0, speed)
    assert rig.requests[0].generated == pytest.approx(60 * 10 * speed, rel=0.02, abs=1.5)


def test_a_clock_that_stops_stops_tokens_and_goes_on_where_it_was():
    rig = Rig(paced()).run(2.0)
    rig.run(10.0, speed=0.0)
    assert rig.gate.shut(rig.wall)
    before = rig.requests[0].generated
    assert before <= 22
    rig.run(2.0)
    assert not rig.gate.shut(rig.wall)
    assert rig.requests[0].generated - before <= 21


def test_after_an_executor_that_stalled_there_is_no_flood():
    rig = Rig(paced(), paced(50)).run(2.0)
    before = [request.generated for request in rig.requests]
    rig.run(5.0, ticks=False)
    assert rig.gate.shut(rig.wall)
    assert [r.generated for r in rig.requests] <= [n + 1 for n in before]
    rig.run(3.0)
    assert [r.generated - n for r, n in zip(rig.requests, before)] == [
        pytest.approx(30, abs=1), pytest.approx(60, abs=1)]
    assert all(gap >= 0.04 for gap in rig.gaps(1))


def test_a_short_hiccup_is_made_up_at_twice_the_rate_at_most():
    rig = Rig(paced()).run(2.0)
    rig.run(0.45, ticks=False)
    rig.run(3.0)
    assert rig.requests[0].generated == pytest.approx(55, abs=2)
    assert min(rig.gaps()) >= 0.05 - TICK - 1e-9


def test_a_clock_that_jumps_back_hangs_nobody():
    rig = Rig(paced()).run(2.0)
    rig.ros = 0.001   # the simulation was started anew
    rig.run(2.0)
    assert rig.requests[0].generated == pytest.approx(41, abs=2)


def test_a_clock_that_leaps_ahead_floods_nobody():
    rig = Rig(paced()).run(2.0)
    rig.ros += 1e6
    rig.run(10.0)
    assert rig.requests[0].generated <= 1 + 120 + 11
    assert sorted(rig.gaps())[1] >= 0.05 - TICK - 1e-9   # the leap itself lets one pass


def test_a_clock_that_has_not_begun_opens_nothing():
    gate = Gate()
    gate.open(0.0)
    assert gate.shut(gate._clock())
    gate.open(12.0)
    assert not gate.shut(gate._clock())


def test_the_same_time_again_is_no_sign_of_life():
    rig = Rig(paced()).run(1.0)
    rig.run(0.6, speed=0.0)
    rig.gate.open(rig.ros)
    assert rig.gate.shut(rig.wall) and rig.gate.age(rig.wall) > 0.5


def test_without_objectives_no_request_is_gated():
    rig = Rig(SloClass('free'), paced()).run(1.0)
    free, limited = rig.requests
    assert free.generated > 190 and not free.gated and free.pace == 0
    assert limited.generated < 15 and limited.gated


def test_a_deadline_alone_sets_the_pace_that_the_longest_answer_needs():
    rig = Rig(paced(0.0, deadline=10_000), max_tokens=101).run(11.0)
    request = rig.requests[0]
    assert request.pace == pytest.approx(0.09, rel=0.01)
    assert request.generated >= 101 and rig.times[request][99] - 50.0 < 10.0
    late = Request('late', paced(0.0, deadline=100), 0.0, 1, 10, generated=1, cached=1)
    rig.gate.update([late], rig.wall)
    assert not late.gated and late.pace == 0


def test_a_deadline_that_needs_more_than_the_objective_goes_first():
    rig = Rig(paced(100, deadline=2000), max_tokens=51).run(0.1)
    assert rig.requests[0].pace == pytest.approx(0.036, rel=0.01)


def test_tokens_due_at_about_the_same_time_share_a_step():
    rig = Rig(*[paced()] * 4)
    for n, request in enumerate(rig.requests):   # their first tokens come within 8 ms
        rig.gate.update([request], rig.wall)
        rig.gate.open(rig.ros + 0.002 * (n + 1))
    rig.ros += 0.01
    rig.run(10.0)
    assert rig.steps <= 115   # of some 400
    assert all(abs(gap - 0.1) <= 0.0151 for n in range(4) for gap in rig.gaps(n))


def test_requests_of_one_pace_come_to_share_their_steps():
    rig = Rig(*[paced()] * 6, paced(50), paced(200))
    everyone, rig.requests = rig.requests, []
    for request in everyone:    # their first tokens come whenever
        rig.requests.append(request)
        rig.run(0.035)
    rig.run(5.0)
    rig.steps, before = 0, sum(request.generated for request in everyone)
    rig.run(10.0)
    tokens = sum(request.generated for request in everyone) - before
    assert tokens == pytest.approx(6 * 100 + 200 + 50, abs=8)
    assert rig.steps <= 420
    for n in range(6):
        off = [abs(gap - 0.1) for gap in rig.gaps(n)]
        assert max(off) <= 0.006 + 0.01 + TICK + 1e-9 and max(off[-100:]) <= TICK + 1e-9


def test_modes_and_objectives_change_while_requests_run():
    rig = Rig(paced(), mode='work_conserving').run(0.5)
    request = rig.requests[0]
    assert request.generated >= 100 and not request.gated
    rig.gate.config = RateControl('paced', TICK, 0.5)
    rig.run(2.0)
    assert request.generated == pytest.approx(121, abs=1) and request.gated
    request.slo = paced(50)
    rig.run(2.0)
    assert request.generated == pytest.approx(161, abs=2) and request.pace == 0.05
    rig.gate.config = RateControl()
    rig.turn()
    assert not request.gated and request.pace == 0


def test_the_loop_is_woken_when_somebody_is_due_and_not_before():
    rig, woken = Rig(paced()), []
    rig.gate.wake = lambda: woken.append(rig.wall)
    rig.run(2.0)
    assert 18 <= len(woken) <= 21
    rig.run(1.0, ticks=False)
    woken.clear()
    rig.run(0.02)
    assert woken


def test_what_has_ended_is_forgotten():
    rig = Rig(*[paced()] * 3).run(0.2)
    for request in rig.requests:
        rig.gate.forget(request)
    assert not rig.gate._schedules


class Timed(Policy):
    """A policy behind a gate, which the simulation's clock opens."""

    def __init__(self, policy):
        super().__init__(policy.capacity)
        self.policy, self.overhead = policy, policy.overhead
        self.now, self.idle = 0.0, 0
        self.gate = Gate(RateControl('paced', TICK, 0.5), lambda: self.now)

    def finished(self, request):
        self.gate.forget(request)
        self.policy.finished(request)

    def plan(self, now, requests, latency):
        self.now = now
        self.gate.open(now)
        self.gate.update(requests, now)
        step = self.policy.plan(now, requests, latency)
        if step.idle and not step.drop and any(r.gated for r in requests):
            self.idle += 1
            return Step(evict=step.evict, wake_at=now + TICK)
        return step


@pytest.mark.parametrize('name', policy_names())
def test_every_policy_keeps_a_light_load_at_its_pace(name):
    """A gated request is neither late nor dropped, and takes no time that others need."""
    latency = LatencyModel('small', ((1, 5.0), (8, 10.0), (16, 20.0)), prefill_token_ms=0.3)
    classes = (paced(50), paced(100), SloClass('slow', ttft_ms=1500, tpot_ms=250))
    arrivals = [Arrival(n * 0.6, classes[n % 3], 30, 40, 60) for n in range(40)]
    policy = Timed(make_policy(name, Capacity(max_batch=16, slots=32)))
    result = simulate(policy, latency, arrivals)
    assert policy.idle > 100
    for request in result.requests:
        assert request.report().attained, request
        assert request.tpot > 0.9 * request.slo.tpot
