# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a request asks of the chat template, and of the thought before its answer."""

from dataclasses import dataclass

from slice_ros.engine.config import template_arguments

REASONING = ('default', 'on', 'off')
THOUGHT_TOKENS = 512       # of a thought whose budget nobody has set: a fourth of the context
MAX_THOUGHT_TOKENS = 1 << 20
# Names by which chat templates turn thoughts on and off.
SWITCHES = ('enable_thinking', 'thinking')


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How a prompt is rendered, and how long the model may think.

    Raises ``ValueError`` naming the field when a value is out of range or not one of its choices.
    """

    reasoning: str = 'default'     # on | off | default: what the chat template does by itself
    budget: int = THOUGHT_TOKENS   # tokens of a thought at most; then the answer begins
    arguments: str = ''   # JSON object: names that the chat template reads; '' = none
    defaults: str = ''    # the same of the class: a template need not read them

    def __post_init__(self) -> None:
        if self.reasoning not in REASONING:
            raise ValueError(f'reasoning must be one of {", ".join(REASONING)}, '
                             f'not {self.reasoning!r:.80}')
        if not 1 <= self.budget <= MAX_THOUGHT_TOKENS:
            raise ValueError(f'reasoning_budget must be from 1 to {MAX_THOUGHT_TOKENS} tokens, '
                             f'not {self.budget}')
        template_arguments(self.arguments)
        template_arguments(self.defaults)


def names_a_switch(arguments: str) -> bool:
    """Return whether template arguments, a JSON object or '', turn thoughts on or off."""
    return not template_arguments(arguments).keys().isdisjoint(SWITCHES)
