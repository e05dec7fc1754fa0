# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Turn a sentence into a goal pose: "Take this to the kitchen" becomes a PoseStamped.

Subscribes to sentences on `instruction` (std_msgs/String) and publishes on `goal_pose`, Nav2's
topic. The answer is JSON under a schema, so that it can only name a known place.
"""

import math

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from slice_ros.client import run_node, SliceClient, SliceError
from std_msgs.msg import String

PLACES = {'kitchen': (8.0, 2.5), 'lab': (-3.0, 6.0), 'lift': (0.0, 4.0), 'charger': (0.0, 0.0)}
HEADINGS = {'north': 90.0, 'east': 0.0, 'south': -90.0, 'west': 180.0}
SCHEMA = {
    'type': 'object',
    'properties': {'place': {'enum': list(PLACES)}, 'heading': {'enum': list(HEADINGS)}},
    'required': ['place', 'heading'],
    'additionalProperties': False,
}
EXAMPLES = (
    ('system', f'Places: {", ".join(PLACES)}. Say as JSON where the robot shall go and which way '
     'it shall face at the end: north where nothing is said.'),
    ('user', 'Drive to the charger and look south.'),
    ('assistant', '{"place": "charger", "heading": "south"}'),
    ('user', 'Bring this parcel to the lab, please.'),
    ('assistant', '{"place": "lab", "heading": "north"}'))


class PlannerNode(Node):
    """One goal pose for each sentence that names a place."""

    def __init__(self, **options) -> None:
        super().__init__('slice_planner', **options)
        self.frame = self.declare_parameter('frame_id', 'map').value
        self.client = SliceClient(self, self.declare_parameter('slice_node', 'slice').value)
        self.goals = self.create_publisher(PoseStamped, 'goal_pose', 10)
        self.create_subscription(String, 'instruction', self.plan, 10)

    async def plan(self, instruction: String) -> None:
        """Publish the goal of a sentence; log the reason if there is none."""
        try:
            answer = await self.client.ask(
                [*EXAMPLES, ('user', instruction.data)], 'navigation', schema=SCHEMA,
                max_tokens=40, timeout=10.0)
        except SliceError as error:
            self.get_logger().error(f'no goal for {instruction.data!r}: {error}')
            return
        self.goals.publish(self.pose(answer.json['place'], answer.json['heading']))

    def pose(self, place: str, heading: str) -> PoseStamped:
        """Return the pose of a place, facing a point of the compass."""
        goal = PoseStamped()
        goal.header.frame_id = self.frame
        goal.header.stamp = self.get_clock().now().to_msg()
        goal.pose.position.x, goal.pose.position.y = PLACES[place]
        half = math.radians(HEADINGS[heading]) / 2
        goal.pose.orientation.z, goal.pose.orientation.w = math.sin(half), math.cos(half)
        return goal

    def destroy_node(self) -> None:
        """Cancel live requests and leave the graph."""
        self.client.close()
        super().destroy_node()


def main() -> None:
    """Run the node until a signal."""
    run_node(PlannerNode)


if __name__ == '__main__':
    main()
