# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The tags around a thought, as a model's chat template or tokenizer shows them."""

from collections.abc import Container
from dataclasses import dataclass
import re

from slice_ros.engine.chat_options import SWITCHES


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """What a thought begins and ends with, and the names that turn it on or off in a template."""

    start: str
    end: str
    switches: tuple[str, ...] = ()

    @property
    def opening(self) -> str:
        """The beginning of an answer that thinks, as Qwen3 and DeepSeek-R1 write it."""
        return f'{self.start}\n'

    @property
    def closing(self) -> str:
        """The end of a thought that is cut, up to the answer."""
        return f'\n{self.end}\n\n'

    def arguments(self, reasoning: str) -> dict[str, bool]:
        """Return the arguments that turn thoughts on or off in the chat template."""
        return {} if reasoning == 'default' else {
            name: reasoning == 'on' for name in self.switches}

    def completed(self, prompt: str, reasoning: str) -> str:
        """Return a rendered prompt that ends in a thought, or behind one, as `reasoning` asks.

        Templates do most of that. Some have no switch, and some leave the start tag to the model.
        Without thoughts, the answer follows an empty one, as Qwen3 and SmolLM3 are trained.
        """
        text = prompt.rstrip()
        if reasoning == 'default' or text.endswith(self.end):
            return prompt
        if text.endswith(self.start):
            return prompt if reasoning == 'on' else f'{text}\n{self.closing}'
        if reasoning == 'on':
            return prompt + self.opening
        return prompt if self.switches else prompt + self.opening + self.closing


_KNOWN = (
    ThinkTags('<think>', '</think>'),   # Qwen3, DeepSeek-R1, SmolLM3, GLM, Nemotron ...
    ThinkTags('[THINK]', '[/THINK]'),   # Magistral
    ThinkTags('<seed:think>', '</seed:think>'),   # Seed-OSS
    ThinkTags('<thought>', '</thought>'))         # EXAONE Deep


def find_tags(template: str | None, vocabulary: Container[str]) -> ThinkTags | None:
    """Return the tags that a chat template shows or that are both tokens; None without any."""
    source = template or ''
    for tags in _KNOWN:
        if tags.start in source or tags.end in source or (
                tags.start in vocabulary and tags.end in vocabulary):
            names = tuple(name for name in SWITCHES if re.search(rf'\b{name}\b', source))
            return ThinkTags(tags.start, tags.end, names)
    return None
