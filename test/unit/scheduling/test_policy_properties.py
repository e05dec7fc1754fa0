# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Properties of every built-in policy under any workload."""

from dataclasses import astuple, replace
import random
from statistics import fmean

from hypothesis import given, settings, strategies as st
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
from slice_ros.scheduling.policy import Capacity, Policy, Step
from slice_ros.scheduling.registry import make_policy, POLICIES
from slice_ros.slo import SloClass

LATENCY = load_profile(config_file('profiles', 'slice-authors-rtx4060ti'))
PUBLISHED = load_workload(config_file('workloads', 'published'))
# At its default ratio of 1.0 the published policy starts more than it can finish, so that too
# little memory, or too slow an accelerator, can even help it. This ratio works.
OPTIONS = {'slice_static': {'capacity_ratio': .5}}
# It decodes all that has room, whatever their TPOT, so that too little memory can even help it.
# With this batch, memory does not decide how many that are.
BATCH = {'priority': 4}
REFUSING = ('scorpio',)   # policies that end what cannot be met (Step.drop) without being asked to
EVERY_POLICY = pytest.mark.parametrize('name', sorted(POLICIES))
MS = st.sampled_from([0, 1, 20, 50, 100, 250, 500, 1500, 6000])
SLOS = st.builds(SloClass, st.sampled_from(['a', 'b', 'c']), ttft_ms=MS, tpot_ms=MS,
                 deadline_ms=MS, utility=st.sampled_from([.1, 1, 10, 100]))
ARRIVALS = st.lists(
    st.builds(Arrival, st.floats(0, 5), SLOS, prompt_tokens=st.integers(1, 90),
              output_tokens=st.integers(1, 30), max_tokens=st.integers(1, 30)),
    min_size=1, max_size=24).map(lambda rows: sorted(rows, key=lambda a: a.time))
# The smallest cache has room for the longest prompt and answer, as the server's limits ensure.
CAPACITIES = st.builds(Capacity, max_batch=st.integers(1, 8), slots=st.integers(1, 10),
                       kv_tokens=st.integers(120, 600), prefill_chunk=st.integers(8, 128))
NOISES = st.builds(Noise, spread=st.sampled_from([0, .3]), burst_every=st.sampled_from([0, 1.0]))


class Watched(Policy):
    """Passes everything on, and asserts that planning changes no request."""

    def __init__(self, policy):
        super().__init__(policy.capacity)
        self.policy = policy
        self.finished = policy.finished
        self.overhead = policy.overhead

    def plan(self, now, requests, latency):
        before = [astuple(request) for request in requests]
        step = self.policy.plan(now, requests, latency)
        assert [astuple(request) for request in requests] == before
        return step


@EVERY_POLICY
@settings(max_examples=40, deadline=None)
@given(workload=ARRIVALS, capacity=CAPACITIES, noise=NOISES,
       error=st.sampled_from([.5, 1.0, 2.0]))
def test_the_contract_is_kept_and_every_request_ends(name, workload, capacity, noise, error):
    # The simulator raises when a request decodes before its prefill or after its end, when a cap
    # is broken, and when nothing moves.
    result = simulate(Watched(make_policy(name, capacity)), LATENCY, workload, noise=noise,
                      believed=scaled_latency(LATENCY, error))
    assert len(result.requests) == len(workload)
    for request, arrival in zip(result.requests, workload):
        if request.state is State.FINISHED:
            assert request.generated == min(arrival.output_tokens, arrival.max_tokens)
        else:
            assert (request.state, request.error) == (State.FAILED, ErrorCode.DEADLINE_MISSED)


class Gating(Watched):
    """Gates a share of the running requests at every plan, as rate control does."""

    def __init__(self, policy, share, seed):
        super().__init__(policy)
        self.share, self.draw = share, random.Random(seed)

    def plan(self, now, requests, latency):
        for request in requests:
            request.gated = request.decoding and self.draw.random() < self.share
            request.pace = 0.05 * (request.generated > 0)
        step = super().plan(now, requests, latency)
        if step.idle and not step.drop:
            return Step(evict=step.evict, wake_at=now + 0.005)  # when the gate moves on
        if not step.decode and any(request.ready for request in requests):
            assert step.prefill or step.drop
        return step


@EVERY_POLICY
@settings(max_examples=40, deadline=None)
@given(workload=ARRIVALS, capacity=CAPACITIES, share=st.sampled_from([.3, .9]),
       seed=st.integers(0, 99))
def test_a_gated_request_is_not_decoded_and_not_forgotten(
        name, workload, capacity, share, seed):
    # The simulator raises when a gated request decodes.
    result = simulate(Gating(make_policy(name, capacity), share, seed), LATENCY, workload)
    for request, arrival in zip(result.requests, workload):
        if name in REFUSING and request.state is State.FAILED:
            assert (request.error, request.generated) == (ErrorCode.DEADLINE_MISSED, 0)
            continue
        assert request.state is State.FINISHED
        assert request.generated == min(arrival.output_tokens, arrival.max_tokens)


