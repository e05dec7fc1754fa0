# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The example that looks, beside a node with a tiny model that sees."""

from array import array
from pathlib import Path
import sys

from conftest import wait_until
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.examples.look import LookNode
from std_msgs.msg import String

sys.path.append(str(Path(__file__).parents[1] / 'unit' / 'engine'))
import tiny_vision  # noqa: E402


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
    """A tiny model that sees, in place of the one of the other tests."""
    folder = tmp_path_factory.mktemp('sees')
    tiny_vision.save(folder, 'smolvlm')
    return load_engine(EngineConfig(str(folder), max_context=256, slots=4, threads=2))


class Scene:
    """A camera, somebody who asks, and the example between them and the node."""

    def __init__(self, spin) -> None:
        self.look = LookNode(parameter_overrides=[
            Parameter('max_tokens', value=4), Parameter('max_age_s', value=30.0)])
        self.node, self.answers = Node('scene'), []
        self._camera = self.node.create_publisher(Image, 'image', 10)
        self._questions = self.node.create_publisher(String, 'question', 10)
        self.node.create_subscription(String, 'answer', self.answers.append, 10)
        self._spinning = spin(self.node, self.look)
        wait_until(lambda: self._camera.get_subscription_count()
                   and self._questions.get_subscription_count()
                   and self.look.answers.get_subscription_count()
                   and self.look.client._generate_client.ready)

    def show(self, level, age_s=0.0):
        """Publish a frame of one grey, and wait until the example has it."""
        frame = Image(height=32, width=32, encoding='mono8', step=32,
                      data=array('B', [level] * 1024))
        stamp = self.node.get_clock().now().nanoseconds - int(age_s * 1e9)
        frame.header.stamp.sec, frame.header.stamp.nanosec = divmod(stamp, 10 ** 9)
        self._camera.publish(frame)
        wait_until(lambda: self.look.frame is not None and self.look.frame.data[0] == level)

    def ask(self, text):
        self._questions.publish(String(data=text))

    def close(self):
        self._spinning.close()
        self.look.destroy_node()
        self.node.destroy_node()


@pytest.fixture
def scene(node, spin):
    made = Scene(spin)
    yield made
    made.close()


def shown(node, monkeypatch):
    """Return a list that receives the grey of each frame that the node is asked about."""
    greys, glance = [], node.engine.vision.glance
    monkeypatch.setattr(node.engine.vision, 'glance', lambda picture: (
        greys.append(int(picture.pixels[0, 0, 0])), glance(picture))[1])
    return greys


def test_a_question_is_answered_about_the_newest_frame(node, scene, monkeypatch):
    greys = shown(node, monkeypatch)
    for level in (10, 20, 30):
        scene.show(level)
    scene.ask('What is there?')
    wait_until(lambda: scene.answers)
    assert greys == [30] and scene.look.question == ''


def test_a_stale_frame_is_dropped_and_the_question_waits_for_a_fresh_one(
        node, scene, monkeypatch):
    greys = shown(node, monkeypatch)
    scene.show(40, age_s=60.0)
    scene.ask('What is there?')
    wait_until(lambda: scene.look.question)
    assert not greys and not scene.answers
    scene.show(50)
    wait_until(lambda: scene.answers)
    assert greys == [50] and scene.look.question == ''
