# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Conversations and spoken sentences over ROS, with the real model."""

from conftest import get, LONG, subscribers, wait_until
import pytest
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.ros.class_topics import SENTENCES
from std_msgs.msg import String

Result = Generate.Result
STORY = {'prompt': 'Tell me a long story about a robot in a warehouse.', 'max_tokens': 300}


def clean(text):
    return ''.join(text.split())


def test_a_session_is_one_conversation_whichever_way_it_comes(node, caller):
    first = caller.ask(session_id='ada', prompt='My name is Ada.', max_tokens=12)[1]
    assert first.error_code == Result.NONE, first.error_msg
    public = first.report.session_id
    assert public and public != 'ada'
    second = caller.call(caller.text, session_id='ada', prompt='What is my name?', max_tokens=12,
                         slo_class='control')
    report = second.report
    kept = first.report.prompt_tokens + first.report.output_tokens
    assert report.prompt_tokens > kept and report.reused_tokens >= kept - 32
    whole = [msg.ChatMessage(role='user', content='My name is Ada.'),
             msg.ChatMessage(role='assistant', content=first.text),
             msg.ChatMessage(role='user', content='What is my name?')]
    assert caller.ask(messages=whole, max_tokens=12)[1].text == second.text
    caller.prompts['dialogue'].publish(msg.Prompt(
        request_id='third', session_id='ada', prompt='Thank you.', max_tokens=4))
    third = caller.report_of('third')
    assert third.reused_tokens > report.prompt_tokens and third.session_id == public
    assert caller.call(caller.status).scheduler.sessions == 1
    fresh = caller.ask(session_id='ada', prompt='Hi', max_tokens=4, reset_session=True)[1]
    assert fresh.report.prompt_tokens < first.report.prompt_tokens


def test_a_busy_session_is_refused_at_once_and_survives_a_cancel(node, caller, slow_steps):
    before = caller.ask(session_id='bob', prompt='My name is Bob.', max_tokens=8)[1].report
    handle = caller.send(session_id='bob', **LONG)
    wait_until(lambda: any(r.session_id == before.session_id and r.output_tokens for r in
                           caller.call(caller.status).scheduler.requests))
    busy = caller.ask(session_id='bob', prompt='Hello?')[1]
    assert busy.error_code == Result.SESSION_BUSY and 'reset_session' in busy.error_msg
    assert busy.report.session_id == before.session_id and 'bob' not in str(busy)
    assert caller.ask(session_id='eve', prompt='Hello?', max_tokens=2)[1].error_code == 0
    get(handle.cancel_goal_async())
    assert get(handle.get_result_async()).result.error_code == Result.CANCELLED
    after = caller.ask(session_id='bob', prompt='What is my name?', max_tokens=8)[1]
    assert after.error_code == Result.NONE
    kept = before.prompt_tokens + before.output_tokens
    assert kept < after.report.prompt_tokens < kept + 20
    assert after.report.reused_tokens >= kept - 32


def test_a_reset_ends_the_live_turn(node, caller, slow_steps):
    handle = caller.send(session_id='rob', **LONG)
    wait_until(lambda: any(r.session_id and r.output_tokens for r in
                           caller.call(caller.status).scheduler.requests))
    fresh = caller.ask(session_id='rob', prompt='Hello?', max_tokens=4, reset_session=True)[1]
    assert fresh.error_code == Result.NONE
    ended = get(handle.get_result_async()).result
    assert ended.error_code == Result.CANCELLED and 'reset' in ended.error_msg
    assert caller.ask(session_id='rob', prompt='And?', max_tokens=2)[1].report.reused_tokens


@pytest.fixture
def sentences(node, caller):
    """Return the sentences that arrive on the topic of dialogue."""
    received = []
    listener = caller.create_subscription(
        String, '/slice/dialogue/sentences', lambda m: received.append(m.data), SENTENCES)
    wait_until(lambda: subscribers(node, '/slice/dialogue/sentences'))
    yield received
    caller.destroy_subscription(listener)
    wait_until(lambda: not subscribers(node, '/slice/dialogue/sentences'))


def test_a_prompt_on_a_topic_is_answered_in_sentences(caller, sentences):
    caller.prompts['dialogue'].publish(msg.Prompt(
        request_id='talk', prompt=STORY['prompt'], max_tokens=90))
    text = ''.join(c.text for c in caller.chunks_of('talk'))
    wait_until(lambda: clean(''.join(sentences)) == clean(text))
    assert len(sentences) > 1 and all(s == s.strip() for s in sentences)
    assert '\n' not in ''.join(sentences)


def test_answers_at_the_same_time_are_not_mixed_within_a_sentence(caller, sentences):
    topics = ('a robot', 'the sea', 'a piano')
    handles = [caller.send(prompt=f'Say three short sentences about {t}.', max_tokens=40)
               for t in topics]
    texts = [clean(get(h.get_result_async()).result.text) for h in handles]
    wait_until(lambda: len(clean(''.join(sentences))) == sum(map(len, texts)))
    assert all(any(clean(s) in text for text in texts) for s in sentences)


def test_a_cancelled_answer_leaves_its_unfinished_sentence_unsaid(
        caller, slow_steps, sentences):
    handle = caller.send(**STORY)
    wait_until(lambda: sentences)
    get(handle.cancel_goal_async())
    text = clean(get(handle.get_result_async()).result.text)
    caller.prompts['dialogue'].publish(msg.Prompt(request_id='last', prompt='Hi', max_tokens=2))
    last = clean(''.join(c.text for c in caller.chunks_of('last')))
    wait_until(lambda: clean(''.join(sentences)).endswith(last))
    spoken = clean(''.join(sentences))[:-len(last)]
    assert spoken and text.startswith(spoken) and len(spoken) < len(text)
