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
from py_trees.blackboard import Blackboard
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from slice_ros.client import Answer
from slice_ros.examples.control import CHOICES, ControlNode
from slice_ros.examples.goal_planner import PLACES, PlannerNode
from slice_ros.examples.patrol_tree import PatrolNode
from slice_ros.examples.talker import SENTENCE_END, TalkerNode
from std_msgs.msg import String


class World:
    """The other nodes around an example: publishes on one topic, subscribes to another."""

    def __init__(self, spin, example, topic_in, kind, topic_out) -> None:
        self.example, self.received = example, []
        self._node = Node('world')
        self._topic = self._node.create_publisher(String, topic_in, 10)
        self._node.create_subscription(kind, topic_out, self.received.append, 50)
        self._spinning = spin(self._node, example)
        wait_until(lambda: self._topic.get_subscription_count()
                   and self._node.count_publishers(topic_out))
        wait_until(lambda: all(p.get_subscription_count() for p in example.publishers
                               if p.topic_name == f'/{topic_out}'))

    def say(self, text) -> None:
        self._topic.publish(String(data=text))

    def answer(self, text):
        """Publish a text and return the next message received."""
        before = len(self.received)
        self.say(text)
        wait_until(lambda: len(self.received) > before)
        return self.received[before]

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
    # GO is no fallback: it came from the model. How well a model judges is not for this test.
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
    assert failed.wait(20) and not around.received


def test_talker_speaks_whole_sentences(node, world, caller):
    talker = TalkerNode(parameter_overrides=[Parameter('max_tokens', value=60)])
    around = world(talker, 'heard', String, 'say')
    wait_until(lambda: talker.client._generate_client.ready)
    around.answer('Hello Pico! Who are you?')
    wait_until(lambda: talker.stream.done)
    whole = talker.stream.result.text
    sentences = [s.strip() for s in SENTENCE_END.split(whole) if s.strip()]
    wait_until(lambda: len(around.received) >= len(sentences))
    assert [message.data for message in around.received] == sentences


def test_talker_is_interrupted(node, slow_steps, world):
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


def test_patrol_reports_where_it_gets_no_decision(node, world):
    Blackboard.clear()
    around = world(PatrolNode(parameter_overrides=[Parameter('deadline_ms', value=0.0)]),
                   'seen', String, 'say')
    patrol = around.example.tree.root.children[0]
    wait_until(lambda: patrol.place and around.example.client._generate_client.ready)
    around.answer('smoke and a broken window.')
    wait_until(lambda: Blackboard.exists('report'))
    assert Blackboard.get('seen') == 'gate: smoke and a broken window.'
    assert (Blackboard.get('decision'), Blackboard.get('decision_error')) == (
        'REPORT', 'DEADLINE_MISSED')
    wait_until(lambda: ''.join(m.data for m in around.received) == Blackboard.get('report'))
    wait_until(lambda: patrol.place == 'corridor')


@pytest.mark.parametrize('module, name, number', [
    ('control', 'slice_control', signal.SIGINT),
    ('goal_planner', 'slice_planner', signal.SIGTERM),
    ('talker', 'slice_talker', signal.SIGINT),
    ('patrol_tree', 'slice_patrol', signal.SIGINT)])
def test_each_runs_as_a_program_and_ends_with_0(ros, module, name, number):
    process = subprocess.Popen(
        [sys.executable, '-m', f'slice_ros.examples.{module}'], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env={**os.environ, 'PYTHONUNBUFFERED': '1'})
    watcher = Node('watcher')
    try:
        wait_until(lambda: name in watcher.get_node_names())
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        watcher.destroy_node()
    assert process.returncode == 0 and 'Traceback' not in output, output
