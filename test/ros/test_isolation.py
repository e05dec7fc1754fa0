# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One caller beside another: long work blocks nobody, and nothing of one reaches the other."""

import threading
import time

from action_msgs.msg import GoalStatus
from conftest import get, live, LONG, wait_until
import pytest
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.engine.text.grammar import Grammars
from slice_ros.ros.isolation.workers import HEAVY_THREADS, THREADS
from slice_ros.serving import Server

Result = Generate.Result
NEIGHBOUR = {'prompt': 'What does a robot do all day?', 'max_tokens': 6, 'slo_class': 'control'}
STORY = {'prompt': 'Tell me a long story about a robot in a warehouse.', 'max_tokens': 300}
SLOW = 'This takes very long to read.'
UNREAD = 110.0   # seconds that it takes at most: no test waits so long for anything
MEGABYTES = 'x' * 8_000_000


@pytest.fixture
def slow(node, monkeypatch):
    """Have the template, a grammar and a prediction of `SLOW` take until the event is set."""
    event, encode = threading.Event(), node.engine.encode_chat
    compiled, predict = Grammars.compile, Server.predict

    def encoded(messages, *asked):
        if any(content == SLOW for _, content, *_ in messages):
            event.wait(UNREAD)
        return encode(messages, *asked)

    def compile_(grammars, wanted):
        if SLOW in wanted.choices:
            event.wait(UNREAD)
        return compiled(grammars, wanted)

    def predicted(server, slo, tokens, max_tokens, *more):
        if max_tokens == 77:
            event.wait(UNREAD)
        return predict(server, slo, tokens, max_tokens, *more)
    monkeypatch.setattr(node.engine, 'encode_chat', encoded)
    monkeypatch.setattr(Grammars, 'compile', compile_)
    monkeypatch.setattr(Server, 'predict', predicted)
    yield event
    event.set()
    wait_until(lambda: not node.requests.live and not node.requests.preparation)


def formatted(*choices):
    return msg.ResponseFormat(type='choice', choices=choices)


@pytest.mark.parametrize('fields', [
    {'prompt': SLOW}, {'prompt': SLOW, 'session_id': 'slow', 'reset_session': True},
    {'prompt': 'Go?', 'response_format': formatted(SLOW, 'STOP')}], ids=str)
def test_while_one_request_is_read_the_others_are_answered(node, caller, slow, fields):
    waiting = caller.send(**fields).get_result_async()
    wait_until(lambda: len(node.requests.preparation) == 1)
    assert caller.call(caller.status).state == 'ready'
    assert caller.ask(**NEIGHBOUR)[0] == GoalStatus.STATUS_SUCCEEDED
    assert caller.call(caller.admission, prompt='Hi', slo_class='control').prompt_tokens
    assert not waiting.done()
    slow.set()
    assert get(waiting).result.error_code == Result.NONE


def test_a_prediction_that_takes_long_blocks_nobody(caller, slow):
    asked = caller.admission.call_async(caller.admission.srv_type.Request(
        prompt='Hi', slo_class='control', max_tokens=77))
    assert caller.call(caller.admission, prompt='Hi', slo_class='control').prompt_tokens
    assert caller.ask(**NEIGHBOUR)[0] == GoalStatus.STATUS_SUCCEEDED
    assert not asked.done()
    slow.set()
    assert get(asked).prompt_tokens


@pytest.mark.parametrize('fields', [
    {'prompt': SLOW}, {'prompt': SLOW, 'session_id': 'slow', 'reset_session': True},
    {'prompt': 'Go?', 'response_format': formatted(SLOW, 'STOP')}], ids=str)
def test_a_cancel_ends_a_goal_that_is_being_read_at_once(node, caller, slow, fields):
    handle = caller.send(**fields)
    wait_until(lambda: len(node.requests.preparation) == 1)
    assert len(get(handle.cancel_goal_async()).goals_canceling) == 1
    response = get(handle.get_result_async())   # the worker is not done yet
    assert response.status == GoalStatus.STATUS_CANCELED
    result = response.result
    assert (result.error_code, result.finish_reason) == (Result.CANCELLED, 'cancelled')
    chunk, = caller.chunks_of(result.request_id)
    assert chunk.finish_reason == 'cancelled'
    slow.set()
    wait_until(lambda: not live(node))
    again = caller.ask(**{**fields, 'prompt': 'Hello'})[1]
    assert again.error_code == Result.NONE
    assert len(caller.chunks_of(result.request_id)) == 1   # and nothing after its end


