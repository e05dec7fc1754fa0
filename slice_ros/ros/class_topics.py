# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The topics of each SLO class: prompts in, tokens and sentences out."""

from collections.abc import Callable, Collection
from functools import partial

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription
from slice_ros import msg
from slice_ros.ros.qos import NO_EVENTS, PROMPTS, TOKENS
from slice_ros.ros.speech import SENTENCES, Speaker
from std_msgs.msg import String


class ClassTopics:
    """Creates and destroys the topics of the classes; `on_prompt` gets (class name, prompt)."""

    def __init__(self, node: Node, group: CallbackGroup,
                 on_prompt: Callable[[str, msg.Prompt], None]) -> None:
        self.tokens: dict[str, Publisher] = {}
        self._sentences: dict[str, Publisher] = {}
        self._prompts: dict[str, Subscription] = {}
        self._unused: set[str] = set()   # classes without use at the last `drop_unused`
        self._node, self._group, self._on_prompt = node, group, on_prompt

    def add(self, classes: Collection[str]) -> None:
        """Create the topics of every class that has none."""
        for name in classes:
            if name not in self.tokens:
                self.tokens[name] = self._node.create_publisher(
                    msg.TokenChunk, f'~/{name}/tokens', TOKENS, event_callbacks=NO_EVENTS)
                self._sentences[name] = self._node.create_publisher(
                    String, f'~/{name}/sentences', SENTENCES, event_callbacks=NO_EVENTS)
                self._prompts[name] = self._node.create_subscription(
                    msg.Prompt, f'~/{name}/prompt', partial(self._on_prompt, name), PROMPTS,
                    callback_group=self._group)

    def drop_unused(self, used: Collection[str]) -> None:
        """Destroy the topics of classes that are not in `used`.

        Call it periodically: topics go at the second call, so that subscribers have time to
        receive the last messages.
        """
        unused = self.tokens.keys() - set(used)
        for name in unused & self._unused:
            self._node.destroy_subscription(self._prompts.pop(name))
            self._node.destroy_publisher(self.tokens.pop(name))
            self._node.destroy_publisher(self._sentences.pop(name))
        self._unused = unused

    def speaker(self, name: str, language: str) -> Speaker | None:
        """Return what publishes the sentences of one answer; None for an unknown class."""
        publisher = self._sentences.get(name)
        return Speaker(publisher, language) if publisher else None
