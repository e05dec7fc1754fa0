# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Every request of a class counts in it once, however and wherever it ends."""

import math

from conftest import get, live, LONG, wait_until
import pytest
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.engine import opening
from slice_ros.ros import conversions
from slice_ros.ros.isolation.workers import Workers
from slice_ros.serving import Server
from slice_ros.serving.sessions import Sessions

Result = Generate.Result


@pytest.fixture
def counted(node):
    """Return a function: how much the counters of dialogue have grown, once nothing lives."""
    def counters():
        wait_until(lambda: not node.requests.live and not live(node))
        found = node.server.snapshot().classes['dialogue']
        ends = {name: getattr(found, name)
                for name in ('finished', 'cancelled', 'failed', 'rejected')}
        assert found.received == sum(ends.values())
        return ends
    before = counters()
    return lambda: {name: number - before[name] for name, number in counters().items()
                    if number > before[name]}


@pytest.mark.parametrize('fields', [
    {'prompt': ''}, {'max_tokens': 0}, {'max_tokens': 100_000}, {'ttft_ms': math.nan},
    {'prompt': 'word ' * 3000}, {'prompt': 'x' * 70_000}, {'stop': [''] * 3},
    {'request_id': 'a\nb'}, {'session_id': 'a\nb'}, {'session_id': 'long', 'max_tokens': 399,
                                                     'prompt': 'word ' * 300},
    {'response_format': msg.ResponseFormat(type='json_schema', grammar='[')},
    {'response_format': msg.ResponseFormat(type='regex', grammar='(')}],
    ids=lambda fields: str(fields)[:40])
def test_a_refusal_of_what_was_sent_counts_as_rejected_by_every_way_in(caller, counted, fields):
    fields = {'prompt': 'Hi', 'max_tokens': 2, **fields}
    answer = caller.call(caller.text, slo_class='dialogue', **fields)
    assert answer.error_code and answer.report.slo.name == 'dialogue'
    assert counted() == {'rejected': 1}
    if 'request_id' not in fields:   # an action has an id of its own
        assert caller.ask(**fields)[1].error_code == answer.error_code
        assert counted() == {'rejected': 2}
    caller.prompts['dialogue'].publish(msg.Prompt(**fields))
    wait_until(lambda: counted()['rejected'] == 3 - ('request_id' in fields))


@pytest.mark.parametrize('owner, name', [
    (conversions, 'slo_class'), (conversions, 'messages'), (Workers, 'submit'),
    (Sessions, 'begin'), (opening, 'checked_stops'), (Server, 'check')],
    ids=lambda each: getattr(each, '__name__', each))
def test_a_fault_of_the_node_counts_as_rejected(caller, counted, monkeypatch, owner, name):
    def fail(*arguments, **options):
        raise RuntimeError('unforeseen')
    monkeypatch.setattr(owner, name, fail)
    result = caller.ask(prompt='Hi', session_id='faulty' if owner is Sessions else '')[1]
    assert result.error_code == Result.ENGINE_FAILURE
    assert counted() == {'rejected': 1}


def test_a_second_request_with_the_id_of_a_live_one_or_in_its_session_counts(
        caller, slow_steps, counted):
    first = caller.text.call_async(caller.text.srv_type.Request(
        slo_class='dialogue', request_id='one', session_id='busy', **LONG))
    wait_until(lambda: any(c.request_id == 'one' for c in caller.chunks['dialogue']))
    answers = [caller.call(caller.text, slo_class='dialogue', request_id=request_id,
                           session_id='busy', **LONG) for request_id in ('one', 'two')]
    assert [a.error_code for a in answers] == [Result.INVALID_REQUEST, Result.SESSION_BUSY]
    caller.call(caller.canceller, request_id='one')
    assert get(first).error_code == Result.CANCELLED
    assert counted() == {'cancelled': 1, 'rejected': 2}


def test_a_full_queue_of_unread_requests_counts_whom_it_refuses_and_whom_it_drops(
        node, caller, counted):
    """Nobody reads: the first ends for a more useful one, the last finds no room."""
    most, waiting = node.settings.server.max_queued, node.workers._waiting
    start, node.workers._start_thread = node.workers._start_thread, lambda: None
    threads, node.workers._next = node.workers._next, lambda: None
    try:
        unread = [caller.text.call_async(caller.text.srv_type.Request(
            slo_class='dialogue', prompt='Hi', max_tokens=1)) for _ in range(most)]
        wait_until(lambda: len(waiting) == most)
        assert caller.ask(prompt='One more')[1].error_code == Result.QUEUE_FULL
        urgent = caller.send(slo_class='control', prompt='Go?', max_tokens=1)
        wait_until(lambda: any(each.done() for each in unread))
        assert len(caller.call(caller.canceller, slo_class='dialogue').cancelled) == most - 1
    finally:
        node.workers._start_thread, node.workers._next = start, threads
    caller.ask(slo_class='control', prompt='Go?', max_tokens=1)   # wakes the workers
    assert get(urgent.get_result_async()).result.error_code == Result.NONE
    assert counted() == {'rejected': 2, 'cancelled': most - 1}
    codes = sorted(get(each).error_code for each in unread)
    assert codes == [Result.QUEUE_FULL, *[Result.CANCELLED] * (most - 1)]
