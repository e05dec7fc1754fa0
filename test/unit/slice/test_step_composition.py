# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which rows and which prompt tokens share one step, worked out by hand."""

from dataclasses import replace

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival, generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.request import Request, State
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import DEFAULT_CLASSES, SloClass

AUTHORS = load_profile(config_file('profiles', 'slice-authors-rtx4060ti'))
CONTROL, NAVIGATION, DIALOGUE = DEFAULT_CLASSES
# A decode and each chunk read the weights for 20 ms, one that shares its step does not.
APART = LatencyModel('apart', ((1, 20), (16, 22)), prefill_base_ms=20, prefill_token_ms=.1)
SHARED = replace(APART, shared_ms=20.0)


def started(name, slo, max_tokens, at):
    request = Request(name, slo, 0.0, 40, max_tokens)
    request.advance(40, at)
    return request


def composed(latency, requests, now=.1):
    """Return the ids that decode, and (id, tokens) of each chunk, of the first step."""
    step = make_policy('slice').plan(now, tuple(requests), latency)
    return [r.id for r in step.decode], [(c.request.id, c.tokens) for c in step.prefill]


def test_a_waiting_prompt_rides_along_in_a_decode_step():
    # 20 + 20 + 100 * .1 - 20 = 30 ms for both, where one after the other takes 50.
    live = [started('talk', DIALOGUE, 160, .1), Request('act', CONTROL, .05, 100, 25)]
    assert composed(SHARED, live) == (['talk'], [('act', 100)])
    assert composed(APART, live) == ([], [('act', 100)])


def test_a_long_prompt_rides_along_as_far_as_the_pace_of_the_others_allows():
    # It has 50 ms for each token: with 512 tokens the step takes 71 ms, with 256 it takes 46, of
    # which some reserve is kept, with 128 it takes 33. An answer of 10 tokens, 65 % of the
    # expected 16, has 9 * (50 - 20) = 270 ms to spare: alone, the largest chunk goes first.
    live = [started('act', CONTROL, 25, .1), Request('go', NAVIGATION, 0.0, 1000, 60)]
    assert composed(SHARED, live) == (['act'], [('go', 128)])
    assert composed(APART, live) == ([], [('go', 512)])


def test_short_prompts_ride_along_together_the_most_urgent_first():
    # 20 + 3.2 + 6.4 ms: well within the 50 of the one that runs.
    talk = replace(DIALOGUE, utility=2)
    live = [started('act', CONTROL, 25, .1), Request('talk', talk, 0.0, 64, 160),
            Request('go', NAVIGATION, 0.0, 32, 60)]
    assert composed(SHARED, live) == (['act'], [('go', 32), ('talk', 64)])


def test_a_step_never_holds_more_prompt_than_a_chunk_may():
    live = [started('talk', DIALOGUE, 160, .1)] + [
        Request(f'go-{n}', NAVIGATION, 0.0, 50, 60) for n in range(5)]
    step = make_policy('slice', Capacity(prefill_chunk=128)).plan(.1, tuple(live), SHARED)
    assert [r.id for r in step.decode] == ['talk']
    assert [c.tokens for c in step.prefill] == [50, 50, 28]


@pytest.mark.parametrize('shared', [True, False])
def test_steps_are_mixed_if_and_only_if_it_saves_time(shared):
    latency = SHARED if shared else APART
    arrivals = generate(load_workload(config_file('workloads', 'published')), 8.0, 60, 1)
    log = simulate(make_policy('slice'), latency, arrivals, log=True).log
    assert any(step.decode and step.prefill for step in log) == shared
    assert any(step.prefill for step in log)


# Of the authors' table: 83 ms for seven rows (11.9 each), 125 for eight (15.6), 126 for 16 (7.9).
LAST = SloClass('last', ttft_ms=1500, tpot_ms=250, utility=.005)
BULK = SloClass('bulk', deadline_ms=27000, utility=.0001)


@pytest.mark.parametrize('rows, first_token_at, decoded', [
    (8, .5, 7),     # it has its next token in time after a step of seven
    (8, .3, 8),     # it is due in 50 ms and would be too late
    (16, .5, 16)])  # more rows take no longer than eight