def test_cancel_lists_what_is_being_read_and_only_what_ends_as_cancelled(node, caller, slow):
    counted = node.server.snapshot().classes['dialogue'].cancelled
    asked = {name: caller.text.call_async(caller.text.srv_type.Request(
        slo_class='dialogue', request_id=name, prompt=SLOW, max_tokens=4))
        for name in ('one', 'two', 'three')}
    wait_until(lambda: len(node.requests.preparation) == 3)
    assert list(caller.call(caller.canceller, request_id='one').cancelled) == ['one']
    listed = caller.call(caller.canceller, slo_class='dialogue').cancelled
    assert sorted(listed) == ['three', 'two']
    assert {get(each).error_code for each in asked.values()} == {Result.CANCELLED}
    assert list(caller.call(caller.canceller, request_id='one').cancelled) == []
    slow.set()
    wait_until(lambda: node.server.snapshot().classes['dialogue'].cancelled == counted + 3)


def test_every_request_that_cancel_lists_ends_as_cancelled(caller):
    """Cancels that come about when the last token is sampled."""
    for number in range(30):
        answer = caller.text.call_async(caller.text.srv_type.Request(
            slo_class='control', request_id=f'race {number}', prompt='Hi', max_tokens=2))
        time.sleep(number * 0.003)
        listed = list(caller.call(caller.canceller, request_id=f'race {number}').cancelled)
        assert (get(answer).error_code == Result.CANCELLED) == (listed == [f'race {number}'])


def test_requests_of_one_session_stay_in_order_while_the_first_is_read(
        node, caller, slow, slow_steps):
    first = caller.send(prompt=SLOW, session_id='order', max_tokens=60)
    wait_until(lambda: len(node.requests.preparation) == 1)
    second = caller.send(prompt='Hello', session_id='order')
    slow.set()
    assert get(second.get_result_async()).result.error_code == Result.SESSION_BUSY
    slow_steps.end()
    assert get(first.get_result_async()).result.error_code == Result.NONE


def test_a_full_queue_of_unread_requests_refuses_at_once_but_not_the_more_useful(
        node, caller, slow):
    blocking = [caller.send(prompt=SLOW, max_tokens=2) for _ in range(THREADS)]
    wait_until(lambda: len(node.workers._running) == THREADS)
    most = node.settings.server.max_queued
    waiting = [caller.text.call_async(caller.text.srv_type.Request(
        slo_class='dialogue', prompt='Hi', max_tokens=1)) for _ in range(most)]
    wait_until(lambda: len(node.workers._waiting) == most)
    assert caller.ask(prompt='One more')[1].error_code == Result.QUEUE_FULL
    urgent = caller.send(**NEIGHBOUR)
    wait_until(lambda: any(each.done() for each in waiting))
    assert [each.result().error_code for each in waiting if each.done()] == [Result.QUEUE_FULL]
    caller.call(caller.canceller, slo_class='dialogue')
    slow.set()
    assert get(urgent.get_result_async()).status == GoalStatus.STATUS_SUCCEEDED
    assert {get(each).error_code for each in waiting} == {Result.CANCELLED, Result.QUEUE_FULL}
    codes = {get(handle.get_result_async()).result.error_code for handle in blocking}
    assert codes == {Result.CANCELLED}


def test_heavy_requests_leave_a_thread_to_the_others(node, caller, slow):
    words = [f'{SLOW} {"x" * 100} {number}' for number in range(60)]
    heavy = [caller.send(prompt='Go?', response_format=formatted(SLOW, *words), max_tokens=1)
             for _ in range(THREADS + 1)]
    wait_until(lambda: len(node.workers._running) == HEAVY_THREADS)
    assert caller.ask(**NEIGHBOUR)[0] == GoalStatus.STATUS_SUCCEEDED
    slow.set()
    for handle in heavy:
        assert get(handle.get_result_async()).result.finish_reason


