# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The engine counts progress in the caller's request, once, and when the device is done."""

import pytest
from slice_ros.engine import Sampling
from slice_ros.request import Request, State
from slice_ros.slo import SloClass

GREEDY = Sampling()
PROMPT = [n % 250 for n in range(40)]


def request(max_tokens=4):
    return Request('r', SloClass('dialogue'), 1.0, len(PROMPT), max_tokens)


def counts(sequence):
    r = sequence.request
    found = (r.cached, r.generated, r.pending)
    assert (sequence.cached, sequence.generated, sequence.pending) == found
    assert len(sequence.tokens) == r.context
    return found


def test_steps_advance_the_request_and_stamp_it_when_the_device_is_done(tiny_engine):
    sequence = tiny_engine.open(PROMPT, 4, GREEDY, request=request())
    ours = sequence.request
    order, times = [], iter((5.0, 7.0))

    def clock():
        order.append('clock')
        return next(times)

    def collect(n):
        launched = tiny_engine.launch([(sequence, n)])
        return tiny_engine.collect(launched._replace(
            rows=lambda: order.append('device') or launched.rows()), clock)
    assert collect(30) == (5.0, [])
    assert counts(sequence) == (30, 0, 10) and ours.state is State.PREFILL
    at, (output,) = collect(10)
    assert at == ours.first_token_at == 7.0 and output.token == sequence.tokens[-1]
    assert counts(sequence) == (40, 1, 1) and ours.state is State.RUNNING
    assert order == ['device', 'clock'] * 2


def test_a_device_that_fails_leaves_every_request_as_it_was(tiny_engine):
    live = [tiny_engine.open(PROMPT, 4, GREEDY, request=request()) for _ in range(2)]
    tiny_engine.step([(s, 30) for s in live])
    failed = tiny_engine.launch([(s, 10) for s in live])._replace(rows=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny_engine.collect(failed)
    assert [counts(s) for s in live] == [(30, 0, 10)] * 2
    tiny_engine.step([(s, 10) for s in live])
    assert [counts(s) for s in live] == [(40, 1, 1)] * 2


def test_eviction_and_adoption_are_counted_in_the_request(tiny_engine):
    sequence = tiny_engine.open(PROMPT, 4, GREEDY, request=request())
    tiny_engine.step([(sequence, 40)])
    tiny_engine.evict(sequence)
    assert counts(sequence) == (0, 1, 41) and sequence.request.state is State.WAITING
    assert tiny_engine.adopt(sequence) == 40
    assert counts(sequence) == (40, 1, 1)
    twin = tiny_engine.open(PROMPT, 4, GREEDY, request=request())
    assert tiny_engine.adopt(twin) == 39 == twin.request.reused == twin.reused


def test_an_ended_request_gives_its_slot_back_and_takes_part_in_no_step(tiny_engine):
    sequence = tiny_engine.open(PROMPT, 4, GREEDY, request=request())
    tiny_engine.step([(sequence, 40)])
    sequence.request.end(State.CANCELLED, 9.0)
    with pytest.raises(ValueError, match='ended'):
        tiny_engine.launch([(sequence, 1)])
    tiny_engine.close(sequence)
    assert tiny_engine._slots.free == 4 and sequence.slot is None
    assert tiny_engine.adopt(tiny_engine.open(PROMPT, 4, GREEDY)) == 39  # its prefix is kept


def test_a_request_of_another_prompt_is_refused(tiny_engine):
    with pytest.raises(ValueError, match='40 prompt tokens, not 3'):
        tiny_engine.open([1, 2, 3], 4, GREEDY, request=request())


def test_without_a_request_the_engine_makes_one(tiny_engine):
    sequence = tiny_engine.open(PROMPT, 3, GREEDY)
    assert (sequence.prompt_tokens, sequence.max_tokens) == (40, 3)
    while not sequence.finish_reason:
        tiny_engine.step([(sequence, sequence.pending)])
    assert sequence.request.generated == 3


def test_an_answer_may_be_scripted_shorter_than_its_request(tiny_engine):
    sequence = tiny_engine.open(PROMPT, 2, GREEDY, request=request(max_tokens=9))
    while not sequence.finish_reason:
        tiny_engine.step([(sequence, sequence.pending)])
    assert (sequence.max_tokens, sequence.generated) == (9, 2)
