# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Answer questions about what a camera sees: the newest frame counts, and a stale one never.

Subscribes to `image` (sensor_msgs/Image) and `image/compressed` (sensor_msgs/CompressedImage), as
cameras publish them, and to `question` (std_msgs/String); publishes the answer on `answer`. A
question without a fresh frame waits for the next one. A new question takes the place of the last.
"""

from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from slice_ros.client import Cancelled, run_node, SliceClient, SliceError, Stream
from std_msgs.msg import String

Frame = Image | CompressedImage


class LookNode(Node):
    """One answer at a time, about the newest frame."""

    def __init__(self, **options) -> None:
        super().__init__('slice_look', **options)
        self.client = SliceClient(self, self.declare_parameter('slice_node', 'slice').value)
        self.slo_class = self.declare_parameter('slo_class', 'navigation').value
        self.max_tokens = self.declare_parameter('max_tokens', 40).value
        self.max_age_s = self.declare_parameter('max_age_s', 1.0).value
        self.answers = self.create_publisher(String, 'answer', 10)
        self.frame: Frame | None = None    # the newest one
        self.question = ''                 # that waits for a fresh frame
        self.stream: Stream | None = None
        self.create_subscription(String, 'question', self.ask, 10)
        for kind, topic in ((Image, 'image'), (CompressedImage, 'image/compressed')):
            self.create_subscription(kind, topic, self.see, qos_profile_sensor_data)

    def see(self, frame: Frame) -> None:
        """Keep a frame, and ask about it if a question waits."""
        self.frame = frame
        if self.question:
            self.look()

    def ask(self, question: String) -> None:
        """Ask about the newest frame, if it is fresh."""
        if self.stream is not None:
            self.stream.cancel()
        self.question = question.data
        self.look()

    def look(self) -> None:
        """Send the question with the frame, unless that is stale."""
        if self.frame is None or self.age_s(self.frame) > self.max_age_s:
            return
        question, self.question = self.question, ''
        try:
            self.stream = self.client.generate(
                [{'role': 'user', 'content': question, 'images': [self.frame]}], self.slo_class,
                max_tokens=self.max_tokens)
        except SliceError as error:
            self.get_logger().error(f'cannot ask: {error}')
            return
        self.executor.create_task(self.answer, self.stream)

    def age_s(self, frame: Frame) -> float:
        """Return how long ago a frame was taken, by the clock of this node."""
        return (self.get_clock().now() - Time.from_msg(
            frame.header.stamp, self.get_clock().clock_type)).nanoseconds / 1e9

    async def answer(self, stream: Stream) -> None:
        """Publish the answer when it is complete."""
        try:
            answer = await stream
        except Cancelled:
            return
        except SliceError as error:
            self.get_logger().error(f'no answer: {error}')
            return
        self.answers.publish(String(data=answer.text.strip()))

    def destroy_node(self) -> None:
        """Cancel live requests and leave the graph."""
        self.client.close()
        super().destroy_node()


def main() -> None:
    """Run the node until a signal."""
    run_node(LookNode)


if __name__ == '__main__':
    main()
