# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How a request is refused or fails: one code, and one sentence that tells what to change.

The numbers are those of ``action/Generate.action``; a unit test holds the two together.
"""

from enum import IntEnum


class ErrorCode(IntEnum):
    """Outcome of a request; 0 is success."""

    NONE = 0
    INVALID_REQUEST = 1
    UNKNOWN_SLO_CLASS = 2
    PROMPT_TOO_LONG = 3
    INFEASIBLE_SLO = 4
    QUEUE_FULL = 5
    OUT_OF_MEMORY = 6
    ENGINE_FAILURE = 7
    CANCELLED = 8
    DEADLINE_MISSED = 9
    SHUTTING_DOWN = 10
    NOT_READY = 11
    SESSION_BUSY = 12
    FORMAT_INCOMPLETE = 13


class RequestError(Exception):
    """A request that cannot be served, with the code and the sentence for its caller."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ModelError(Exception):
    """A model that cannot be loaded; the sentence names what was looked for and what to do."""


def one_line(error: Exception) -> str:
    """Return the message of an error on one line of at most 400 characters."""
    return ' '.join(str(error).split())[:400] or type(error).__name__
