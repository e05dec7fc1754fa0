# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What is expected of the examples and the demo beside a node, each written once.

As in `serving_checks`: launch tests and process tests run the same checks.
"""

from array import array
import json
from pathlib import Path
import time

from geometry_msgs.msg import PoseStamped
from robot import Robot
from sensor_msgs.msg import Image
from slice_ros.cli.robots_minute import SCRIPT
from slice_ros.examples.control import CHOICES
from slice_ros.examples.goal_planner import PLACES
from slice_ros.examples.patrol_tree import PLACES as PATROL_PLACES
from std_msgs.msg import String

ASK_AGAIN = 10.0   # seconds without an answer: an example may not have discovered the node yet


def answer_of(robot: Robot, topic_in: str, text: str, topic_out: str, kind: type):
    """Publish `text` on a topic of the robot's namespace; return the next message on another."""
    namespace = robot.server.rpartition('/')[0]
    received = []
    topic = robot.node.create_publisher(String, f'{namespace}/{topic_in}', 10)
    subscription = robot.node.create_subscription(kind, f'{namespace}/{topic_out}',
                                                  received.append, 10)
    robot.wait_for(lambda: topic.get_subscription_count(),
                   f'no subscriber of {namespace}/{topic_in}')
    robot.wait_until_received(f'{namespace}/{topic_out}')
    asked = -ASK_AGAIN

    def answered():
        nonlocal asked
        if not received and time.monotonic() > asked + ASK_AGAIN:
            asked = time.monotonic()
            topic.publish(String(data=text))
        return received
    robot.wait_for(answered, f'no answer on {namespace}/{topic_out}')
    robot.node.destroy_publisher(topic)
    robot.node.destroy_subscription(subscription)
    return received[0]


def received_count(robot: Robot, slo_class: str) -> int:
    """Return how many requests of a class the node has had."""
    return next(c.received for c in robot.status().scheduler.classes if c.slo.name == slo_class)


def until_asked(robot: Robot, play):
    """Repeat `play` until the node was asked, once: return its result.

    An example that has not discovered the node goes on without.
    """
    before, results = received_count(robot, 'control'), []

    def asked():
        results.append(play())
        return received_count(robot, 'control') > before
    robot.wait_for(asked, 'the node is not asked')
    assert received_count(robot, 'control') == before + 1
    return results[-1]


def check_control(robot: Robot):
    """A scene is answered by one of the choices, and the node was asked for it."""
    decision = until_asked(robot, lambda: answer_of(
        robot, 'scene', 'Box 0.5 m ahead.', 'decision', String))
    assert decision.data in CHOICES


def check_planner(robot: Robot):
    """An instruction becomes a pose at a known place."""
    goal = answer_of(robot, 'instruction', 'Bring this to the lab.', 'goal_pose', PoseStamped)
    assert goal.header.frame_id == 'map'
    assert (goal.pose.position.x, goal.pose.position.y) in PLACES.values()


def check_talker(robot: Robot):
    """A sentence on `heard` is answered on `say`."""
    answer = answer_of(robot, 'heard', 'Hello! Who are you?', 'say', String)
    assert answer.data == answer.data.strip() != ''


def check_patrol(robot: Robot):
    """What is seen at a place is decided on, and the robot goes on to the next one."""
    namespace = robot.server.rpartition('/')[0]
    places = []
    subscription = robot.node.create_subscription(String, f'{namespace}/waypoint', places.append,
                                                  10)
    topic = robot.node.create_publisher(String, f'{namespace}/seen', 10)

    def see():
        before = len(places)
        topic.publish(String(data='a broken window.'))
        robot.wait_for(lambda: len(places) > before, 'the robot does not go on')
        return places[before]
    robot.wait_for(lambda: topic.get_subscription_count(), f'no subscriber of {namespace}/seen')
    robot.wait_until_received(f'{namespace}/waypoint')
    assert until_asked(robot, see).data in PATROL_PLACES
    robot.node.destroy_publisher(topic)
    robot.node.destroy_subscription(subscription)


def check_look(robot: Robot):
    """A question about a frame reaches the node, whose embedded model says that it cannot see."""
    namespace = robot.server.rpartition('/')[0]
    camera = robot.node.create_publisher(Image, f'{namespace}/image', 10)
    questions = robot.node.create_publisher(String, f'{namespace}/question', 10)
    robot.wait_for(lambda: camera.get_subscription_count() and questions.get_subscription_count(),
                   f'no subscriber of {namespace}/image')
    frame = Image(height=1, width=1, encoding='mono8', step=1, data=array('B', [0]))
    before = received_count(robot, 'navigation')

    def asked():
        frame.header.stamp = robot.node.get_clock().now().to_msg()
        questions.publish(String(data='What is there?'))
        camera.publish(frame)
        return received_count(robot, 'navigation') > before
    robot.wait_for(asked, 'the node is not asked about an image')
    robot.node.destroy_publisher(camera)
    robot.node.destroy_publisher(questions)


EXAMPLE_CHECKS = (check_control, check_planner, check_talker, check_patrol, check_look)


def check_demo_report(path: Path):
    """The demo wrote its figures, and every request was answered."""
    report = json.loads(path.read_text())
    assert report['requests'] == report['answered'] == len(SCRIPT)
    assert {name: figures['requests'] for name, figures in report['classes'].items()} == {
        name: sum(line.slo_class == name for line in SCRIPT)
        for name in ('control', 'navigation', 'dialogue')}
