# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities by every way out of the node, and several answers to one prompt."""

from action_msgs.msg import GoalStatus
from conftest import get, live, spin_until, wait_until
import pytest
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.client import Answer, Cancelled, InvalidRequest, SliceError
from slice_ros.client.token_logprobs import token_logprobs
from slice_ros.engine import Sampling

RESULT = Generate.Result
ASKED = {'prompt': 'Name a colour of a traffic light.', 'max_tokens': 12}
TWO = {'logprobs': True, 'top_logprobs': 2}
# More than a page of the cache.
LONG_PROMPT = ('You are a robot in a warehouse with three floors, two lifts and a kitchen. Your '
               'battery is full, and nobody waits for you. Where do you go first?')
HOT = {'temperature': 1.5, 'seed': 11}


def by_hand(engine, prompt, max_tokens):
    """Return the entries of a greedy answer as the engine itself reports them."""
    sequence = engine.open(engine.encode_chat([('user', prompt)]), max_tokens,
                           Sampling(logprobs=2))
    ranks = []
    while not sequence.finish_reason:
        for output in engine.step([(sequence, sequence.pending)]):
            ranks += output.logprobs
    engine.close(sequence)
    return ranks


def entries(ranks):
    """Return comparable entries of what the client library gives."""
    return [[(one.token, one.data, one.special) for one in (of, *of.top)] for of in ranks]


def test_goals_calls_and_topics_carry_the_engines_numbers(node, caller):
    expected = by_hand(node.engine, **ASKED)   # nothing is live
    _, plain = caller.ask(**ASKED)
    pieces = []
    handle = caller.send(lambda m: pieces.append(m.feedback), **ASKED,
                         sampling=msg.SamplingParams(**TWO))
    result = get(handle.get_result_async()).result
    called = caller.call(caller.text, slo_class='dialogue', **ASKED,
                         sampling=msg.SamplingParams(**TWO))
    chunks = caller.chunks_of(result.request_id)
    assert result.text == plain.text == called.text and not plain.logprobs.tokens
    assert result.logprobs == called.logprobs and result.logprobs.top == 2
    found = token_logprobs(result.logprobs)
    assert entries(found) == [[(e.token, e.text, e.special) for e in of] for of in expected]
    assert [one.logprob for of in found for one in (of, *of.top)] == pytest.approx(
        [e.logprob for of in expected for e in of], abs=1e-5)
    assert b''.join(one.data for one in found).decode() == result.text
    assert all((one.token, one.logprob) == (one.top[0].token, one.top[0].logprob)
               for one in found)   # greedy
    for received in (pieces, chunks):
        assert [one for piece in received for one in token_logprobs(piece.logprobs)] == list(found)
    for name in ('tokens', 'logprobs', 'special', 'sizes'):
        assert len(getattr(result.logprobs, name)) == 3 * len(found)


def test_a_prompt_of_a_topic_has_them_too(caller):
    caller.prompts['dialogue'].publish(msg.Prompt(
        request_id='ranked', prompt='Hi', max_tokens=4,
        sampling=msg.SamplingParams(logprobs=True, temperature=0.8, seed=1)))
    chunks = caller.chunks_of('ranked')
    found = [one for chunk in chunks for one in token_logprobs(chunk.logprobs)]
    assert ''.join(one.text for one in found) == ''.join(chunk.text for chunk in chunks)
    assert all(one.logprob < 0 and not one.top for one in found)


@pytest.mark.parametrize('values', [
    {'logprobs': True, 'top_logprobs': 21}, {'logprobs': True, 'top_logprobs': 10**9},
    {'logprobs': True, 'top_logprobs': 2**32 - 1}, {'top_logprobs': 3}])
def test_wishes_that_cannot_be_met_are_refused_and_nobody_else_notices(caller, values):
    neighbour = caller.send(prompt='What is a wheel?', max_tokens=16).get_result_async()
    status, result = caller.ask(prompt='Hi', sampling=msg.SamplingParams(**values))
    assert status == GoalStatus.STATUS_ABORTED and result.error_code == RESULT.INVALID_REQUEST
    assert 'sampling.top_logprobs' in result.error_msg and '20' in result.error_msg
    response = get(neighbour)
    assert response.status == GoalStatus.STATUS_SUCCEEDED and response.result.text


