# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The topics of each SLO class: prompts in, tokens and sentences out.

Creating a topic takes the executor a while, so that those of many new classes are created one
class after another, with time for other callbacks in between.
"""

from collections.abc import Callable, Collection
from functools import partial

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from slice_ros import msg
from slice_ros.ros.isolation.boundary import logging_faults
from slice_ros.ros.qos import NO_EVENTS, PROMPTS, TOKENS
from slice_ros.serving.sentences import SentenceSplitter
from std_msgs.msg import String

# As deep as that of tokens: speaking is much slower than generating.
SENTENCES = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                       durability=DurabilityPolicy.VOLATILE)
BETWEEN = 0.02   # seconds between the topics of two new classes


class Speaker:
    """Publishes the sentences of one request for speech synthesis, each once it is complete.

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


class ClassTopics:
    """Creates and destroys the topics of the classes; `on_prompt` gets (class name, prompt)."""

    def __init__(self, node: Node, group: CallbackGroup,
                 on_prompt: Callable[[str, msg.Prompt], None]) -> None:
        self._tokens: dict[str, Publisher] = {}
        self._sentences: dict[str, Publisher] = {}
        self._prompts: dict[str, Subscription] = {}
        self._unused: set[str] = set()   # classes without use at the last `drop_unused`
        self._missing: list[str] = []    # classes without topics
        self._timer: Timer | None = None   # that creates these
        self._node, self._group, self._on_prompt = node, group, on_prompt

    def add(self, classes: Collection[str]) -> None:
        """Create the topics of every class that has none, each class at a tick of a timer."""
        self._missing = [name for name in classes if name not in self._tokens]
        if self._missing and self._timer is None:
            self._timer = self._node.create_timer(
                BETWEEN, self._create_next, callback_group=self._group,
                clock=Clock(clock_type=ClockType.STEADY_TIME))

    def create(self, name: str) -> None:
        """Create the topics of a class now, unless it has them."""
        if name not in self._tokens:
            prompts = self._node.create_subscription(
                msg.Prompt, f'~/{name}/prompt', partial(self._on_prompt, name), PROMPTS,
                callback_group=self._group)
            self._prompts[name] = prompts
            self._sentences[name] = self._node.create_publisher(
                String, f'~/{name}/sentences', SENTENCES, event_callbacks=NO_EVENTS)
            self._tokens[name] = self._node.create_publisher(
                msg.TokenChunk, f'~/{name}/tokens', TOKENS, event_callbacks=NO_EVENTS)

    def _create_next(self) -> None:
        if self._missing:
            with logging_faults('creating the topics of a class'):
                self.create(self._missing.pop(0))
        if not self._missing:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def drop_unused(self, used: Collection[str]) -> None:
        """Destroy the topics of classes that are not in `used`.

        Call it periodically: topics go at the second call, so that subscribers have time to
        receive the last messages.
        """
        self._missing = [name for name in self._missing if name in used]
        unused = self._tokens.keys() - set(used)
        for name in unused & self._unused:
            self._node.destroy_subscription(self._prompts.pop(name))
            self._node.destroy_publisher(self._tokens.pop(name))
            self._node.destroy_publisher(self._sentences.pop(name))
        self._unused = unused

    def publishers(self, name: str, language: str) -> tuple[Publisher | None, Speaker | None]:
        """Return what publishes the tokens and the sentences of one answer.

        None for a class without topics.
        """
        tokens, sentences = self._tokens.get(name), self._sentences.get(name)
        return tokens, Speaker(sentences, language) if sentences else None
