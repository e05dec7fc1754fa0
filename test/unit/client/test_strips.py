# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Token strips: which cells get tokens, the values of the others, and that they stay bounded."""

import pytest
from slice_ros import msg
from slice_ros.client.strips import (
    BINS, FORGET_AFTER, GATED, IDLE, MAX_STRIPS, PAUSED, PREFILL, Strips, WAITING)


def chunk(tokens, request_id='a', finished=False):
    return msg.TokenChunk(request_id=request_id, tokens=tokens, finished=finished)


def status(state='running', tokens=0, request_id='a', gated=False):
    return msg.RequestStatus(request_id=request_id, slo_class='control', state=state,
                             output_tokens=tokens, gated=gated)


def cells(strips, now, request_id='a'):
    return next(list(s.cells) for s in strips.live(now) if s.request_id == request_id)


def test_a_cell_counts_the_tokens_that_came_in_it():
    strips = Strips()
    for tokens, at in ((1, 5.01), (2, 5.03), (3, 5.25), (4, 5.27), (5, 5.29)):
        strips.add_chunk('control', chunk(tokens), at)
    assert cells(strips, 5.45) == [2, IDLE, 3, IDLE, IDLE]


def test_a_chunk_that_was_lost_shows_in_the_next():
    strips = Strips()
    strips.add_chunk('control', chunk(1), 5.0)
    strips.add_chunk('control', chunk(4), 5.1)
    strips.add_chunk('control', chunk(3), 5.2)   # late: counted already
    assert cells(strips, 5.2) == [1, 3, IDLE]


@pytest.mark.parametrize('state, gated, code', [
    ('waiting', False, WAITING), ('prefill', False, PREFILL), ('paused', False, PAUSED),
    ('running', False, IDLE), ('running', True, GATED), ('unheard of', False, IDLE)])
def test_cells_without_a_token_show_the_last_known_state(state, gated, code):
    strips = Strips()
    strips.update([status(state, gated=gated)], 5.0)
    assert cells(strips, 5.25) == [code] * 3
    strips.add_chunk('control', chunk(1), 5.3)
    assert cells(strips, 5.45) == [code] * 3 + [1, IDLE]


def test_tokens_from_before_the_monitor_came_are_in_no_cell():
    strips = Strips()
    strips.update([status(tokens=50)], 5.0)
    strips.add_chunk('control', chunk(51), 5.1)
    strips.update([status(tokens=53)], 5.2)   # the status counts those that the topic missed
    assert cells(strips, 5.2) == [IDLE, 1, 2]


def test_a_request_that_has_ended_is_not_revived_by_a_late_status():
    strips = Strips()
    strips.add_chunk('control', chunk(3), 5.0)
    strips.add_chunk('control', chunk(4, finished=True), 5.1)
    strips.update([status(tokens=4)], 5.15)
    assert strips.live(5.2) == []
    strips.add_chunk('control', chunk(1, 'b'), 5.2)
    strips.end('b')
    strips.update([status(request_id='b')], 5.3)
    assert strips.live(5.3) == []


def test_a_request_without_messages_is_removed():
    strips = Strips()
    strips.update([status(), status(request_id='b')], 5.0)
    strips.update([status(request_id='b')], 5.5)
    assert len(strips.live(5.5)) == 2        # perhaps that status was made a little earlier
    strips.update([status(request_id='b')], 5.1 + FORGET_AFTER)
    assert [s.request_id for s in strips.live(5.1 + FORGET_AFTER)] == ['b']


def test_neither_time_nor_requests_make_it_grow():
    strips = Strips()
    for number in range(5 * MAX_STRIPS):
        strips.add_chunk('control', chunk(1, str(number)), 5.0)
    strips.add_chunk('control', chunk(2, 'last'), 1e9)
    live = strips.live(1e9)
    assert len(live) == MAX_STRIPS and live[-1].request_id == 'last'
    assert all(len(s.cells) <= BINS for s in live)
    strips.clear()
    assert strips.live(1e9) == []
