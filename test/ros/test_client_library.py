# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_ros.client against a node with the real model, in every way a planner may use it."""

import asyncio
import subprocess
import sys

from conftest import get, live, MANY_WORDS, run, spin_until, wait_until
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from slice_ros.client import InvalidRequest, SliceClient, Unavailable
from slice_ros.client.answer import MAX_UNREAD
from slice_ros.errors import ErrorCode

LONG = {'prompt': 'Tell me a long story about a robot that explores a warehouse.',
        'max_tokens': 400, 'regex': MANY_WORDS}


def test_the_pieces_are_the_answer(client, play, caller):
    async def read():
        stream = client.generate('Name three colours.', 'navigation', max_tokens=24)
        assert not stream.done and stream.result is None
        return stream, [chunk async for chunk in stream]
    stream, chunks = play(read())
    _, same = caller.ask(prompt='Name three colours.', slo_class='navigation', max_tokens=24)
    answer = stream.result
    assert stream.done and stream.error is None and len(chunks) > 5
    assert ''.join(chunk.text for chunk in chunks) == stream.text == answer.text == same.text
    assert all(chunk.text for chunk in chunks)
    assert [c.tokens for c in chunks] == sorted(c.tokens for c in chunks)
    assert answer.request_id == stream.request_id == answer.report.request_id
    assert answer.finish_reason in ('stop', 'length') and answer.report.slo.name == 'navigation'


def test_ask_takes_conversations_and_sampling(client, play, node):
    play(client.ask([('system', 'Be brief.'), {'role': 'user', 'content': 'Hi'}],
                    sampling={'temperature': 1, 'seed': 3}, max_tokens=4, stop='\n'))
    first = play(client.ask('Is ice cold? Yes or no?', max_tokens=1))
    token = node.engine._encoder.ids(first.text)[0]
    other = play(client.ask('Is ice cold? Yes or no?', max_tokens=1,
                            sampling={'logit_bias': {token: -100}}))
    assert other.text != first.text
    answer = play(client.ask('Hi', max_tokens=3, ttft_ms=1, tpot_ms=float('inf')))
    assert answer.report.slo.ttft_ms == 1 and answer.report.slo.tpot_ms == 0
    assert answer.report.output_tokens <= 3


@pytest.mark.parametrize('fields, code, word', [
    ({'prompt': ''}, ErrorCode.INVALID_REQUEST, 'empty'),
    ({'prompt': 'hi', 'slo_class': 'bogus'}, ErrorCode.UNKNOWN_SLO_CLASS, 'control'),
    ({'prompt': 'word ' * 600}, ErrorCode.PROMPT_TOO_LONG, 'tokens'),
    ({'prompt': 'hi', 'ttft_ms': -1}, ErrorCode.INVALID_REQUEST, 'ttft_ms'),
    # Values that no message can carry are refused before anything is sent.
    ({'prompt': 'hi', 'max_tokens': -1}, ErrorCode.INVALID_REQUEST, 'max_tokens'),
    ({'prompt': 'hi', 'max_tokens': 2**40}, ErrorCode.INVALID_REQUEST, 'max_tokens'),
    ({'prompt': 'hi', 'max_tokens': '3'}, ErrorCode.INVALID_REQUEST, ''),
    ({'prompt': '\ud800'}, ErrorCode.INVALID_REQUEST, 'surrogates'),
    ({'prompt': [3]}, ErrorCode.INVALID_REQUEST, 'pair'),
    ({'prompt': 'hi', 'sampling': {'heat': 1}}, ErrorCode.INVALID_REQUEST, 'heat'),
    ({'prompt': 'hi', 'timeout': -1}, ErrorCode.INVALID_REQUEST, 'timeout'),
    ({'prompt': 'hi', 'choice': ['a'], 'regex': 'a'}, ErrorCode.INVALID_REQUEST, 'one of'),
])
def test_a_bad_request_is_a_typed_error(client, play, fields, code, word):
    with pytest.raises(InvalidRequest) as caught:
        play(client.ask(**fields))
    assert caught.value.code is code and word in caught.value.message
    future = client.ask_future(**fields)

    async def wait():
        return await future
    with pytest.raises(InvalidRequest):
        play(wait())