def test_nothing_is_published_under_the_id_of_another(node, caller, slow_steps):
    """Refused by a prompt, a service call, and fields that are refused for themselves."""
    owner = caller.text.call_async(caller.text.srv_type.Request(
        slo_class='dialogue', request_id='mine', **STORY))
    wait_until(lambda: any(c.request_id == 'mine' for c in caller.chunks['dialogue']))
    slow_steps.pause = UNREAD   # nothing else needs a step
    for fields in ({'prompt': 'Hi'}, {'prompt': ''}, {'prompt': MEGABYTES},
                   {'prompt': 'Hi', 'session_id': 'a\nb'}, {'prompt': 'Hi', 'max_tokens': 0}):
        for name in ('dialogue', 'control'):
            caller.prompts[name].publish(msg.Prompt(request_id='mine', **fields))
            refused = caller.call(caller.text, slo_class=name, request_id='mine', **fields)
            assert refused.error_code == Result.INVALID_REQUEST
            assert 'live' in refused.error_msg and not refused.text
    assert not owner.done()
    slow_steps.end()
    result = get(owner)
    assert result.error_code == Result.NONE
    chunks = caller.chunks_of('mine')
    assert [c.sequence for c in chunks] == list(range(len(chunks)))
    assert ''.join(c.text for c in chunks) == result.text
    assert [c.finished for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert not [c for c in caller.chunks['control'] if c.request_id == 'mine']
    assert [r for r in caller.reports if r.request_id == 'mine'] == [result.report]


def test_an_id_is_free_again_once_its_request_has_ended(caller):
    for _ in range(3):
        answer = caller.call(caller.text, slo_class='control', request_id='again', prompt='Hi',
                             max_tokens=2)
        assert answer.error_code == Result.NONE
    bad = caller.call(caller.text, slo_class='control', request_id='again', prompt='')
    assert bad.error_code == Result.INVALID_REQUEST
    assert caller.chunks_of('again', 'control')[-1].error_code == Result.INVALID_REQUEST


FIELDS = {
    'slo_class': {'slo_class': MEGABYTES}, 'session_id': {'session_id': MEGABYTES},
    'prompt': {'prompt': MEGABYTES}, 'stop': {'stop': [MEGABYTES]},
    'stops': {'stop': ['a'] * 1_000_000},
    'content': {'messages': [msg.ChatMessage(role='user', content=MEGABYTES)]},
    'role': {'messages': [msg.ChatMessage(role=MEGABYTES, content='Hi')]},
    'messages': {'messages': [msg.ChatMessage(role='user', content='Hi')] * 10_000},
    'grammar': {'response_format': msg.ResponseFormat(type='regex', grammar=MEGABYTES)},
    'type': {'response_format': msg.ResponseFormat(type=MEGABYTES)},
    'choice': {'response_format': msg.ResponseFormat(type='choice', choices=[MEGABYTES])},
    'choices': {'response_format': msg.ResponseFormat(type='choice', choices=['a'] * 1_000_000)}}


@pytest.mark.parametrize('name', FIELDS)
def test_a_field_of_megabytes_is_refused_by_its_length_and_not_kept(node, caller, name):
    fields = {'slo_class': 'dialogue', **FIELDS[name]}
    fields.setdefault('prompt', '' if 'messages' in fields else 'Hi')
    for result in (caller.ask(**fields)[1], caller.call(caller.text, **fields)):
        assert result.error_code in (Result.INVALID_REQUEST, Result.UNKNOWN_SLO_CLASS,
                                     Result.PROMPT_TOO_LONG)
        assert len(str(result)) < 4000 and len(result.error_msg) < 600
    kept = [handle.request for handle in node.requests._goals.action._goal_handles.values()]
    assert kept and all(goal == Generate.Goal(prompt='', slo_class='', max_tokens=goal.max_tokens)
                        for goal in kept)
    for client, request in ((caller.admission, {'slo_class': 'dialogue'}),
                            (caller.canceller, {})):
        request.update({key: value for key, value in FIELDS[name].items()
                        if hasattr(client.srv_type.Request(), key)})
        if request:
            assert len(caller.call(client, **request).error_msg) < 600
    assert len(caller.call(caller.canceller, request_id=MEGABYTES).error_msg) < 600


def test_goals_are_emptied_as_soon_as_they_are_read(node, caller, slow_steps):
    handle = caller.send(**STORY, session_id='emptied', stop=['never said'],
                         messages=[], sampling=msg.SamplingParams(seed=5))
    wait_until(lambda: live(node))
    kept = next(each for each in node.requests._goals.action._goal_handles.values()
                if bytes(each.goal_id.uuid) == bytes(handle.goal_id.uuid)).request
    assert kept == Generate.Goal(max_tokens=kept.max_tokens)
    get(handle.cancel_goal_async())
    get(handle.get_result_async())


def test_no_session_id_is_published(node, caller, slow_steps, caplog, capfd):
    secret = 'the-secret-session'
    handle = caller.send(session_id=secret, **LONG)
    wait_until(lambda: any(r.session_id for s in caller.states for r in s.requests))
    busy = caller.ask(session_id=secret, prompt='Me too')[1]
    assert busy.error_code == Result.SESSION_BUSY
    get(handle.cancel_goal_async())
    report = get(handle.get_result_async()).result.report
    public = report.session_id
    assert public and public == busy.report.session_id and len(public) <= 16
    wait_until(lambda: any(r.session_id == public for r in caller.reports))
    for received in (caller.states, caller.reports, caller.chunks['dialogue'],
                     caller.call(caller.status)):
        assert secret not in str(received)
    assert secret not in caplog.text and secret not in ''.join(capfd.readouterr())
    other = caller.ask(session_id='another', prompt='Hi', max_tokens=1)[1].report.session_id
    assert other not in ('', public, 'another')
