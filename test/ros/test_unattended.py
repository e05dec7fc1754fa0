# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Requests of any other caller end when nobody is left who could receive the answer."""

import subprocess
import sys
import time

from conftest import live, LONG, MANY_WORDS, serving, subscribers, wait_until
import pytest
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.parameter import Parameter
from slice_ros import msg, srv
from slice_ros.action import Generate
from slice_ros.errors import ErrorCode
from slice_ros.ros.qos import TOKENS

PAUSE = 0.1     # seconds that each step takes longer: the answers outlive their callers
LIMIT = 1.0     # seconds without a receiver
DISTANT = 1e3   # another limit: it does not come during a test
# An ordinary end of the process: the graph keeps a killed one for 20 s.
BARE = f"""
import rclpy
from rclpy.action import ActionClient
from slice_ros.action import Generate
from slice_ros.msg import ResponseFormat
rclpy.init()
node = rclpy.create_node('bare')
client = ActionClient(node, Generate, '/alone/slice/generate')
assert client.wait_for_server(20)
try:
    # Again, if the first was lost while the two discovered each other.
    for _ in range(4):
        sent = client.send_goal_async(Generate.Goal(
            slo_class='dialogue', prompt='Tell me a long story.', max_tokens=400,
            response_format=ResponseFormat(type='regex', grammar='{MANY_WORDS}')))
        rclpy.spin_until_future_complete(node, sent, timeout_sec=5.0)
        if sent.done():
            break
    rclpy.spin(node)
except rclpy.executors.ExternalShutdownException:
    pass
"""


@pytest.fixture(scope='module')
def node(ros, engine, latency):
    """A node under a name that no other test has asked."""
    with serving(engine, latency, namespace='alone') as node:
        yield node


@pytest.fixture(autouse=True)
def slow(node, slow_steps):
    """Make each step take longer, and the limit short."""
    slow_steps.pause = PAUSE
    limit(node, LIMIT)


@pytest.fixture
def visitor(node, spin):
    """A node that asks and leaves."""
    visitor = Node('visitor')
    spinning = spin(visitor)
    yield visitor
    spinning.close()
    visitor.destroy_node()


def limit(node, seconds):
    assert node.set_parameters([Parameter('limits.unattended_s', value=seconds)])[0].successful


def ends(request):
    wait_until(lambda: request.ended)
    assert request.error is ErrorCode.CANCELLED


def goes_on(request):
    time.sleep(2 * LIMIT)
    assert not request.ended


def the_request(node):
    wait_until(lambda: live(node))
    request, = live(node)
    return request


def test_a_goal_ends_with_its_client(node):
    process = subprocess.Popen([sys.executable, '-c', BARE])
    try:
        request = the_request(node)
        goes_on(request)
        process.terminate()
        ends(request)
    finally:
        process.kill()
        process.wait()


def test_a_prompt_ends_with_its_last_subscriber(node, visitor):
    chunks = []
    listener = visitor.create_subscription(msg.TokenChunk, '/alone/slice/dialogue/tokens',
                                           chunks.append, TOKENS)
    prompts = visitor.create_publisher(msg.Prompt, '/alone/slice/dialogue/prompt', 10)
    wait_until(lambda: prompts.get_subscription_count())
    wait_until(lambda: subscribers(node, '/alone/slice/dialogue/tokens'))
    prompts.publish(msg.Prompt(**LONG))
    request = the_request(node)
    goes_on(request)
    visitor.destroy_subscription(listener)
    ends(request)


def test_a_call_ends_with_its_client(node, visitor):
    client = visitor.create_client(srv.GenerateText, '/alone/slice/generate_text')
    assert client.wait_for_service(20)
    client.call_async(srv.GenerateText.Request(slo_class='dialogue', **LONG))
    request = the_request(node)
    goes_on(request)
    visitor.destroy_client(client)
    ends(request)


def test_zero_means_never(node, visitor):
    limit(node, 0.0)
    prompts = visitor.create_publisher(msg.Prompt, '/alone/slice/dialogue/prompt', 10)
    wait_until(lambda: prompts.get_subscription_count())
    prompts.publish(msg.Prompt(**LONG))
    goes_on(the_request(node))


def test_who_comes_in_time_receives_it(node, visitor, spin):
    limit(node, DISTANT)
    prompts = visitor.create_publisher(msg.Prompt, '/alone/slice/dialogue/prompt', 10)
    wait_until(lambda: prompts.get_subscription_count())
    prompts.publish(msg.Prompt(**LONG))
    request, unattended = the_request(node), node.caller_watch
    wait_until(lambda: unattended._unattended)
    listener = visitor.create_subscription(msg.TokenChunk, '/alone/slice/dialogue/tokens',
                                           lambda chunk: None, TOKENS)
    wait_until(lambda: not unattended._unattended)
    limit(node, LIMIT)
    goes_on(request)
    visitor.destroy_subscription(listener)


def test_a_client_of_another_kind_does_not_attend_a_prompt(node, visitor):
    client = ActionClient(visitor, Generate, '/alone/slice/generate')
    assert client.wait_for_server(20)
    prompts = visitor.create_publisher(msg.Prompt, '/alone/slice/dialogue/prompt', 10)
    wait_until(lambda: prompts.get_subscription_count())
    prompts.publish(msg.Prompt(**LONG))
    ends(the_request(node))
    client.destroy()
