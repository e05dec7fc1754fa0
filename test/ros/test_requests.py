# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What callers of the node rely on, with the real model."""

import gc
import math
import uuid

from action_msgs.msg import GoalStatus
from conftest import CLASSES, get, LONG, wait_until
import pytest
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.errors import ErrorCode
from slice_ros.ros.calls import Call
from slice_ros.ros.isolation.workers import THREADS

Result = Generate.Result
SUCCEEDED, CANCELED, ABORTED = (
    GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED)
NEIGHBOUR = {'prompt': 'What does a robot do all day?', 'max_tokens': 12}


def user(content='Hello'):
    return msg.ChatMessage(role='user', content=content)


def test_error_codes_of_the_interface_are_those_of_the_core():
    codes = {name: value for name, value in vars(ErrorCode).items() if name.isupper()}
    for code in ErrorCode:
        assert getattr(Result, code.name) == code.value, codes


def test_the_action_streams_its_tokens_in_order_and_whole(caller):
    pieces = []
    handle = caller.send(feedback=lambda m: pieces.append(m.feedback),
                         prompt='Name three colours.', max_tokens=24)
    response = get(handle.get_result_async())
    result = response.result
    assert response.status == SUCCEEDED and result.error_code == Result.NONE
    assert result.finish_reason in ('stop', 'length') and result.text
    chunks = caller.chunks_of(result.request_id)
    assert [c.sequence for c in chunks] == list(range(len(chunks)))
    assert ''.join(c.text for c in chunks) == result.text
    assert [c.finished for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [c.tokens for c in chunks] == list(range(1, len(chunks) + 1))
    assert chunks[-1].finish_reason == result.finish_reason
    wait_until(lambda: len(pieces) == len(chunks))
    assert ''.join(p.text for p in pieces) == result.text
    report = caller.report_of(result.request_id)
    assert report == result.report
    assert report.slo.name == 'dialogue' and report.served
    assert report.output_tokens == len(chunks) and report.prompt_tokens > 3
    assert 0 < report.ttft_ms <= report.completion_ms


def test_the_same_prompt_gives_the_same_answer_every_way(caller):
    _, by_action = caller.ask(prompt='What is a wheel?', max_tokens=16)
    _, by_messages = caller.ask(messages=[user('What is a wheel?')], max_tokens=16)
    by_service = caller.call(caller.text, prompt='What is a wheel?', max_tokens=16,
                             slo_class='navigation', request_id='mine')
    caller.prompts['control'].publish(
        msg.Prompt(prompt='What is a wheel?', max_tokens=16, request_id='topic'))
    by_topic = caller.chunks_of('topic', 'control')
    assert by_action.text == by_messages.text == by_service.text
    assert ''.join(c.text for c in by_topic) == by_action.text
    assert by_service.request_id == 'mine' and by_service.report.slo.name == 'navigation'
    assert ''.join(c.text for c in caller.chunks_of('mine', 'navigation')) == by_service.text


def test_twelve_goals_of_three_classes_at_once(caller):
    handles = [caller.send(slo_class=CLASSES[i % 3], max_tokens=6 + i,
                           prompt=f'Tell me about the number {i}.') for i in range(12)]
    results = [get(handle.get_result_async()) for handle in handles]
    for i, response in enumerate(results):
        result = response.result
        assert response.status == SUCCEEDED, result.error_msg
        assert result.finish_reason == 'stop' or result.report.output_tokens == 6 + i
        chunks = caller.chunks_of(result.request_id, CLASSES[i % 3])
        assert ''.join(c.text for c in chunks) == result.text
    assert len({response.result.request_id for response in results}) == 12


@pytest.mark.parametrize('goal, code, word', [
    ({'prompt': ''}, Result.INVALID_REQUEST, 'empty'),
    ({'prompt': ' \n\t '}, Result.INVALID_REQUEST, 'empty'),
    ({'prompt': 'word ' * 600}, Result.PROMPT_TOO_LONG, 'tokens'),
    ({'prompt': 'hi', 'max_tokens': 400, 'messages': []}, Result.NONE, ''),
    ({'prompt': 'word ' * 300, 'max_tokens': 400}, Result.PROMPT_TOO_LONG, 'max_tokens'),
    ({'prompt': 'x' * 10_000_000}, Result.PROMPT_TOO_LONG, 'bytes'),
    ({'messages': [user('y' * 10_000_000)]}, Result.PROMPT_TOO_LONG, 'bytes'),
    ({'prompt': 'é' * 40_000}, Result.PROMPT_TOO_LONG, 'bytes'),
    ({'prompt': 'hi', 'slo_class': 'bogus'}, Result.UNKNOWN_SLO_CLASS, 'control'),
    ({'prompt': 'hi', 'slo_class': ''}, Result.UNKNOWN_SLO_CLASS, 'control'),
    ({'prompt': 'hi', 'ttft_ms': -1.0}, Result.INVALID_REQUEST, 'ttft_ms'),
    ({'prompt': 'hi', 'tpot_ms': math.nan}, Result.INVALID_REQUEST, 'tpot_ms'),
    ({'prompt': 'hi', 'deadline_ms': -math.inf}, Result.INVALID_REQUEST, 'deadline_ms'),
    ({'prompt': 'hi', 'max_tokens': 0}, Result.INVALID_REQUEST, 'max_tokens'),
    ({'prompt': 'hi', 'max_tokens': 401}, Result.INVALID_REQUEST, '400'),
    ({'messages': [msg.ChatMessage(role='boss', content='hi')]}, Result.INVALID_REQUEST, 'boss'),
    ({'messages': [user('')]}, Result.INVALID_REQUEST, 'empty'),
    ({'messages': [user()] * 257}, Result.INVALID_REQUEST, '256'),
    ({'prompt': 'hi', 'messages': [user()]}, Result.INVALID_REQUEST, 'both'),
    ({'prompt': 'hi', 'sampling': msg.SamplingParams(temperature=math.nan)},
     Result.INVALID_REQUEST, 'temperature'),
    ({'prompt': 'hi', 'sampling': msg.SamplingParams(biased_tokens=[1], biases=[101.0])},
     Result.INVALID_REQUEST, 'logit_bias'),
    ({'prompt': 'hi', 'sampling': msg.SamplingParams(biased_tokens=[1 << 30], biases=[1.0])},
     Result.INVALID_REQUEST, 'logit_bias'),
    ({'prompt': 'hi', 'sampling': msg.SamplingParams(biased_tokens=[1])},
     Result.INVALID_REQUEST, 'one for each'),
    ({'prompt': 'hi', 'sampling': msg.SamplingParams(biases=[1.0] * 1000)},
     Result.INVALID_REQUEST, '300'),
    ({'prompt': 'hi', 'sampling': msg.SamplingParams(temperature=-1.0)},
     Result.INVALID_REQUEST, 'temperature'),
    ({'prompt': 'hi', 'sampling': msg.SamplingParams(top_p=7.0)},
     Result.INVALID_REQUEST, 'top_p'),
    ({'prompt': 'hi', 'stop': ['']}, Result.INVALID_REQUEST, 'stop'),
    ({'prompt': 'hi', 'stop': ['a'] * 17}, Result.INVALID_REQUEST, '16'),
    ({'prompt': 'hi', 'stop': ['a' * 1000]}, Result.INVALID_REQUEST, '256'),
    ({'prompt': 'hi', 'session_id': 'a' * 129}, Result.INVALID_REQUEST, 'session_id'),
    ({'prompt': 'hi', 'session_id': 'a\nb'}, Result.INVALID_REQUEST, 'session_id'),
    ({'prompt': 'hi', 'reset_session': True}, Result.INVALID_REQUEST, 'session_id'),
    ({'session_id': 'long', 'prompt': 'word ' * 600}, Result.PROMPT_TOO_LONG, 'tokens'),
    ({'session_id': 'b', 'messages': [user(), msg.ChatMessage(role='system', content='x')]},
     Result.INVALID_REQUEST, 'system'),
    ({'prompt': 'hi', 'response_format': msg.ResponseFormat(type='xml')},
     Result.INVALID_REQUEST, 'xml')])
def test_bad_input_gets_its_code_and_a_sentence_and_nobody_else_notices(
        caller, goal, code, word):
    neighbour = caller.send(**NEIGHBOUR).get_result_async()
    status, result = caller.ask(**{'max_tokens': 8, **goal})
    assert result.error_code == code, result.error_msg
    assert get(neighbour).status == SUCCEEDED
    if code == Result.NONE:
        return
    assert status == ABORTED and word in result.error_msg and not result.text
    assert len(result.error_msg) < 300 and result.finish_reason == 'error'
    by_service = caller.call(caller.text, **{'slo_class': 'dialogue', **goal})
    assert (by_service.error_code, by_service.error_msg) == (code, result.error_msg)


def test_a_bad_prompt_on_a_topic_is_reported_on_the_tokens_topic(caller):
    caller.prompts['dialogue'].publish(msg.Prompt(request_id='bad'))
    chunk, = caller.chunks_of('bad')
    assert chunk.error_code == Result.INVALID_REQUEST and 'empty' in chunk.error_msg
    caller.prompts['dialogue'].publish(msg.Prompt(prompt='hi', request_id='i' * 1000))
    wait_until(lambda: any('request_id' in c.error_msg for c in caller.chunks['dialogue']))


def test_a_cancelled_goal_stops_computing_and_ends_canceled(node, caller, slow_steps):
    handle = caller.send(**LONG)
    neighbour = caller.send(**NEIGHBOUR)
    request_id = str(uuid.UUID(bytes=bytes(handle.goal_id.uuid)))
    wait_until(lambda: any(c.request_id == request_id for c in caller.chunks['dialogue']))
    request, = (r for r in node.server.snapshot().requests if r.id == request_id)
    assert len(get(handle.cancel_goal_async()).goals_canceling) == 1
    response = get(handle.get_result_async())
    assert response.status == CANCELED
    assert response.result.error_code == Result.CANCELLED
    assert response.result.finish_reason == 'cancelled' and response.result.text
    assert not response.result.report.attained
    at = request.generated
    assert at < 400 and request.cached <= request.context
    assert get(neighbour.get_result_async()).status == SUCCEEDED
    assert request.generated == at
    assert all(r.id != request_id for r in node.server.snapshot().requests)
    assert caller.chunks_of(request_id)[-1].finish_reason == 'cancelled'


def test_a_finished_goal_cannot_be_cancelled(caller):
    handle = caller.send(prompt='Hi', max_tokens=2)
    assert get(handle.get_result_async()).status == SUCCEEDED
    assert not get(handle.cancel_goal_async()).goals_canceling


def test_calls_that_are_over_are_forgotten(node, caller):
    def ended():
        gc.collect()
        return sum(isinstance(each, Call) and each.done.done() for each in gc.get_objects())
    before = ended()   # those of tests before, to which tracebacks refer
    for fields in ({'max_tokens': 2}, {'prompt': ''}) * 10:
        get(caller.send(**{**NEIGHBOUR, **fields}).get_result_async())
    # Each of the workers and the delivery thread still refers to the last that it had.
    wait_until(lambda: ended() <= before + THREADS + 1)


def test_cancel_by_id_and_by_class(caller, slow_steps):
    futures = [caller.text.call_async(caller.text.srv_type.Request(
        slo_class='dialogue', request_id=f'long {i}', **LONG)) for i in range(3)]
    control = caller.send(slo_class='control', prompt='Stop or go?', max_tokens=20)
    wait_until(lambda: caller.call(caller.status).scheduler.classes[2].live == 3)
    assert caller.call(caller.canceller, request_id='long 1').cancelled == ['long 1']
    assert get(futures[1]).error_code == Result.CANCELLED
    assert list(caller.call(caller.canceller, request_id='long 1').cancelled) == []
    cancelled = caller.call(caller.canceller, slo_class='dialogue').cancelled
    assert sorted(cancelled) == ['long 0', 'long 2']
    assert get(futures[0]).error_code == get(futures[2]).error_code == Result.CANCELLED
    assert get(control.get_result_async()).status == SUCCEEDED
    assert caller.call(caller.canceller).error_code == Result.INVALID_REQUEST
    assert caller.call(caller.canceller, slo_class='x').error_code == Result.UNKNOWN_SLO_CLASS


def test_goals_above_the_queue_get_queue_full_and_the_rest_are_served(
        node, caller, slow_steps):
    server = node.server
    # Fewer slots than goals, so that some wait for certain.
    futures = [caller.text.call_async(caller.text.srv_type.Request(
        slo_class='dialogue', request_id=f'crowd {i}', **LONG)) for i in range(80)]
    wait_until(lambda: sum(f.done() for f in futures) >= 20)
    full = [f.result() for f in futures if f.done()]
    assert {r.error_code for r in full} == {Result.QUEUE_FULL}
    assert len(server.snapshot().requests) <= 40 + 16
    caller.call(caller.canceller, slo_class='dialogue')
    slow_steps.end()
    codes = [get(f).error_code for f in futures]
    # The last: of those that were served to their last token meanwhile.
    assert set(codes) <= {Result.QUEUE_FULL, Result.CANCELLED, Result.FORMAT_INCOMPLETE}
    status, _ = caller.ask(prompt='Still there?')
    assert status == SUCCEEDED


def test_objectives_of_a_goal_replace_those_of_its_class(caller):
    _, result = caller.ask(slo_class='control', prompt='Go?', max_tokens=3, ttft_ms=0.001,
                           tpot_ms=math.inf)
    slo = result.report.slo
    assert slo.ttft_ms == pytest.approx(0.001) and slo.tpot_ms == 0
    assert slo.deadline_ms == 1500 and slo.utility == 100
    assert not result.report.ttft_met and result.report.tpot_met
    assert result.error_code == Result.NONE and not result.report.attained


def test_a_stop_text_ends_the_answer_before_it(caller):
    _, plain = caller.ask(prompt='Count: one, two, three,', max_tokens=30)
    word = plain.text.split()[1]
    _, result = caller.ask(prompt='Count: one, two, three,', max_tokens=30, stop=[word])
    assert result.text == plain.text[:plain.text.index(word)]
    assert result.finish_reason == 'stop'
