# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A caller that is killed: its requests end, its session is free, and nobody else is harmed."""

import subprocess
import sys
import time
import uuid

from conftest import get, live, LONG, MANY_WORDS, wait_until
import pytest
from slice_ros.errors import ErrorCode
from slice_ros.request import State
from slice_ros.ros.callers.caller_ids import client_of, new_client, new_request_id

WITHIN = 15.0   # seconds after the death of a client; the graph keeps it for 20
LIVES = 10.0    # seconds that a client is watched
PAUSE = 0.1     # seconds that each step takes longer: the answers outlive their callers
LIBRARY = f"""
import rclpy
from rclpy.executors import SingleThreadedExecutor
from slice_ros.client import SliceClient
rclpy.init()
node = rclpy.create_node('planner')
client = SliceClient(node)
executor = SingleThreadedExecutor()
executor.add_node(node)
async def ask():
    await client.wait_until_ready(60)
    async for _ in client.generate('Tell me a long story about a robot in a warehouse.',
                                   max_tokens=400, session_id='day', regex='{MANY_WORDS}'):
        pass
executor.create_task(ask)
executor.spin()
"""


@pytest.fixture
def slow(slow_steps):
    """Make each step take longer."""
    slow_steps.pause = PAUSE


@pytest.fixture
def start():
    """Return a function that runs a program in a process of its own."""
    processes = []

    def start(program):
        processes.append(subprocess.Popen([sys.executable, '-c', program]))
        return processes[-1]
    yield start
    for process in processes:
        process.kill()
        process.wait()


def running(node):
    return [request for request in live(node) if request.generated]


def test_a_killed_client_ends_its_request_and_frees_its_session(node, caller, slow, start):
    process = start(LIBRARY)
    wait_until(lambda: running(node))
    request, = live(node)
    neighbour = caller.send(**LONG).get_result_async()
    wait_until(lambda: len(live(node)) == 2)
    other = live(node)[1]
    assert request.caller == client_of(request.id) and other.caller == ''
    process.kill()
    killed = time.monotonic()
    wait_until(lambda: request.ended)
    took = time.monotonic() - killed
    assert took < WITHIN and request.state is State.CANCELLED and request.generated < 400
    answer = caller.ask(prompt='Hello', max_tokens=2, session_id='day')[1]
    assert answer.error_code == ErrorCode.NONE
    assert not other.ended
    wait_until(lambda: other.generated > 5)
    node.server.cancel(other.id)
    assert get(neighbour).result.error_code == ErrorCode.CANCELLED   # the first end it had


@pytest.mark.parametrize('alive', [0.0, 0.2])
def test_a_client_killed_as_soon_as_its_request_is_there(node, slow, start, alive):
    process = start(LIBRARY)
    wait_until(lambda: live(node))
    request, = live(node)
    time.sleep(alive)
    process.kill()
    killed = time.monotonic()
    wait_until(lambda: request.ended)
    assert time.monotonic() - killed < WITHIN and request.error is ErrorCode.CANCELLED


def test_a_client_that_lives_keeps_its_request(node, slow, start):
    start(LIBRARY)
    wait_until(lambda: running(node))
    request, = live(node)
    time.sleep(LIVES)
    assert not request.ended
    assert len(node.caller_watch._clients) == 1


def test_ids_name_their_client_and_no_other_id_does():
    client = new_client()
    ids = {new_request_id(client) for _ in range(1000)}
    assert len(ids) == 1000 and all(client_of(i) == client for i in ids)
    assert all(uuid.UUID(i).version == 8 for i in ids)
    for other in (*(str(uuid.uuid4()) for _ in range(1000)), '', 'day', 'x' * 36, client,
                  next(iter(ids)).replace('8', '9')):
        assert client_of(other) is None
