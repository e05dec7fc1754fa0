# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The script of the demo: the requests of a delivery robot in a busy minute.

The pauses between requests are short, so that the three classes overlap. What the requests of a
class begin with is a parameter of the node, so that the first of them need not wait for it.
"""

from dataclasses import dataclass
import json

_CONTROL = (
    ('system', 'Decide for a robot: STOP (blocked or danger), SLOW (people near, slippery) or GO '
     '(free way).'),
    ('user', 'Way free.'),
    ('assistant', 'GO, the way is free.'),
    ('user', 'People near.'),
    ('assistant', 'SLOW, people are near.'),
    ('user', 'Box 0.5 m ahead.'),
    ('assistant', 'STOP, a box blocks the way.'))
_NAVIGATION = (
    ('system', 'You guide a delivery robot through a building. The lift is at the end of corridor '
     'A. The kitchen is on floor 2, to the left of the lift. The lab is on floor 3, to the right '
     'of the lift. Answer in two short sentences.'),)
_DIALOGUE = (
    ('system', 'You are Pico, a friendly delivery robot in an office. Answer in a few '
     'sentences.'),)


_BEFORE = {'control': _CONTROL, 'navigation': _NAVIGATION, 'dialogue': _DIALOGUE}


@dataclass(frozen=True, slots=True)
class Line:
    """One request: when it is sent, in seconds from the start, and what it asks."""

    at: float
    slo_class: str
    user: str
    max_tokens: int

    @property
    def messages(self) -> tuple[tuple[str, str], ...]:
        """Return the conversation as (role, content) pairs."""
        return (*_BEFORE[self.slo_class], ('user', self.user))


def preambles() -> dict[str, str]:
    """Return the parameters that name what the requests of each class begin with."""
    return {f'slo.{name}.preamble': json.dumps([{'role': role, 'content': text}
                                                for role, text in messages])
            for name, messages in _BEFORE.items()}


SCRIPT = (
    Line(0.0, 'dialogue', 'Hello Pico! Who are you, and what do you do all day?', 120),
    Line(0.3, 'control', 'A door ahead is closing.', 12),
    Line(0.5, 'navigation', 'I am in corridor A. How do I get to the kitchen?', 50),
    Line(3.0, 'control', 'A wall is 0.3 m ahead.', 14),
    Line(6.0, 'dialogue', 'Can you tell me a short story about a robot and a cat?', 160),
    Line(6.2, 'navigation', 'The lift is out of order. What should I do with a parcel for the '
         'lab?', 60),
    Line(6.3, 'control', 'A child runs across, 1 m ahead.', 14),
    Line(9.0, 'control', 'The floor ahead is wet.', 16),
    Line(12.0, 'dialogue', 'What is the weather like on Mars?', 100),
    Line(12.2, 'control', 'Two people talk in the corridor, 2 m ahead.', 16),
    Line(12.3, 'navigation', 'I leave the lift on floor 3. Where is the lab?', 40),
    Line(15.0, 'control', 'The corridor is empty again.', 12),
    Line(18.0, 'dialogue', 'Why do people drink so much coffee?', 80),
    Line(18.2, 'control', 'A forklift comes towards you, 3 m ahead.', 16),
    Line(18.3, 'navigation', 'The parcel is delivered. How do I get from the lab back to the '
         'lift?', 50),
    Line(18.5, 'control', 'Stairs go down 0.5 m ahead.', 12),
)
