# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The simulator: hand-worked clocks, and policies that break their contract."""

import math

import pytest
from slice_ros.bench.schedule.noise import Noise
from slice_ros.bench.schedule.simulate import scaled_latency, simulate
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.errors import ErrorCode
from slice_ros.request import State
from slice_ros.scheduling.contract import PolicyError
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import DEFAULT_CLASSES, SloClass

CONTROL = DEFAULT_CLASSES[0]
LATENCY = LatencyModel('flat', ((1, 10), (2, 15), (16, 150)), prefill_base_ms=20,
                       prefill_token_ms=1)


def arrivals(*rows, slo=CONTROL):
    return [Arrival(time, slo, prompt, output, 20) for time, prompt, output in rows]


class Scripted(Policy):
    """Plans what its script returns."""

    def __init__(self, script, capacity=Capacity()):
        super().__init__(capacity)
        self.script = script
        self.orca = make_policy('orca', capacity)
        self.seen = []

    def plan(self, now, requests, latency):
        self.seen.append((now, requests, latency))
        return self.script(self, now, requests, latency)


def test_the_clock_of_one_request():
    (request,) = simulate(make_policy('orca'), LATENCY, arrivals((1.0, 30, 3))).requests
    assert request.state is State.FINISHED
    assert request.ttft == pytest.approx(.050)               # 20 + 30 * 1 ms
    assert request.completion == pytest.approx(.070)         # and two decodes of 10 ms
    assert (request.generated, request.tpot) == (3, pytest.approx(.010))


def test_the_clock_of_two_requests_that_share_steps():
    result = simulate(make_policy('orca'), LATENCY, arrivals((0.0, 30, 4), (0.055, 10, 2)))
    first, second = result.requests
    # 0.050 prefill, decode to 0.060; then decode + prefill of the second: 10 + 30 ms.
    assert first.first_token_at == pytest.approx(.050)
    assert second.first_token_at == pytest.approx(.100)
    assert second.ttft == pytest.approx(.045)
    # Both decode at l(2) = 15 ms and end together.
    assert first.last_token_at == second.last_token_at == pytest.approx(.115)
    assert first.max_gap == pytest.approx(.040)
    assert (result.steps, result.end, result.busy) == (4, pytest.approx(.115), pytest.approx(.115))


def test_idle_time_is_skipped_and_not_busy():
    result = simulate(make_policy('orca'), LATENCY, arrivals((0.0, 30, 1), (5.0, 30, 1)))
    assert result.busy == pytest.approx(.1)
    assert result.end == pytest.approx(5.05)


def test_the_true_length_is_bounded_by_max_tokens():
    result = simulate(make_policy('orca'), LATENCY, arrivals((0.0, 30, 99)))
    assert result.requests[0].generated == 20


def test_a_policy_sees_no_length_and_its_own_latency_model():
    seen_times = []
    policy = Scripted(lambda self, now, requests, latency: (
        seen_times.append(latency.decode(1)), self.orca.plan(now, requests, latency))[1])
    simulate(policy, LATENCY, arrivals((0.0, 30, 3)), believed=scaled_latency(LATENCY, 2.0))
    _, (request,), _ = policy.seen[0]
    assert seen_times[0] == pytest.approx(.020)
    assert request.max_tokens == 20
    fields = {name: getattr(request, name) for name in type(request).__slots__}
    assert not any('output' in name or 'length' in name for name in fields)


def test_lengths_are_revealed_before_the_first_plan_and_only_on_demand():
    class Clairvoyant(Scripted):
        def reveal(self, request, tokens):
            self.known[request.id] = tokens, len(self.seen)

    work = arrivals((0.0, 30, 3), (0.055, 10, 99))
    for reveal, known in ((True, {'control-0': (3, 0), 'control-1': (20, 2)}), (False, {})):
        policy = Clairvoyant(lambda self, *args: self.orca.plan(*args))
        policy.known = {}
        simulate(policy, LATENCY, work, reveal=reveal)
        assert policy.known == known   # (tokens, plans before); 20 is max_tokens


def test_the_latency_model_of_the_policy_learns_from_the_steps_and_the_true_one_stays():
    believed = scaled_latency(LATENCY, 2.0)
    work = arrivals(*[(i * 1.0, 30, 20) for i in range(20)])
    result = simulate(make_policy('orca'), LATENCY, work, believed=believed)
    assert believed.decode(1) == pytest.approx(.010, rel=.1)
    assert believed.prefill(30) == pytest.approx(.050, rel=.1)
    assert result.requests[-1].ttft == pytest.approx(.050)


def test_a_request_that_no_cache_could_hold_is_rejected():
    policy = make_policy('orca', Capacity(kv_tokens=49))
    result = simulate(policy, LATENCY, arrivals((0.0, 30, 3), (0.0, 29, 3)))
    assert [r.state for r in result.requests] == [State.REJECTED, State.FINISHED]
    assert result.requests[0].error is ErrorCode.PROMPT_TOO_LONG


def test_a_dropped_request_ends_with_deadline_missed():
    policy = Scripted(lambda self, now, requests, latency: Step(drop=requests))
    (request,) = simulate(policy, LATENCY, arrivals((0.0, 30, 3))).requests
    assert (request.state, request.error) == (State.FAILED, ErrorCode.DEADLINE_MISSED)