def test_futures_and_coroutines_within_callbacks_of_one_executor(client, planner):
    """A callback asks and returns; one that awaits blocks neither tokens nor other callbacks."""
    executor, _ = planner
    texts = []

    async def awaiting():
        timer.cancel()
        answer = await client.ask('What is a wheel?', max_tokens=8)
        texts.append(answer.text)
        future = client.ask_future('What is a wheel?', max_tokens=8)
        future.add_done_callback(lambda done: texts.append(done.result().text))
    timer = client.node.create_timer(0.01, awaiting)
    spin_until(planner, lambda: len(texts) == 2)
    assert texts[0] == texts[1]
    client.node.destroy_timer(timer)


def test_twenty_streams_at_once(client, play, planner):
    executor, _ = planner

    async def read(number):
        stream = client.generate(f'Tell me about the number {number}.', max_tokens=6 + number % 5)
        text = ''.join([chunk.text async for chunk in stream])
        assert text == stream.result.text
        return stream.result
    tasks = [executor.create_task(read, number) for number in range(20)]
    spin_until(planner, lambda: all(task.done() for task in tasks), 60)
    assert len({task.result().request_id for task in tasks}) == 20
    spin_until(planner, lambda: not client._generate_client.live)
    action = client._generate_client.action
    assert not action.futures and not action._feedback_callbacks
    assert not list(client.node.timers)


def test_a_slow_reader_has_a_short_queue_and_loses_nothing(client, planner):
    stream = client.generate('Tell me a long story.', max_tokens=400,
                             regex=f'(yes no ){{{MAX_UNREAD // 2 + 5}}}')
    spin_until(planner, lambda: stream.done, 90)
    assert len(stream._buffer._unread) <= MAX_UNREAD

    async def read():
        return ''.join([chunk.text async for chunk in stream])
    assert run(planner[0], read()) == stream.result.text
    assert stream.result.report.output_tokens > MAX_UNREAD


def test_asyncio_reads_what_another_thread_spins(node, slow_steps, spin):
    planner = Node('asyncio_planner')
    client, spinning = SliceClient(planner), spin(planner)

    async def main():
        await client.wait_until_ready(20)
        first, texts = client.generate('Name three colours.', max_tokens=12), []
        async for chunk in first:
            texts.append(chunk.text)
        both = await asyncio.gather(*(client.ask('Hi', max_tokens=3) for _ in range(2)))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.ask(**LONG), 0.1)
        return ''.join(texts), first.result.text, both
    text, whole, both = asyncio.run(main())
    assert text == whole and both[0].text == both[1].text
    wait_until(lambda: not live(node))
    future = client.ask_future('Hi', max_tokens=3)
    assert get(future).text == both[0].text
    client.close()
    spinning.close()
    planner.destroy_node()


def test_without_a_node_it_says_so(ros, monkeypatch):
    planner = Node('lonely')
    client = SliceClient(planner, 'nobody')
    executor = SingleThreadedExecutor()
    executor.add_node(planner)
    for ask in (lambda: client.ask('Hi'), lambda: client.status(0.2)):
        with pytest.raises(Unavailable, match='nobody'):
            run(executor, ask())
    monkeypatch.setattr(client._generate_client, '_later', None)
    with pytest.raises(Unavailable):
        run(executor, client.ask('Hi'))   # it has looked long enough
    client.close()
    executor.shutdown()
    planner.destroy_node()


def test_it_needs_no_torch():
    code = ('import sys, slice_ros.client; '
            'sys.exit(any(name.split(".")[0] == "torch" for name in sys.modules))')
    assert subprocess.run([sys.executable, '-c', code], timeout=60).returncode == 0
