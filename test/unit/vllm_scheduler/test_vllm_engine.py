# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Our scheduler in vLLM's own, with its KV cache manager, in virtual time; no model runs.

Each request is followed by what vLLM hands out and gets back, and compared with what the policy is
shown.
"""

from dataclasses import replace
import random

import pytest
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.errors import ErrorCode
from slice_ros.request import State
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import DEFAULT_CLASSES

pytestmark = pytest.mark.vllm

LATENCY = LatencyModel('flat', ((1, 10), (4, 16), (16, 40)), prefill_base_ms=8,
                       prefill_token_ms=.2, shared_ms=7)
SMALL = Capacity(max_batch=6, slots=12, kv_tokens=60 * 16, prefill_chunk=48)
CONTEXT = 128
REQUESTS = 2500   # in each of four settings


class Anything(Policy):
    """Plans whatever the contract allows: any requests, chunks, evictions, waits and drops.

    `check` is called with all that it is shown.
    """

    def __init__(self, capacity, check, drops=0.0):
        super().__init__(capacity)
        self.check, self.drops, self.draw = check, drops, random.Random(5)
        self.evicted = self.waits = 0

    def fresh(self):
        return self

    def plan(self, now, requests, latency):
        self.check(requests)
        draw = self.draw
        if draw.random() < self.drops:
            return Step(drop=(draw.choice(requests),))
        if draw.random() < .02:
            self.waits += 1
            return Step(wake_at=now + .005)
        ranked = draw.sample(requests, len(requests))
        ready = [r for r in ranked if r.ready][:draw.randint(0, self.capacity.max_batch)]
        new = [r for r in ranked if not (r.decoding or r.gated)][:draw.randint(0, 3)]
        room, chunks = self.capacity.prefill_chunk, []
        for request in new:
            if tokens := min(draw.randint(1, request.pending), room):
                room -= tokens
                chunks.append(PrefillChunk(request, tokens))
        step = fit_step(self.capacity, ranked, ready, chunks)
        self.evicted += len(step.evict)
        return replace(step, wake_at=now + .001)   # it may be idle for no reason


def engine(arrivals, capacity=SMALL, policy='slice', **settings):
    """Return an engine of vLLM with our scheduler, and the counts it is checked against."""
    from slice_ros.bench.schedule.vllm_engine import (
        make_scheduler, options_of, VirtualEngine, VllmSettings)

    class Followed(VirtualEngine):
        """Counts the cached tokens of each request by what was scheduled."""

        def __init__(self, *args):
            super().__init__(*args)
            self.cached, self.wrong, self.checks = {}, [], 0
            self.preempted = self.hits = 0

        def prompt_of(self, number, arrival):
            """Begin every fourth prompt alike."""
            alike = number % 4 + 1
            return ([alike] * 40 + [1000 + number] * CONTEXT)[:arrival.prompt_tokens]

        def schedule(self):
            output = super().schedule()
            for request_id in output.preempted_req_ids or ():
                self.cached[request_id] = 0
                self.preempted += 1
            old = output.scheduled_cached_reqs
            done = dict(zip(old.req_ids, old.num_computed_tokens))
            for new in output.scheduled_new_reqs:
                self.hits += new.num_computed_tokens > 0
                done[new.req_id] = new.num_computed_tokens
            for request_id, tokens in output.num_scheduled_tokens.items():
                self.cached[request_id] = done[request_id] + tokens
            return output

        def check(self, requests):
            self.checks += len(requests)
            for request in requests:
                mine = self.served[request.id].sampled, self.cached.get(request.id, 0)
                if mine != (request.generated, request.cached):
                    self.wrong.append((request, mine))

    options = options_of(policy, settings.pop('policy_options', {}), LATENCY, arrivals, capacity)
    scheduler = make_scheduler(VllmSettings(capacity, CONTEXT, slice_options=options, **settings))
    return Followed(scheduler, LATENCY, arrivals)


def arrivals_of(requests, rate, prompts=(8, 80), outputs=(1, 24)):
    draw, now, arrivals = random.Random(3), 0.0, []
    for _ in range(requests):
        now += draw.expovariate(rate)
        arrivals.append(Arrival(now, draw.choice(DEFAULT_CLASSES), draw.randint(*prompts),
                                draw.randint(*outputs), outputs[1]))
    return arrivals


@pytest.mark.parametrize('asynchronous', [False, True], ids=['sync', 'async'])
@pytest.mark.parametrize('believed_tokens', [SMALL.kv_tokens, 4 * SMALL.kv_tokens],
                         ids=['fits', 'blocks run out'])
def test_what_a_policy_is_shown_is_what_vllm_has_computed(asynchronous, believed_tokens):
    served = engine(arrivals_of(REQUESTS, 20), asynchronous=asynchronous, prefix_caching=True)
    capacity = replace(served.planner.policy.capacity, kv_tokens=believed_tokens)
    served.planner.policy = policy = Anything(capacity, served.check, drops=.0005)
    result = served.run()
    assert not served.wrong and not served.planner.failures
    assert served.checks > 10 * REQUESTS and served.preempted and served.hits and policy.waits
    ends = {State.FINISHED: 0, State.FAILED: 0}
    for request, arrival in zip(result.requests, served.arrivals):
        ends[request.state] += 1
        if request.state is State.FINISHED:
            assert request.generated == arrival.output_tokens
        else:
            assert request.error is ErrorCode.DEADLINE_MISSED
    assert ends[State.FAILED] and ends[State.FINISHED] > .9 * REQUESTS
    assert not served.planner.mirrors and not served.scheduler.requests
    assert served.scheduler.kv_cache_manager.usage == 0


@pytest.mark.parametrize('name', ['orca', 'slice'])
def test_times_are_those_of_the_simulator(name):
    """With memory for all, a policy plans the same steps here and there."""
    arrivals = arrivals_of(150, 12)
    capacity = Capacity(max_batch=6, slots=64, prefill_chunk=48)
    theirs = engine(arrivals, capacity, name).run()
    ours = simulate(make_policy(name, capacity), LATENCY, arrivals)
    assert theirs.steps == ours.steps
    for one, other in zip(theirs.reports, ours.reports):
        assert (one.ttft, one.tpot, one.completion) == pytest.approx(
            (other.ttft, other.tpot, other.completion))


def test_a_policy_that_fails_leaves_the_requests_to_vllm():
    def fail(requests):
        raise RuntimeError('a bug')
    served = engine(arrivals_of(60, 20))
    served.planner.policy = Anything(SMALL, fail)
    result = served.run()
    assert served.planner.failures == 2
    assert all(request.state is State.FINISHED for request in result.requests)


def test_what_the_default_policy_drops_ends_with_an_error():
    late = [replace(a, slo=replace(DEFAULT_CLASSES[0], ttft_ms=20 + 40 * (i % 5)))
            for i, a in enumerate(arrivals_of(80, 40))]
    result = engine(late, policy_options={'on_miss': 'drop'}).run()
    failed = [r for r in result.requests if r.state is State.FAILED]
    assert failed and len(failed) < len(late)
    assert {r.error for r in failed} == {ErrorCode.DEADLINE_MISSED}


@pytest.mark.parametrize('rate', [2, 6])
def test_slice_attains_more_utility_than_the_orders_of_vllm(rate, tmp_path):
    """The figures of docs/scaling.md, with fewer requests."""
    import json

    from slice_ros.bench.cli import main
    out = tmp_path / 'out.json'
    assert main(['simulate', '--engine', 'vllm', '--rates', str(rate), '--requests', '150',
                 '--seeds', '1', '--policies', 'vllm_fcfs,vllm_priority,slice', '--jobs', '1',
                 '--json', str(out)]) == 0
    utility = {run['policy']: run['utility_attainment']
               for run in json.loads(out.read_text())['runs']}
    assert utility['slice'] >= .85 and utility['slice'] == max(utility.values())


def test_plans_are_timed_beside_vllms_own_scheduling(tmp_path, capsys):
    import json

    from slice_ros.bench.cli import main
    out = tmp_path / 'out.json'
    assert main(['plan', '--engine', 'vllm', '--live', '3,9', '--steps', '20', '--json',
                 str(out)]) == 0
    rows = json.loads(out.read_text())['vllm']
    assert [row['live'] for row in rows] == [3, 9]
    assert all(0 < row['plan'] < row['slice_vllm'] and row['vllm'] > 0 for row in rows)
    assert 'plan of slice' in capsys.readouterr().out