def test_an_evicted_request_is_prefilled_again_and_ends_all_the_same():
    def script(self, now, requests, latency):
        if requests[0].generated == 2 and requests[0].cached:
            return Step(evict=requests, wake_at=now + 1)
        return self.orca.plan(now, requests, latency)
    result = simulate(Scripted(script), LATENCY, arrivals((0.0, 30, 3)))
    assert result.requests[0].generated == 3
    assert result.busy == pytest.approx(.050 + .010 + .052)   # 20 + 32 ms the second time


def test_idle_until_wake_at():
    def script(self, now, requests, latency):
        return Step(wake_at=1.0) if now < 1 else self.orca.plan(now, requests, latency)
    result = simulate(Scripted(script), LATENCY, arrivals((0.0, 30, 1)))
    assert result.requests[0].ttft == pytest.approx(1.05)


def first_decodes(self, now, requests, latency):
    return Step(decode=requests[:1])


def too_many_tokens(self, now, requests, latency):
    return Step(prefill=(PrefillChunk(requests[0], 31),))


def no_tokens(self, now, requests, latency):
    return Step(prefill=(PrefillChunk(requests[0], 0),))


def twice(self, now, requests, latency):
    return Step(prefill=(PrefillChunk(requests[0], 10), PrefillChunk(requests[0], 10)))


def never(self, now, requests, latency):
    return Step()


def asleep(self, now, requests, latency):
    return Step(wake_at=now)


def decode_as_prefill(self, now, requests, latency):
    step = self.orca.plan(now, requests, latency)
    return Step(prefill=tuple(PrefillChunk(r, 1) for r in step.decode) or step.prefill)


def the_dead(self, now, requests, latency):
    self.first = getattr(self, 'first', requests[0])
    if len(self.seen) > 3:
        return Step(decode=(self.first,))
    return self.orca.plan(now, requests, latency)


@pytest.mark.parametrize('script, sentence', [
    (first_decodes, 'decodes control-0 before its prefill'),
    (too_many_tokens, 'feeds 31 of 30 tokens of control-0'),
    (no_tokens, 'feeds 0 of 30 tokens'),
    (twice, 'names a request twice'),
    (never, 'does nothing, and'),
    (asleep, 'made no progress'),
    (decode_as_prefill, 'prefills control-0, which is decoding'),
    (the_dead, r'control-0, which is not live \(finished\)'),
])
def test_a_policy_that_breaks_its_contract_ends_the_simulation(script, sentence):
    with pytest.raises(PolicyError, match=sentence):
        simulate(Scripted(script), LATENCY, arrivals((0.0, 30, 3), (0.0, 30, 20)))


@pytest.mark.parametrize('cap, sentence', [
    (Capacity(max_batch=2), 'decodes 3 requests, over 2'),
    (Capacity(slots=2), 'uses 3 KV slots, over 2'),
    (Capacity(kv_tokens=92), 'uses 93 tokens of KV cache, over 92'),
    (Capacity(prefill_chunk=89), 'prefills 90 tokens, over 89'),
])
def test_caps_are_enforced(cap, sentence):
    unbounded = make_policy('orca')
    policy = Scripted(lambda self, now, requests, latency:
                      unbounded.plan(now, requests, latency), cap)
    with pytest.raises(PolicyError, match=sentence):
        simulate(policy, LATENCY, arrivals((0.0, 30, 5), (0.0, 30, 5), (0.0, 30, 5)))


def test_noise_strays_as_far_as_it_says_and_is_the_same_for_a_seed():
    work = arrivals(*[(0.0, 30, 20)] * 8)
    noise = Noise(spread=.3)
    runs = [simulate(make_policy('orca'), LATENCY, work, noise=noise, seed=seed, log=True)
            for seed in (1, 1, 2)]
    assert runs[0].end == runs[1].end != runs[2].end
    quiet = simulate(make_policy('orca'), LATENCY, work, log=True)
    ratios = [a.seconds / b.seconds for a, b in zip(runs[0].log, quiet.log)]
    assert all(.7 <= ratio <= 1.3 for ratio in ratios)
    assert min(ratios) < .8 and max(ratios) > 1.2


def test_bursts_slow_a_share_of_the_steps():
    work = arrivals(*[(i * .1, 30, 20) for i in range(200)])
    noise = Noise(burst_every=2.0, burst_seconds=.5, burst_factor=2.0)
    result = simulate(make_policy('orca', Capacity(max_batch=1)), LATENCY, work, noise=noise,
                      log=True)
    slow = [step for step in result.log
            if step.decode and math.isclose(step.seconds, .020)]
    share = len(slow) / sum(bool(step.decode) for step in result.log)
    assert .05 < share < .3    # half a second in 2.5, at half the steps a second


def test_an_empty_workload():
    result = simulate(make_policy('orca'), LATENCY, [])
    assert (result.requests, result.steps) == ([], 0)


def test_measured_slowness_is_charged_as_it_was_over_time():
    alone = [Arrival(0.0, SloClass('x'), 10, 3, 3)]
    noise = Noise(slowness=((0.0, 1.0), (.001, 3.0)))
    plain, slowed = (simulate(make_policy('orca'), LATENCY, alone, noise=n).requests[0]
                     for n in (Noise(), noise))
    assert slowed.first_token_at == plain.first_token_at
    assert slowed.tpot == pytest.approx(3 * plain.tpot)
