# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The state machine of a request, its progress and its timestamps."""

import math

import pytest
from slice_ros.errors import ErrorCode
from slice_ros.request import ENDED, Request, State
from slice_ros.slo import DEFAULT_CLASSES


def make(prompt=10, limit=5):
    return Request('r', DEFAULT_CLASSES[0], 100.0, prompt, limit)


def test_prefill_in_chunks_then_decode():
    request = make()
    assert (request.state, request.pending, request.decoding) == (State.WAITING, 10, False)
    assert not request.advance(4, 100.1)
    assert (request.state, request.pending, request.decoding) == (State.PREFILL, 6, False)
    assert request.advance(6, 100.2)
    assert (request.state, request.pending, request.decoding) == (State.RUNNING, 1, True)
    assert (request.generated, request.cached, request.context) == (1, 10, 11)
    assert request.advance(1, 100.25)
    assert (request.generated, request.cached, request.context) == (2, 11, 12)


def test_latencies_come_from_the_timestamps():
    request = make()
    assert math.isnan(request.ttft) and math.isnan(request.tpot) and math.isnan(request.completion)
    request.advance(10, 100.2)
    assert request.ttft == pytest.approx(.2)
    assert request.tpot == 0
    for now in (100.25, 100.4, 100.5):
        request.advance(1, now)
    assert request.tpot == pytest.approx(.1)       # 0.3 s for the three after the first
    assert request.completion == pytest.approx(.5)
    assert request.max_gap == pytest.approx(.15)


def test_eviction_prefills_the_whole_context_again():
    request = make()
    request.advance(10, 100.2)
    request.advance(1, 100.3)
    request.evict()
    assert (request.state, request.pending, request.decoding) == (State.WAITING, 12, False)
    assert not request.advance(11, 100.4)
    assert request.generated == 2
    assert request.advance(1, 100.5)
    assert (request.generated, request.first_token_at) == (3, 100.2)
    assert request.decoding


def test_the_last_token_of_an_interrupted_prefill_after_eviction_is_no_decode():
    request = make(prompt=1)
    assert request.pending == 1
    assert not request.decoding


def test_pause_keeps_the_cache():
    request = make()
    request.pause()
    assert request.state is State.WAITING
    request.advance(10, 100.2)
    request.pause()
    assert (request.state, request.cached, request.decoding) == (State.PAUSED, 10, True)
    request.advance(1, 100.3)
    assert request.state is State.RUNNING


@pytest.mark.parametrize('tokens', [0, -1, 11])
def test_only_pending_tokens_can_be_fed(tokens):
    with pytest.raises(ValueError, match='10 tokens pending'):
        make().advance(tokens, 100.1)


@pytest.mark.parametrize('state', sorted(ENDED, key=str))
def test_an_end_is_final(state):
    request = make()
    request.advance(10, 100.2)
    request.end(state, 100.3, ErrorCode.NONE)
    assert request.ended
    assert request.ended_at == 100.3
    with pytest.raises(ValueError, match='has ended'):
        request.advance(1, 100.4)
    with pytest.raises(ValueError, match='cannot go from'):
        request.end(State.FINISHED, 100.4)
    request.evict()
    assert request.state is state


@pytest.mark.parametrize('state', [State.WAITING, State.RUNNING, State.PAUSED, State.PREFILL])
def test_a_request_ends_in_a_final_state_only(state):
    with pytest.raises(ValueError, match='cannot go from waiting'):
        make().end(state, 100.3)


def test_report_tells_the_objectives_and_what_was_measured():
    request = make()
    request.advance(10, 100.2)
    request.advance(1, 100.25)
    request.end(State.FINISHED, 100.25)
    report = request.report()
    assert (report.request_id, report.slo, report.served) == ('r', DEFAULT_CLASSES[0], True)
    assert (report.prompt_tokens, report.output_tokens) == (10, 2)
    assert (report.ttft, report.tpot, report.completion, report.elapsed) == pytest.approx(
        (.2, .05, .25, .25))
    assert report.attained


def test_a_dropped_request_has_attained_nothing():
    request = make()
    request.end(State.FAILED, 100.4, ErrorCode.DEADLINE_MISSED)
    report = request.report()
    assert not report.served and not report.attained
    assert report.elapsed == pytest.approx(.4)
    assert math.isnan(report.completion)


def test_tokens_found_in_the_cache_need_not_be_fed():
    request = make()
    request.adopt(8)
    assert (request.cached, request.pending, request.state) == (8, 2, State.PREFILL)
    assert request.advance(2, 100.2)
    assert request.report().reused_tokens == 8
    request.evict()
    request.adopt(10)
    assert (request.pending, request.decoding) == (1, True)
    assert request.report().reused_tokens == 8  # its own tokens are no saving


@pytest.mark.parametrize('tokens', [0, -1, 10, 11])
def test_the_last_token_is_always_fed(tokens):
    with pytest.raises(ValueError, match='adopt'):
        make().adopt(tokens)


def test_a_request_that_holds_a_cache_takes_none_over():
    request = make()
    request.advance(3, 100.1)
    with pytest.raises(ValueError, match='3 of 10'):
        request.adopt(5)
