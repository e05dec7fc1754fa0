# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The content of a message that rclpy keeps for minutes, without what it takes in memory."""

from copy import copy


def taken(message):
    """Return a copy with the content of a message; rclpy keeps the message itself for minutes."""
    content = copy(message)
    empty(message)
    return content


def empty(message) -> None:
    """Set every field of a message to its default, so that nothing of its size is kept."""
    default = type(message)()
    for field in message.get_fields_and_field_types():
        setattr(message, field, getattr(default, field))
