# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Decide STOP, SLOW or GO before a deadline, and STOP without a decision.

Subscribes to `scene`, what the robot sees (std_msgs/String), and publishes on `decision` what to
do. Every failure (the answer is late, refused or none of the three, the node is absent) is a STOP.
"""

from rclpy.node import Node
from rclpy.qos import QoSProfile
from slice_ros.client import run_node, SliceClient, SliceError
from std_msgs.msg import String

CHOICES = ('STOP', 'SLOW', 'GO')
EXAMPLES = (
    ('system', 'Decide for a robot: STOP (blocked or danger), SLOW (people near, slippery) or GO '
     '(free way).'),
    ('user', 'Way free.'), ('assistant', 'GO'),
    ('user', 'People near.'), ('assistant', 'SLOW'),
    ('user', 'Box 0.5 m ahead.'), ('assistant', 'STOP'))


class ControlNode(Node):
    """One decision for each scene; while it decides, only the newest scene is kept."""

    def __init__(self, **options) -> None:
        super().__init__('slice_control', **options)
        self.deadline_ms = self.declare_parameter('deadline_ms', 500.0).value
        self.client = SliceClient(self, self.declare_parameter('slice_node', 'slice').value)
        self.decisions = self.create_publisher(String, 'decision', 10)
        self.create_subscription(String, 'scene', self.decide, QoSProfile(depth=1))

    async def decide(self, scene: String) -> None:
        """Publish the decision on a scene, no later than the deadline."""
        decision = 'STOP'
        try:
            answer = await self.client.ask(
                [*EXAMPLES, ('user', scene.data)], 'control', choice=CHOICES, max_tokens=8,
                deadline_ms=self.deadline_ms, timeout=self.deadline_ms / 1e3)
            if answer.text in CHOICES:
                decision = answer.text
        except SliceError as error:
            self.get_logger().warning(f'stopping: {error}')
        self.decisions.publish(String(data=decision))

    def destroy_node(self) -> None:
        """Cancel live requests and leave the graph."""
        self.client.close()
        super().destroy_node()


def main() -> None:
    """Run the node until a signal."""
    run_node(ControlNode)


if __name__ == '__main__':
    main()
