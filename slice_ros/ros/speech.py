# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The sentences of an answer, published one by one for speech synthesis."""

from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from slice_ros.serving.sentences import SentenceSplitter
from std_msgs.msg import String

# As deep as that of tokens: speaking is much slower than generating.
SENTENCES = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                       durability=DurabilityPolicy.VOLATILE)


class Speaker:
    """Publishes the sentences of one request, each as soon as it is complete.

    Without subscribers no text is split. A subscriber that joins during an answer receives it
    from the sentence that is incomplete at that time.
    """

    def __init__(self, publisher: Publisher, language: str) -> None:
        self._publisher, self._language = publisher, language
        self._splitter: SentenceSplitter | None = None

    def publish(self, pieces: list[str], last: bool) -> None:
        """Publish the sentences that the last of `pieces` completes.

        `pieces` is all text so far; `last` is whether it ends the answer.
        """
        if not self._publisher.get_subscription_count():
            self._splitter = None
            return
        if self._splitter is None:
            self._splitter = SentenceSplitter(self._language)
            self._splitter.push(''.join(pieces[:-1]))
        for sentence in self._splitter.push(pieces[-1]):
            self._publisher.publish(String(data=sentence))
        if last:
            for sentence in self._splitter.flush():
                self._publisher.publish(String(data=sentence))
