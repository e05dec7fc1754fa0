# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The rule of each rival, on cases that are worked by hand.

A decode step over b requests takes 10 b ms, a prefill of n tokens 20 + n ms.
"""

import pytest
from slice_ros.request import Request, State
from slice_ros.scheduling.baselines.seen_lengths import SeenLengths
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import DEFAULT_CLASSES, SloClass

CONTROL, _, DIALOGUE = DEFAULT_CLASSES
LATENCY = LatencyModel('linear', ((1, 10), (16, 160)), prefill_base_ms=20, prefill_token_ms=1)
SHARED = LatencyModel('shared', ((1, 10), (16, 25)), prefill_base_ms=20, prefill_token_ms=1)
FREE = SloClass('free')


def waiting(slo, arrival=0.0, prompt=10, max_tokens=100):
    return Request(slo.name, slo, arrival, prompt, max_tokens)


def running(slo, tokens=1, arrival=0.0, max_tokens=100):
    """Return a request of 10 prompt tokens that has `tokens`, the first of them since time 0."""
    request = waiting(slo, arrival, 10, max_tokens)
    request.advance(10, 0.0)
    for _ in range(tokens - 1):
        request.advance(1, 0.0)
    return request


def fed(step):
    return [(chunk.request, chunk.tokens) for chunk in step.prefill]


def test_priority_preempts_the_last_of_a_full_batch_and_gives_up_its_cache():
    policy = make_policy('priority', Capacity(max_batch=2))
    first, second, control = running(DIALOGUE), running(DIALOGUE), waiting(CONTROL, 1.0)
    step = policy.plan(1.0, [first, second, control], LATENCY)
    assert (step.decode, fed(step), step.evict) == ((first,), [(control, 10)], (second,))
    second.evict()
    control.advance(10, 1.03)
    assert second.pending == 11   # all of it is computed anew
    step = policy.plan(1.03, [first, second, control], LATENCY)
    assert (set(step.decode), step.prefill, step.evict) == ({control, first}, (), ())


def test_priority_preempts_the_last_where_memory_is_short():
    # 25 tokens, 20 in use: control's 10 fit once the second dialogue has given up its own 10.
    policy = make_policy('priority', Capacity(kv_tokens=25))
    first, second, control = running(DIALOGUE), running(DIALOGUE), waiting(CONTROL, 1.0)
    step = policy.plan(1.0, [first, second, control], LATENCY)
    assert (step.decode, fed(step), step.evict) == ((first,), [(control, 10)], (second,))


@pytest.mark.parametrize('now, latency, together', [
    (.120, LATENCY, True),     # both end at 140 ms, in time for control's 150 ms
    (.135, LATENCY, False),    # both would end at 155 ms, control alone at 145 ms
    (.148, LATENCY, False),    # late: 2 * 10 ms of lateness more, to save 10 ms
    (.148, SHARED, True),      # late: 2 * 1 ms of lateness more, to save 9 ms
])
def test_edf_serves_the_earliest_due_and_those_it_has_the_time_for(now, latency, together):
    control = running(CONTROL, tokens=3)     # the next is due at 3 * 50 ms
    dialogue = running(DIALOGUE, tokens=1)   # at 250 ms
    step = make_policy('edf').plan(now, [dialogue, control], latency)
    assert step.decode == ((control, dialogue) if together else (control,))


def test_edf_orders_first_tokens_by_their_due_time_and_the_missed_last():
    policy = make_policy('edf', Capacity(max_batch=1))
    dialogue, control = waiting(DIALOGUE, 0.0), waiting(CONTROL, 0.9)   # due at 1.5 and 1.4 s
    assert fed(policy.plan(1.0, [dialogue, control], LATENCY)) == [(control, 10)]
    # 30 ms of prefill from 1.38 s on: control cannot make it any more, dialogue can.
    assert fed(policy.plan(1.38, [dialogue, control], LATENCY)) == [(dialogue, 10)]


@pytest.mark.parametrize('order, chunks', [('fcfs', (10, 10, 3)), ('class', (10, 3, 10))])
def test_sarathi_decodes_all_and_gives_prompts_the_rest_of_the_budget(order, chunks):
    policy = make_policy('sarathi', Capacity(prefill_chunk=25), order=order)
    decoding = [running(DIALOGUE), running(DIALOGUE)]   # 25 - 2 = 23 tokens for prompts
    new = [waiting(DIALOGUE, 1.0), waiting(DIALOGUE, 1.1), waiting(CONTROL, 1.2)]
    step = policy.plan(2.0, decoding + new, LATENCY)
    assert set(step.decode) == set(decoding)
    assert {request: tokens for request, tokens in fed(step)} == dict(zip(new, chunks))


def test_sarathi_does_not_stall_decodes_for_a_long_prompt():
    policy, decoding = make_policy('sarathi', Capacity(prefill_chunk=64)), running(DIALOGUE)
    long = waiting(DIALOGUE, 1.0, prompt=1000)
    for chunk in range(5):
        step = policy.plan(1.0 + chunk, [decoding, long], LATENCY)
        assert (step.decode, fed(step)) == ((decoding,), [(long, 63)])
        decoding.advance(1, 2.0 + chunk)
        long.advance(63, 2.0 + chunk)


def test_sarathi_refuses_an_order_that_it_does_not_know():
    with pytest.raises(ValueError, match='order must be one of fcfs, class, not .sjf.'):
        make_policy('sarathi', order='sjf')


def test_density_is_utility_per_second_of_remaining_work():
    policy = make_policy('density', Capacity(max_batch=1))
    # 10 / (30 ms + 100 * 10 ms) = 9.7 a second, and 1 / (30 ms + 2 * 10 ms) = 20 a second.
    useful = waiting(SloClass('useful', utility=10), max_tokens=101)
    short = waiting(SloClass('short'), max_tokens=3)
    assert fed(policy.plan(0.0, [useful, short], LATENCY)) == [(short, 10)]
    ended = running(useful.slo, tokens=2)
    ended.end(State.FINISHED, 0.0)
    policy.finished(ended)   # such answers have 2 tokens: 10 / (30 ms + 10 ms) = 250 a second
    assert fed(policy.plan(0.0, [useful, short], LATENCY)) == [(useful, 10)]


@pytest.mark.parametrize('tpot_ms, together', [(21, True), (19, False)])
def test_density_lets_others_join_within_the_pace_of_the_densest(tpot_ms, together):
    dense = running(SloClass('dense', tpot_ms=tpot_ms, utility=10))   # both: 20 ms a token
    other = running(SloClass('other', tpot_ms=250))
    step = make_policy('density').plan(0.0, [other, dense], LATENCY)
    assert step.decode == ((dense, other) if together else (dense,))


def test_density_starts_a_prefill_that_the_denser_can_spare_the_time_for():
    # 10 tokens are due by 120 or 240 ms. With the prefill and the other one in each step, they
    # take 30 ms + 10 * 20 ms = 230 ms.
    for tpot_ms, begins in ((12, False), (24, True)):
        dense = running(SloClass('dense', tpot_ms=tpot_ms, utility=10), max_tokens=11)
        new = waiting(FREE)
        step = make_policy('density').plan(0.0, [dense, new], LATENCY)
        assert (step.decode, bool(step.prefill)) == ((dense,), begins)


def test_scorpio_orders_by_first_due_and_rejects_what_cannot_make_it():
    # Each prefill takes 30 ms. In order of their due times: 30 <= 50, 60 <= 70, 90 > 80 (which is
    # rejected and takes no time), 90 <= 100.
    a, b, c, d = (waiting(SloClass(f'due{ms}', ttft_ms=ms)) for ms in (100, 50, 70, 80))
    step = make_policy('scorpio').plan(0.0, [a, b, c, d], LATENCY)
    assert (fed(step), step.drop) == ([(b, 10), (c, 10), (a, 10)], (d,))


def test_scorpio_admits_within_the_virtual_batch_size():
    # Least TPOT 40 ms. Three of 40 ms and n of 80 ms are a virtual batch of 3 + n / 2:
    # 35 ms, 40 ms, and with a third one 45 ms, which is too much.
    fast = [running(SloClass('fast', tpot_ms=40)) for _ in range(3)]
    slow = [waiting(SloClass('slow', tpot_ms=80), arrival=n / 10) for n in range(3)]
    step = make_policy('scorpio').plan(1.0, fast + slow, LATENCY)
    assert (set(step.decode), fed(step)) == (set(fast), [(slow[0], 10), (slow[1], 10)])


def test_scorpio_decodes_by_credits():
    # 50 / 125 = 0.4 credits a step: 0.4, 0.8, 1.2 (pays 1), 0.6, 1.0 (pays 1), and again.
    fast, slow = running(SloClass('fast', tpot_ms=50)), running(SloClass('slow', tpot_ms=125))
    policy, together = make_policy('scorpio'), []
    for step in range(10):
        decode = policy.plan(step / 20, [fast, slow], LATENCY).decode
        assert fast in decode
        together.append(slow in decode)
        for request in decode:
            request.advance(1, (step + 1) / 20)
    assert together == 2 * [False, False, True, False, True]


@pytest.mark.parametrize('tokens, begins', [(4, True), (2, False)])
def test_tempo_gives_just_enough_and_the_rest_to_others(tokens, begins):
    # At 50 ms, the next token is due at 200 ms: it can wait for the step after a prefill of
    # 20 + 112 ms. At 2 tokens it is due at 100 ms, and cannot.
    paced = running(SloClass('paced', ttft_ms=500, tpot_ms=50, utility=100), tokens)
    new = waiting(DIALOGUE, prompt=112)
    step = make_policy('tempo').plan(.05, [paced, new], LATENCY)
    assert (step.decode, fed(step)) == (((), [(new, 112)]) if begins else ((paced,), []))


@pytest.mark.parametrize('tpot_ms, begins', [(15, False), (25, True)])
def test_tempo_begins_no_more_than_its_steps_can_sustain(tpot_ms, begins):
    # Two at 15 ms a token need about 130 tokens a second, and steps of two give 100; two at
    # 25 ms need about 80. The time for the prefill itself is there in both cases.
    slo = SloClass('paced', tpot_ms=tpot_ms)
    step = make_policy('tempo').plan(.05, [running(slo, 10), waiting(slo, .05)], LATENCY)
    assert bool(step.prefill) == begins


def test_tempo_serves_the_densest_gain_first():
    # 100 / (30 ms + 99 * 10 ms) against 1 / (30 ms + 4 * 10 ms): 98 and 14 a second.
    policy = make_policy('tempo', Capacity(max_batch=1))
    useful, short = waiting(SloClass('useful', utility=100)), waiting(FREE, max_tokens=5)
    assert fed(policy.plan(0.0, [short, useful], LATENCY)) == [(useful, 10)]


def test_lengths_are_those_of_the_longer_answers_of_the_class():
    lengths, young, old = SeenLengths(), waiting(FREE), running(FREE, tokens=8)
    assert (lengths.mean(old), lengths.upper(old, .9)) == (100, 100)   # nothing seen: max_tokens
    for tokens in range(1, 11):
        answer = running(FREE, tokens)
        answer.end(State.FINISHED, 1.0)
        lengths.learn(answer)
    assert (lengths.mean(young), lengths.upper(young, .9)) == (5.5, 10)
    assert (lengths.mean(old), lengths.upper(old, .5)) == (9.5, 10)    # of 9 and 10
    cancelled = running(FREE, tokens=50)
    cancelled.end(State.CANCELLED, 1.0)
    lengths.learn(cancelled)
    assert lengths.mean(young) == 5.5