@EVERY_POLICY
def test_room_in_the_batch_goes_to_requests_that_are_not_gated(name):
    requests = [Request(str(n), SloClass('a', tpot_ms=200), 0.0, 1, 50, cached=1, generated=1,
                        first_token_at=0.0, last_token_at=0.0) for n in range(8)]
    for request in requests[:5]:
        request.gated, request.pace = True, 0.1
    # The published policy selects whole cycles ahead, gated requests included.
    capacity = Capacity(max_batch=8 if name == 'slice_static' else 4)
    step = make_policy(name, capacity).plan(0.01, requests, LATENCY)
    assert step.decode and not set(step.decode) & set(requests[:5])
    for request in requests:
        request.gated = True
    policy = make_policy(name, capacity)
    assert policy.plan(0.01, requests, LATENCY).idle
    requests[-1].gated = False
    assert policy.plan(0.02, requests, LATENCY).decode == (requests[-1],)


@EVERY_POLICY
@settings(max_examples=40, deadline=None)
@given(prompt=st.integers(1, 1000), output=st.integers(1, 100), unused=st.integers(0, 100),
       loose=st.floats(1.01, 20), set_=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_every_feasible_lone_request_attains(name, prompt, output, unused, loose, set_):
    chunks = [512] * (prompt // 512) + [prompt % 512] * (prompt % 512 > 0)
    ttft = sum(LATENCY.prefill(n) for n in chunks) * loose
    tpot = LATENCY.decode(1) * loose
    # Where nothing but the deadline hurries the prefill, all that is known is the longest answer.
    longest = output if set_[0] else output + unused
    objectives = (ttft, tpot, ttft + tpot * (longest - 1))
    slo = SloClass('lone', *(on * x * 1e3 for on, x in zip(set_, objectives)))
    lone = Arrival(3.0, slo, prompt, output, output + unused)
    (request,) = simulate(make_policy(name), LATENCY, [lone]).requests
    assert request.report().attained


@EVERY_POLICY
@pytest.mark.parametrize('set_', [(1, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_a_prefill_is_cut_no_finer_than_its_objectives_bear(name, set_):
    ttft = (LATENCY.prefill(512) + LATENCY.prefill(321)) * 1.01   # a third chunk is too much
    objectives = (ttft, LATENCY.decode(1) * 1.01, ttft + LATENCY.decode(1) * 1.01 * 4)
    slo = SloClass('lone', *(on * x * 1e3 for on, x in zip(set_, objectives)))
    (request,) = simulate(make_policy(name), LATENCY, [Arrival(3.0, slo, 833, 5, 5)]).requests
    assert request.report().attained


@EVERY_POLICY
@settings(max_examples=30, deadline=None)
@given(workload=ARRIVALS, capacity=CAPACITIES)
def test_no_decision_depends_on_lengths_not_yet_seen(name, workload, capacity):
    logs = []
    for longer in (False, True):
        work = [replace(a, max_tokens=30, output_tokens=30 if longer else a.output_tokens)
                for a in workload]
        result = simulate(make_policy(name, capacity), LATENCY, work, log=True)
        logs.append((result.log, min(request.ended_at for request in result.requests)))
    (short, end), (long, _) = logs
    common = [step for step in short if step.start < end]
    assert common == long[:len(common)]


@EVERY_POLICY
@pytest.mark.parametrize('slo', [
    SloClass('none'),                                   # objectives of 0
    SloClass('past', ttft_ms=1, tpot_ms=1, deadline_ms=1, utility=100),   # late on arrival
    SloClass('unexpected', ttft_ms=700, tpot_ms=70, utility=1e9),
])
def test_a_burst_of_fifty_of_one_class_is_seen_through(name, slo):
    burst = [Arrival(i * .02, slo, 64, 20, 40) for i in range(50)]
    result = simulate(make_policy(name), LATENCY, burst)
    assert all(request.ended for request in result.requests)
    if slo.name == 'none':
        assert all(request.state is State.FINISHED for request in result.requests)


@EVERY_POLICY
@pytest.mark.parametrize('rate', [1.0, 2.0, 4.0])
def test_a_faster_accelerator_never_lowers_attainment(name, rate):
    shares = [fmean(attainment(simulate(
        make_policy(name, **OPTIONS.get(name, {})), scaled_latency(LATENCY, factor),
        generate(PUBLISHED, rate, 100, seed)).reports) for seed in (1, 2, 3))
        for factor in (1.0, .8, .6)]
    assert shares[1] >= shares[0] - .03
    assert shares[2] >= shares[1] - .03


@EVERY_POLICY
def test_more_memory_never_lowers_attainment(name):
    shares = [fmean(attainment(simulate(
        make_policy(name, Capacity(BATCH.get(name, 16), slots, tokens), **OPTIONS.get(name, {})),
        LATENCY, generate(PUBLISHED, 2.0, 100, seed)).reports) for seed in (1, 2, 3))
        for slots, tokens in ((4, 1000), (16, 4000), (64, 1 << 20))]
    assert shares[1] >= shares[0] - .03
    assert shares[2] >= shares[1] - .03


def test_the_profile_is_that_of_the_authors_code():
    assert [round(LATENCY.decode(b) * 1e3) for b in (*range(1, 17), 40)] == [
        14, 27, 38, 50, 60, 72, 83, 125, *[126] * 9]
    assert LATENCY.prefill(100) == pytest.approx(.045)
    assert isinstance(LATENCY, LatencyModel)
