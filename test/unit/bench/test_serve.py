# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``serve``: workloads through the real server; the engine is a fake that takes no time."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from slice_ros.bench.schedule.load_costs import auto_scale, mixed_cost, saturation, with_overhead
from slice_ros.bench.schedule.serve import serve_run
from slice_ros.bench.schedule.sweep import Run
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.errors import RequestError
from slice_ros.request import State
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity
from slice_ros.slo import DEFAULT_CLASSES, SloClass

CONTROL, _, DIALOGUE = DEFAULT_CLASSES
LATENCY = LatencyModel('flat', ((1, 10), (4, 25), (16, 85)), decode_context_ms=.01,
                       prefill_base_ms=20, prefill_token_ms=1)


class FakeEngine:
    """Samples nothing and stops at the scripted length; keeps what was opened."""

    info = SimpleNamespace(slots=8, kv_tokens=4096, max_context=512, vocab_size=100,
                           fills_cores=True, asynchronous=False)

    def __init__(self):
        self.opened = []

    def open(self, tokens, max_tokens, sampling, stop, response_format, request,  # noqa: A003
             adapter, images=()):
        assert all(0 <= token < 100 for token in tokens)
        self.opened.append((len(tokens), max_tokens))
        return SimpleNamespace(request=request, limit=max_tokens, tool_calls=(), reasoning='',
                               joined=())

    def launch(self, work, drafts):
        return work

    def collect(self, work, clock):
        at, outputs = clock(), []
        for sequence, n in work:
            request = sequence.request
            if request.advance(n, at):
                outputs.append(SimpleNamespace(
                    sequence=sequence, token=1, number=request.generated, text='x', error=None,
                    reasoning='', logprobs=(),
                    finish_reason='length' if request.generated == sequence.limit else None))
        return at, outputs

    def adopt(self, sequence):
        return 0

    def evict(self, sequence):
        raise AssertionError('there is room for all')

    def close(self, sequence):
        pass


def cell(arrivals, policy='slice_static:capacity_ratio=0.5'):
    return Run(policy, 10.0, 1, tuple(arrivals), LATENCY, Capacity(slots=8, kv_tokens=4096))


def test_every_request_is_served_to_its_scripted_length_that_the_policy_does_not_see():
    arrivals = [Arrival(i * .02, (CONTROL, DIALOGUE)[i % 2], 10 + i, 3 + i, 50) for i in range(6)]
    engine, ended = FakeEngine(), []
    requests, plan, learnt, noise = serve_run(engine, cell(arrivals), lambda: ended.append(1))
    assert engine.opened == [(10 + i, 3 + i) for i in range(6)]
    assert [r.state for r in requests] == [State.FINISHED] * 6
    assert [(r.slo, r.prompt_tokens, r.generated, r.max_tokens) for r in requests] == [
        (a.slo, a.prompt_tokens, a.output_tokens, 50) for a in arrivals]
    assert len(ended) == 6
    assert 0 < plan[0] <= plan[1]
    assert learnt.decode(4) > 0 and learnt.name == LATENCY.name
    times = [at for at, _ in noise.slowness]
    assert times == sorted(times) and times[0] > -.05
    assert len(times) >= 6 and all(factor > 0 for _, factor in noise.slowness)
    # Requests arrive at the times of the workload, and count from then.
    gaps = [b.arrival - a.arrival for a, b in zip(requests, requests[1:])]
    assert gaps == pytest.approx([.02] * 5)
    assert all(r.ttft > 0 for r in requests)


def test_a_request_too_long_for_the_engine_is_refused_before_anything_runs():
    with pytest.raises(RequestError, match='context of 512'):
        serve_run(FakeEngine(), cell([Arrival(0, CONTROL, 500, 5, 50)]), lambda: None)


def test_auto_scale_makes_objectives_as_tight_as_the_published_ones():
    arrivals = [Arrival(0, CONTROL, 40, 20, 25), Arrival(0, DIALOGUE, 140, 20, 25)]
    # 25 ms and 4 * (90 + 10) tokens of context at 0.01 ms, and a prefill of 90 tokens: 139 ms.
    assert auto_scale(arrivals, LATENCY) == pytest.approx(139 / (1.8 * 50))
    assert auto_scale([Arrival(0, SloClass('free'), 40, 20, 25)], LATENCY) == 1.0


def test_the_cost_of_a_mixed_step_is_named_beside_that_of_two():
    arrivals = [Arrival(0, CONTROL, 40, 20, 25), Arrival(0, DIALOGUE, 140, 20, 25)]
    found = mixed_cost(arrivals, replace(LATENCY, shared_ms=15))
    assert found == {'batch': 4, 'context': 400, 'tokens': 90, 'separate_ms': pytest.approx(139),
                     'ms': pytest.approx(124), 'ratio': pytest.approx(124 / 139)}


@pytest.mark.parametrize('shared', [0, 15, 60])
def test_what_the_loop_spends_around_a_step_is_paid_once(shared):
    before = replace(LATENCY, shared_ms=shared)
    after = with_overhead(before, 5.0)
    for shape in [(4, 100, []), (0, 0, [(30, 0)]), (4, 100, [(30, 0)]), (2, 9, [(9, 0), (80, 9)])]:
        assert after.step(*shape) == pytest.approx(before.step(*shape) + .005)


def test_saturation_is_what_full_batches_carry():
    # Prefill 60 ms, 10 tokens at (85 + 16 * 45 * 0.01) / 16 = 5.7625 ms: 117.6 ms a request.
    arrivals = [Arrival(0, CONTROL, 40, 11, 25)] * 3
    assert saturation(arrivals, LATENCY, 16) == pytest.approx(1 / .117625)
