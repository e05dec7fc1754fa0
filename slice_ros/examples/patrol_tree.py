# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Patrol, ask, decide: a behaviour tree whose decisions a language model takes.

Publishes the next place on `waypoint` (std_msgs/String) and waits for what the robot sees there on
`seen`. The model decides whether to report that, and the report is spoken on `say`. Without a
decision in time there is a report: too many are better than one too few.
"""

from itertools import cycle
import operator

from py_trees.behaviour import Behaviour
from py_trees.behaviours import CheckBlackboardVariableValue
from py_trees.blackboard import Blackboard
from py_trees.common import ComparisonExpression, Status
from py_trees.composites import Selector, Sequence
from py_trees.trees import BehaviourTree
from rclpy.node import Node
from slice_ros.behaviours import AskChoice, Say
from slice_ros.client import run_node, SliceClient
from std_msgs.msg import String

PLACES = ('gate', 'corridor', 'storage', 'dock')
TICK = 0.05   # seconds
EXAMPLES = (
    ('system', 'You watch a warehouse. Say GO_ON where all is as usual, else REPORT.'),
    ('user', 'gate: closed, nobody there.'), ('assistant', 'GO_ON'),
    ('user', 'corridor: smoke.'), ('assistant', 'REPORT'))


class Patrol(Behaviour):
    """Sends the robot to the next place, and succeeds with what it sees there."""

    def __init__(self, node: 'PatrolNode') -> None:
        super().__init__('patrol')
        self.node, self.places, self.place = node, cycle(PLACES), ''

    def initialise(self) -> None:
        self.place, self.node.seen = next(self.places), None
        self.node.waypoints.publish(String(data=self.place))

    def update(self) -> Status:
        if self.node.seen is None:
            return Status.RUNNING
        Blackboard.set('seen', f'{self.place}: {self.node.seen}')
        return Status.SUCCESS


class PatrolNode(Node):
    """Ticks the tree; a round ends when the tree has decided on one place."""

    def __init__(self, **options) -> None:
        super().__init__('slice_patrol', **options)
        deadline = self.declare_parameter('deadline_ms', 1000.0).value / 1e3
        self.client = SliceClient(self, self.declare_parameter('slice_node', 'slice').value)
        self.waypoints = self.create_publisher(String, 'waypoint', 10)
        self.speech = self.create_publisher(String, 'say', 10)
        self.seen: str | None = None
        self.create_subscription(String, 'seen', self.on_seen, 10)
        ask = AskChoice(
            'ask', lambda: [*EXAMPLES, ('user', Blackboard.get('seen'))], key='decision',
            choices=('GO_ON', 'REPORT'), slo_class='control', deadline=deadline,
            fallback='REPORT')
        usual = CheckBlackboardVariableValue(
            'as usual', ComparisonExpression('decision', 'GO_ON', operator.eq))
        report = Say(
            'report', lambda: f'Report in one short sentence: {Blackboard.get("seen")}',
            key='report', say=self.say, max_tokens=30, deadline=10.0,
            fallback='Something is not as usual here.')
        self.tree = BehaviourTree(Sequence('round', memory=True, children=[
            Patrol(self), ask, Selector('decide', memory=True, children=[usual, report])]))
        self.tree.setup(client=self.client)
        self.create_timer(TICK, self.tree.tick)

    def on_seen(self, message: String) -> None:
        """Keep what the robot sees at the place that it was sent to."""
        self.seen = message.data

    def say(self, text: str) -> None:
        """Speak a piece of a report."""
        self.speech.publish(String(data=text))

    def destroy_node(self) -> None:
        """Cancel live requests and leave the graph."""
        self.tree.shutdown()
        self.client.close()
        super().destroy_node()


def main() -> None:
    """Run the node until a signal."""
    run_node(PatrolNode)


if __name__ == '__main__':
    main()
