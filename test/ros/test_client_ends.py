# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Requests of slice_ros.client that end early: for any reason, nothing is left behind."""

import asyncio
import gc
import time

from conftest import get, live, MANY_WORDS, spin_until, wait_until
import pytest
from rclpy.node import Node
from slice_ros.client import Cancelled, SliceClient, Timeout
from slice_ros.errors import ErrorCode

LONG = {'prompt': 'Tell me a long story about a robot that explores a warehouse.',
        'max_tokens': 400, 'regex': MANY_WORDS}
pytestmark = pytest.mark.usefixtures('slow_steps')


@pytest.mark.parametrize('way', ['break', 'drop', 'cancel', 'task', 'exception'])
def test_leaving_a_stream_ends_its_computing(client, play, planner, node, way):
    async def leave():
        stream = client.generate(**LONG)
        request, = [r async for r in _first(stream, node)]
        if way == 'cancel':
            stream.cancel()
            with pytest.raises(Cancelled):
                await stream
        elif way == 'exception':
            with pytest.raises(ZeroDivisionError):
                async for _ in stream:
                    1 / 0
        elif way == 'break':
            async for _ in stream:
                break
        return request, stream if way in ('break', 'exception') else None
    if way == 'task':
        async def forever():
            async for _ in client.generate(**LONG):
                pass
        task = planner[0].create_task(forever)
        while not live(node) or not live(node)[0].generated:
            planner[0].spin_once(0.1)
        request, = live(node)
        task.cancel()
        spin_until(planner, lambda: request.ended)
        kept = None
    else:
        request, kept = play(leave())
    spin_until(planner, lambda: request.ended)
    assert request.error is ErrorCode.CANCELLED and request.generated < 400
    assert not live(node)
    spin_until(planner, lambda: not client._generate_client.live)
    del kept


def test_cancelling_all_ends_them_in_the_node_before_none_is_live(client, planner, node):
    streams = [client.generate(**LONG) for _ in range(3)]
    spin_until(planner, lambda: len(live(node)) == 3)
    requests = live(node)
    streams.append(client.generate(**LONG))   # not sent when all are cancelled
    assert client.live == 3
    client.cancel_all()
    spin_until(planner, lambda: not client.live)
    assert all(r.error is ErrorCode.CANCELLED for r in requests)
    assert all(isinstance(s.error, Cancelled) and s.done for s in streams)
    spin_until(planner, lambda: not live(node))


async def _first(stream, node):
    """Yield the request of a stream once the node has sent something of it."""
    buffer = stream._buffer
    chunk = await buffer.next()
    buffer._unread.appendleft(chunk)
    yield next(r for r in live(node) if r.id == stream.request_id)


def test_a_timeout_cancels(client, play, node, planner):
    async def late():
        with pytest.raises(Timeout) as caught:
            await client.ask(**LONG, timeout=0.1)
        return caught.value
    begin = time.monotonic()
    error = play(late())
    assert 0.08 < time.monotonic() - begin   # and before the answer's own end
    assert isinstance(error, TimeoutError) and '0.1 s' in error.message
    assert error.code is ErrorCode.CANCELLED
    spin_until(planner, lambda: not live(node))
    with pytest.raises(Timeout):
        play(client.ask('Hi', timeout=0))
    spin_until(planner, lambda: not client._generate_client.live and not live(node))


def test_what_ends_a_request_from_outside_keeps_what_came(client, play, caller, node):
    async def read():
        stream = client.generate(**LONG)
        texts = []
        with pytest.raises(Cancelled) as caught:
            async for chunk in stream:
                if not texts:
                    caller.canceller.call_async(
                        caller.canceller.srv_type.Request(request_id=stream.request_id))
                texts.append(chunk.text)
        return caught.value, ''.join(texts)
    error, text = play(read())
    assert error.answer.text == text and '~/cancel' in error.message
    assert error.answer.report.error_code == ErrorCode.CANCELLED


def test_a_cancelled_future_cancels_its_request(client, planner, node):
    future = client.ask_future(**LONG)
    spin_until(planner, lambda: live(node))
    future.cancel()
    spin_until(planner, lambda: not live(node) and not client._generate_client.live)
    assert future.cancelled()


def test_close_cancels_and_its_readers_get_the_error(node, spin):
    planner = Node('leaving')
    client, spinning = SliceClient(planner), spin(planner)
    asyncio.run(client.wait_until_ready(20))
    stream, future = client.generate(**LONG), client.ask_future(**LONG)

    async def wait():
        with pytest.raises(Cancelled):
            await stream
    task = spinning.executor.create_task(wait)
    wait_until(lambda: len(live(node)) == 2)
    client.close()
    get(task)
    with pytest.raises(Cancelled):
        get(future)
    wait_until(lambda: not live(node))
    with pytest.raises(Cancelled):
        asyncio.run(client.ask('Hi'))
    client.close()
    spinning.close()
    planner.destroy_node()


def test_close_works_when_nothing_spins_any_more(node, spin):
    planner = Node('late')
    client, spinning = SliceClient(planner), spin(planner)
    asyncio.run(client.wait_until_ready(20))
    stream, future = client.generate(**LONG), client.ask_future(**LONG)
    future.add_done_callback(lambda _: None)
    wait_until(lambda: len(live(node)) == 2 and stream.text)   # its executor knows its futures
    spinning.close()
    client.close()
    wait_until(lambda: not live(node))
    assert isinstance(stream.error, Cancelled) and isinstance(future.exception(), Cancelled)
    planner.destroy_node()


def test_close_ends_requests_that_no_executor_has_sent_yet(ros):
    planner = Node('early')
    client = SliceClient(planner)
    stream, future = client.generate(**LONG), client.ask_future(**LONG)
    client.close()
    assert isinstance(stream.error, Cancelled)
    assert future.done() and isinstance(future.exception(), Cancelled)
    planner.destroy_node()


def test_nothing_of_it_is_left_over(client):
    assert not client._generate_client._asked
    gc.collect()
    assert not client._generate_client.live and not client._callbacks.queue
