# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Sentences of the answers of a class on a topic, for speech."""

from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from slice_ros.serving.sentences import SentenceSplitter
from std_msgs.msg import String

# As tokens: who speaks is much slower than who writes.
SENTENCES = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                       durability=DurabilityPolicy.VOLATILE)


class Speaker:
    """Publishes the sentences of one request, each as soon as it is finished.

    Nothing is split while nobody listens. Who comes in the middle of an answer hears it from the
    sentence on that is unfinished then.
    """

    def __init__(self, publisher: Publisher, language: str) -> None:
        self._publisher, self._language = publisher, language
        self._splitter: SentenceSplitter | None = None

    def say(self, pieces: list[str], served: bool) -> None:
        """Publish what the last of all `pieces` so far finishes; `served`: it ends the answer."""
        if not self._publisher.get_subscription_count():
            self._splitter = None
            return
        if self._splitter is None:
            self._splitter = SentenceSplitter(self._language)
            self._splitter.push(''.join(pieces[:-1]))
        for sentence in self._splitter.push(pieces[-1]):
            self._publisher.publish(String(data=sentence))
        if served:
            for sentence in self._splitter.flush():
                self._publisher.publish(String(data=sentence))