def test_the_client_library_gives_them_with_the_text(client, play):
    async def read():
        stream = client.generate('Count to five.', max_tokens=16, sampling=TWO)
        return stream, [chunk async for chunk in stream]
    stream, chunks = play(read())
    answer = stream.result
    assert [one for chunk in chunks for one in chunk.logprobs] == list(answer.logprobs)
    assert ''.join(one.text for one in answer.logprobs) == answer.text
    assert all(chunk.text for chunk in chunks)
    with pytest.raises(InvalidRequest, match='top_logprobs'):
        client.generate('Hi', sampling={'logprobs': True, 'top_logprobs': -1})


def test_several_answers_compute_their_prompt_once(node, client, play, monkeypatch):
    fed, launch = [], node.engine.launch

    def counting(work, *rest):
        fed.extend(n for _, n in work if n > 1)
        return launch(work, *rest)
    monkeypatch.setattr(node.engine, 'launch', counting)
    monkeypatch.setattr(node.engine, 'draft', lambda sequence, most: [])
    answers = play(answers_of(client, LONG_PROMPT, 4, max_tokens=16, sampling=HOT))
    prompt = answers[0].report.prompt_tokens
    assert prompt > 40 and [a.report.prompt_tokens for a in answers] == [prompt] * 4
    assert [a.report.reused_tokens for a in answers[1:]] == [prompt - 1] * 3
    assert sum(fed) == prompt - answers[0].report.reused_tokens   # a last token is fed alone
    assert len({a.request_id for a in answers}) == 4 and len({a.text for a in answers}) > 1
    again = play(answers_of(client, LONG_PROMPT, 4, max_tokens=16, sampling=HOT))
    assert [a.text for a in again] == [a.text for a in answers]
    alone = play(client.ask(LONG_PROMPT, max_tokens=16, sampling=HOT))
    assert alone.text == answers[0].text


async def answers_of(client, *asked, **fields):
    return await client.generate_several(*asked, **fields)


def test_the_pieces_of_several_come_as_they_are_made(client, play):
    async def read():
        streams = client.generate_several('Say a number.', 3, max_tokens=10, sampling=HOT)
        return streams, [piece async for piece in streams]
    streams, pieces = play(read())
    for index, stream in enumerate(streams.streams):
        mine = [chunk for number, chunk in pieces if number == index]
        assert ''.join(chunk.text for chunk in mine[:-1]) == stream.result.text
        assert mine[-1] is None and None not in mine[:-1]


def test_leaving_several_cancels_all(node, client, planner, play, slow_steps):
    async def leave():
        streams = client.generate_several('Tell me a long story.', 3, max_tokens=300)
        begun = set()
        async for index, _ in streams:
            begun.add(index)
            if len(begun) == 3:
                break
        await streams.aclose()
        return streams
    streams = play(leave())
    spin_until(planner, lambda: not live(node))
    assert all(isinstance(stream.error, Cancelled) for stream in streams.streams)


def test_one_that_is_cancelled_leaves_the_others(client, play, slow_steps):
    async def both():
        streams = client.generate_several('Tell me a long story.', 2, max_tokens=40)
        first = streams.streams[0]
        async for index, _ in streams:
            if index == 1 and not first.done:
                first.cancel()
                slow_steps.pause = 0.0
        return await streams
    first, second = play(both())
    assert isinstance(first, Cancelled) and isinstance(second, Answer) and second.text


def test_a_refused_prompt_ends_all_and_is_sent_once(node, client, play):
    def received():
        return sum(c.received for c in node.server.snapshot().classes.values())
    before = received()

    async def ask():
        with pytest.raises(InvalidRequest, match='tokens') as caught:
            await streams
        return caught.value
    streams = client.generate_several('word ' * 600, 3)
    error = play(ask())
    assert all(stream.error is error for stream in streams.streams)
    wait_until(lambda: received() == before + 1)


@pytest.mark.parametrize('n', [0, -1, 9, 10**9, 2.0, True, None])
def test_a_number_of_answers_that_is_none_is_refused(client, n):
    with pytest.raises(InvalidRequest, match='n must be a whole number from 1 to 8'):
        client.generate_several('Hi', n)
    assert not client.live
    with pytest.raises(SliceError, match='session'):
        client.generate_several('Hi', 2, session_id='s')
