# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What is expected of the examples and the demo beside a node, each written once.

As in `serving_checks`: launch tests and process tests run the same checks.
"""

import json
from pathlib import Path
import time

from geometry_msgs.msg import PoseStamped
from robot import Robot
from slice_ros.cli.robots_minute import SCRIPT
from slice_ros.examples.control import CHOICES
from slice_ros.examples.goal_planner import PLACES
from std_msgs.msg import String


def answer_of(robot: Robot, topic_in: str, text: str, topic_out: str, kind: type):
    """Publish `text` on a topic of the robot's namespace; return the next message on another."""
    namespace = robot.server.rpartition('/')[0]
    received = []
    topic = robot.node.create_publisher(String, f'{namespace}/{topic_in}', 10)
    subscription = robot.node.create_subscription(kind, f'{namespace}/{topic_out}',
                                                  received.append, 10)
    robot.wait_for(lambda: topic.get_subscription_count(),
                   f'no subscriber of {namespace}/{topic_in}')
    robot.wait_for(lambda: robot.node.count_publishers(f'{namespace}/{topic_out}'),
                   f'no publisher of {namespace}/{topic_out}')
    time.sleep(0.3)  # the other side has to find us, too
    topic.publish(String(data=text))
    robot.wait_for(lambda: received, f'no answer on {namespace}/{topic_out}')
    robot.node.destroy_publisher(topic)
    robot.node.destroy_subscription(subscription)
    return received[0]


def received_count(robot: Robot, slo_class: str) -> int:
    """Return how many requests of a class the node has had."""
    return next(c.received for c in robot.status().scheduler.classes if c.slo.name == slo_class)


def check_control(robot: Robot):
    """A scene is answered by one of the choices, and the node was asked for it."""
    before = received_count(robot, 'control')
    decision = answer_of(robot, 'scene', 'Box 0.5 m ahead.', 'decision', String)
    assert decision.data in CHOICES and received_count(robot, 'control') == before + 1


def check_planner(robot: Robot):
    """An instruction becomes a pose at a known place."""
    goal = answer_of(robot, 'instruction', 'Bring this to the lab.', 'goal_pose', PoseStamped)
    assert goal.header.frame_id == 'map'
    assert (goal.pose.position.x, goal.pose.position.y) in PLACES.values()


def check_talker(robot: Robot):
    """A sentence on `heard` is answered on `say`."""
    answer = answer_of(robot, 'heard', 'Hello! Who are you?', 'say', String)
    assert answer.data == answer.data.strip() != ''


EXAMPLE_CHECKS = (check_control, check_planner, check_talker)


def check_demo_report(path: Path):
    """The demo wrote its figures, and every request was answered."""
    report = json.loads(path.read_text())
    assert report['requests'] == report['answered'] == len(SCRIPT)
    assert {name: figures['requests'] for name, figures in report['classes'].items()} == {
        name: sum(line.slo_class == name for line in SCRIPT)
        for name in ('control', 'navigation', 'dialogue')}