def test_the_last_row_waits_if_it_can_and_the_step_is_better_without(
        rows, first_token_at, decoded):
    live = [started(f'talk-{n}', DIALOGUE, 160, .5) for n in range(rows - 1)]
    live.append(started('last', LAST, 3, first_token_at))  # its second token may be its last
    # 23 s of prefill do not fit beside all of them: there is no time to spare.
    live.append(Request('bulk', BULK, 0.0, 80_000, 10))
    decode, chunks = composed(AUTHORS, live, now=.5)
    assert len(decode) == decoded and not chunks
    assert ('last' in decode) == (decoded == rows)


@pytest.mark.parametrize('arrival', [1.4, 1.7, 2.0, 2.3, 2.6, 2.9, 3.2])
def test_a_first_token_that_is_late_anyway_comes_next_while_others_can_wait(arrival):
    """Its prefill alone takes longer than its TTFT: 20 + 64 * 8 = 532 ms."""
    latency = replace(AUTHORS, prefill_token_ms=8.0)
    result = simulate(make_policy('slice'), latency, [
        Arrival(0.0, NAVIGATION, 64, 50, 60), Arrival(0.0, DIALOGUE, 64, 150, 160),
        Arrival(arrival, CONTROL, 64, 20, 25)], log=True)
    navigation, _, control = result.requests
    running = next(s for s in result.log if s.start <= arrival < s.start + s.seconds)
    assert control.ttft <= latency.prefill(64) + running.seconds + 1e-9
    assert control.report().deadline_met and not control.report().ttft_met
    assert navigation.report().tpot_met and navigation.report().deadline_met


@pytest.mark.parametrize('two_ms, tpot_ms, decoding', [
    (7.0, 250, ['act']),             # 3 ms lost by 100, 4 ms gained by 1
    (4.1, 250, ['act', 'talk']),     # 0.1 ms lost
    (7.0, 10, ['act', 'talk'])])     # its last token is due in 10 ms
def test_a_row_that_slows_more_useful_ones_waits_if_it_can(two_ms, tpot_ms, decoding):
    latency = LatencyModel('linear', ((1, 4.0), (2, two_ms), (16, 7 * two_ms)))
    talk = SloClass('talk', ttft_ms=1500, tpot_ms=tpot_ms, utility=1)
    live = [started('act', CONTROL, 25, .1), started('talk', talk, 2, .1)]
    assert composed(latency, live)[0] == decoding


@pytest.mark.parametrize('useful, less_useful, tokens', [
    (CONTROL, DIALOGUE, 32),       # of 25 ms, a quarter of two TPOTs of control
    (CONTROL, CONTROL, 128),       # of 100 ms
    (DIALOGUE, DIALOGUE, 512)])    # of 500 ms
def test_who_is_more_useful_waits_for_no_long_chunk(useful, less_useful, tokens):
    latency = LatencyModel('no fixed cost', ((1, 4.0), (16, 10.0)), prefill_token_ms=.7)
    policy = make_policy('slice')
    done = Request('done', useful, 0.0, 10, 5)
    policy.plan(0.0, (done,), latency)
    done.end(State.FINISHED, .05)
    policy.finished(done)
    step = policy.plan(.1, (Request('long', less_useful, .1, 512, 25),), latency)
    assert [chunk.tokens for chunk in step.prefill] == [tokens]


@pytest.mark.parametrize('deadline_ms, first', [(1500, True), (0, False)])
def test_an_objective_in_reach_is_pursued_though_another_one_is_missed(deadline_ms, first):
    latency = LatencyModel('linear', ((1, 4.0), (16, 49.0)))
    late = replace(CONTROL, deadline_ms=deadline_ms)    # 8 tokens by 450 ms: not any more
    live = [started('late', late, 8, .1)] + [started(f'talk-{n}', DIALOGUE, 160, .9)
                                             for n in range(100)]
    assert (composed(latency, live, now=1.0)[0] == ['late']) == first


@pytest.mark.parametrize('left, first', [
    (3, []),          # 60 ms lost by 2, 35 ms, a chunk, by 100
    (24, ['talk'])])  # 480 ms lost
def test_a_prefill_that_can_wait_lets_more_useful_answers_end(left, first):
    latency = LatencyModel('linear', ((1, 20.0), (16, 50.0)), prefill_token_ms=.7)
    act = Request('act', CONTROL, 0.0, 40, 25)
    policy = make_policy('slice')
    policy.reveal(act, 1 + left)
    act.advance(40, .1)
    talk = Request('talk', replace(DIALOGUE, utility=2), .09, 400, 160)
    step = policy.plan(.1, (act, talk), latency)
    assert [c.request.id for c in step.prefill] == first
