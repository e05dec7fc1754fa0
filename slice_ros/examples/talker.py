# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Answer people aloud: the first sentence is spoken while the rest is still being generated.

Subscribes to `heard`, what a person said (std_msgs/String), and publishes on `say` one message for
each sentence of the answer. New speech interrupts: the old answer is cancelled.
"""

import re

from rclpy.node import Node
from slice_ros.client import Cancelled, run_node, SliceClient, SliceError, Stream
from std_msgs.msg import String

SYSTEM = ('system', 'You are Pico, a friendly delivery robot in an office. Answer in a few short '
          'sentences.')
SENTENCE_END = re.compile(r'(?<=[.!?])\s+|\n+')


class TalkerNode(Node):
    """One answer at a time, sentence by sentence."""

    def __init__(self, **options) -> None:
        super().__init__('slice_talker', **options)
        self.client = SliceClient(self, self.declare_parameter('slice_node', 'slice').value)
        self.max_tokens = self.declare_parameter('max_tokens', 120).value
        self.speech = self.create_publisher(String, 'say', 50)
        self.create_subscription(String, 'heard', self.answer, 10)
        self.stream: Stream | None = None

    def answer(self, speech: String) -> None:
        """Answer in a coroutine of its own, so that new speech is received meanwhile."""
        if self.stream is not None:
            self.stream.cancel()
        try:
            self.stream = self.client.generate([SYSTEM, ('user', speech.data)], 'dialogue',
                                               max_tokens=self.max_tokens)
        except SliceError as error:
            self.get_logger().error(f'cannot answer: {error}')
            return
        self.executor.create_task(self.speak, self.stream)

    async def speak(self, stream: Stream) -> None:
        """Publish each sentence of an answer as soon as it is complete."""
        pending = ''
        try:
            async for chunk in stream:
                *sentences, pending = SENTENCE_END.split(pending + chunk.text)
                for sentence in sentences:
                    self.say(sentence)
        except Cancelled:
            return
        except SliceError as error:
            self.get_logger().error(f'no whole answer: {error}')
        self.say(pending)

    def say(self, sentence: str) -> None:
        """Publish a sentence, unless it is blank."""
        if sentence.strip():
            self.speech.publish(String(data=sentence.strip()))

    def destroy_node(self) -> None:
        """Cancel live requests and leave the graph."""
        self.client.close()
        super().destroy_node()


def main() -> None:
    """Run the node until a signal."""
    run_node(TalkerNode)


if __name__ == '__main__':
    main()
