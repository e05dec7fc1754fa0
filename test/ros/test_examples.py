# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The example nodes beside a node with the real model; and what they do when it fails them."""

import os
import signal
import subprocess
import sys
import threading

from conftest import wait_until
from geometry_msgs.msg import PoseStamped
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from slice_ros.client import Answer
from slice_ros.examples.control import CHOICES, ControlNode
from slice_ros.examples.planner import PLACES, PlannerNode
from slice_ros.examples.talker import SENTENCE_END, TalkerNode
from std_msgs.msg import String


class World:
    """What surrounds an example: it says sentences on one topic and hears another."""

    def __init__(self, spin, example, say, kind, hear) -> None:
        self.example, self.heard = example, []
        self._node = Node('world')
        self._topic = self._node.create_publisher(String, say, 10)
        self._node.create_subscription(kind, hear, self.heard.append, 50)
        self._spinning = spin(self._node, example)
        wait_until(lambda: self._topic.get_subscription_count()
                   and self._node.count_publishers(hear))
        wait_until(lambda: all(p.get_subscription_count() for p in example.publishers
                               if p.topic_name == f'/{hear}'))

    def say(self, text) -> None:
        self._topic.publish(String(data=text))

    def answer(self, text):
        """Say something and return the next message that is heard."""
        before = len(self.heard)
        self.say(text)
        wait_until(lambda: len(self.heard) > before)
        return self.heard[before]

    def close(self) -> None:
        self._spinning.close()
        self.example.destroy_node()
        self._node.destroy_node()


@pytest.fixture
def world(spin):
    """Return what puts an example into a world; it is taken apart at the end."""
    worlds = []

    def make(*arguments):
        worlds.append(World(spin, *arguments))
        return worlds[-1]
    yield make
    for one in worlds:
        one.close()


def control(**parameters):
    return ControlNode(parameter_overrides=[
        Parameter(name, value=value) for name, value in parameters.items()])


def test_control_decides_in_time(node, world):
    # Much more time than it takes: a busy machine must not make it stop.
    around = world(control(deadline_ms=20000.0), 'scene', String, 'decision')
    wait_until(lambda: around.example.client._generate_client.ready)
    decisions = [around.answer(scene).data for scene in
                 ('Way free.', 'People near.', 'Box 0.5 m ahead.')]
    # GO is no fallback: the model said it. How well a model judges is not for this test.
    assert decisions[0] == 'GO' and set(decisions) <= set(CHOICES)


def test_control_stops_when_the_answer_is_late(node, world):
    around = world(control(deadline_ms=1.0), 'scene', String, 'decision')
    wait_until(lambda: around.example.client._generate_client.ready)
    assert around.answer('Way free.').data == 'STOP'
    wait_until(lambda: not node.server.snapshot().requests)


def test_control_stops_when_it_is_refused(node, world):
    around = world(control(deadline_ms=20000.0), 'scene', String, 'decision')
    wait_until(lambda: around.example.client._generate_client.ready)
    assert around.answer('word ' * 600).data == 'STOP'  # does not fit the model


def test_control_stops_without_a_node(ros, world):
    around = world(control(slice_node='nobody'), 'scene', String, 'decision')
    assert around.answer('Way free.').data == 'STOP'


def test_control_stops_when_the_answer_is_wrong(ros, world, monkeypatch):
    around = world(control(deadline_ms=20000.0), 'scene', String, 'decision')

    async def wrong(*_, **__):
        return Answer('id', 'Maybe?', 'stop', None)
    monkeypatch.setattr(around.example.client, 'ask', wrong)
    assert around.answer('Way free.').data == 'STOP'


def test_planner_turns_sentences_into_poses(node, world):
    around = world(PlannerNode(), 'instruction', PoseStamped, 'goal_pose')
    wait_until(lambda: around.example.client._generate_client.ready)
    for sentence in ('Bring this parcel to the lab, please.', 'asdf?!'):
        goal = around.answer(sentence)
        place = (goal.pose.position.x, goal.pose.position.y)
        assert goal.header.frame_id == 'map' and place in PLACES.values()
        turn = goal.pose.orientation
        assert turn.z ** 2 + turn.w ** 2 == pytest.approx(1) and turn.x == turn.y == 0
        if 'lab' in sentence:
            assert place == PLACES['lab']


def test_planner_says_nothing_when_there_is_no_goal(ros, world):
    planner = PlannerNode(parameter_overrides=[Parameter('slice_node', value='nobody')])
    around = world(planner, 'instruction', PoseStamped, 'goal_pose')
    failed = threading.Event()
    plan, planner.client.ask = planner.client.ask, None

    async def ask(*arguments, **options):
        try:
            return await plan(*arguments, **options)
        finally:
            failed.set()
    planner.client.ask = ask
    around.say('Go to the lab.')
    assert failed.wait(20) and not around.heard


def test_talker_speaks_whole_sentences(node, world, caller):
    talker = TalkerNode(parameter_overrides=[Parameter('max_tokens', value=60)])
    around = world(talker, 'heard', String, 'say')
    wait_until(lambda: talker.client._generate_client.ready)
    around.answer('Hello Pico! Who are you?')
    wait_until(lambda: talker.stream.done)
    whole = talker.stream.result.text
    sentences = [s.strip() for s in SENTENCE_END.split(whole) if s.strip()]
    wait_until(lambda: len(around.heard) >= len(sentences))
    assert [heard.data for heard in around.heard] == sentences


def test_talker_is_interrupted(node, world):
    talker = TalkerNode(parameter_overrides=[Parameter('max_tokens', value=400)])
    around = world(talker, 'heard', String, 'say')
    wait_until(lambda: talker.client._generate_client.ready)
    around.answer('Tell me a long story about a robot that explores a warehouse.')
    first = talker.stream
    talker.max_tokens = 5
    around.say('Stop it. Hi!')
    wait_until(lambda: talker.stream is not first and talker.stream.done)
    assert first.done and first.result is None  # cancelled before its end
    wait_until(lambda: not node.server.snapshot().requests)


@pytest.mark.parametrize('name, number', [
    ('control', signal.SIGINT), ('planner', signal.SIGTERM), ('talker', signal.SIGINT)])
def test_each_runs_as_a_program_and_ends_with_0(ros, name, number):
    process = subprocess.Popen(
        [sys.executable, '-m', f'slice_ros.examples.{name}'], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env={**os.environ, 'PYTHONUNBUFFERED': '1'})
    watcher = Node('watcher')
    try:
        wait_until(lambda: f'slice_{name}' in watcher.get_node_names())
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        watcher.destroy_node()
    assert process.returncode == 0 and 'Traceback' not in said, said
