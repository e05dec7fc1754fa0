# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Answers as robots ask for them, as JSON schemas."""

from dataclasses import dataclass
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slice_ros.engine import ResponseFormat


def _record(**properties: dict) -> dict:
    return {'type': 'object', 'properties': properties, 'required': list(properties),
            'additionalProperties': False}


_METRES = {'type': 'number', 'minimum': -9, 'maximum': 9, 'multipleOf': 0.1}
_PLACES = ('kitchen', 'charging_station', 'loading_dock', 'workshop')
_ACTION = _record(action={'enum': ['navigate_to', 'pick_up', 'put_down', 'wait_for_person']},
                  target={'enum': list(_PLACES)}, allow_replanning={'type': 'boolean'})

SCHEMAS = {
    # What a planner node executes: three actions of a fixed vocabulary.
    'planner': _record(plan={'type': 'array', 'items': _ACTION, 'minItems': 3, 'maxItems': 3}),
    'tool_call': _record(name={'enum': ['move_gripper', 'drive_to', 'say']}, arguments=_record(
        target={'type': 'string', 'maxLength': 12}, seconds={
            'type': 'integer', 'minimum': 1, 'maximum': 99})),
    # In words of the model's own.
    'steps': _record(steps={'type': 'array', 'minItems': 2, 'maxItems': 2, 'items': _record(
        description={'type': 'string', 'maxLength': 24}, seconds={
            'type': 'integer', 'minimum': 1, 'maximum': 99})}),
    'pose': _record(frame_id={'enum': ['map', 'odom', 'base_link']}, position=_record(
        x=_METRES, y=_METRES), yaw=_METRES),
    'choice': {'enum': [f'go_to_{place}' for place in _PLACES]},
}


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of an answer with the embedded model: a usual one, its forced share, the longest."""

    tokens: int
    forced: float
    most: int


# Those that a workload asks for, by the room that its classes leave.
SIZES = {'choice': Size(10, .8, 15), 'pose': Size(37, .65, 60), 'planner': Size(83, .87, 120)}


def response_format(name: str) -> 'ResponseFormat':
    """Return the response format of one of `SCHEMAS`."""
    from slice_ros.engine import ResponseFormat  # a simulation does without torch
    return ResponseFormat('json_schema', grammar=json.dumps(SCHEMAS[name]))


def longest_within(tokens: int) -> str:
    """Return the name of the longest of `SIZES` within `tokens`; of the shortest if none is."""
    return max((name for name, size in SIZES.items() if size.most <= tokens),
               key=lambda name: SIZES[name].most, default='choice')
