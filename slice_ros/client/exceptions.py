# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Why a request was not served, as exceptions: one class for each reaction of a caller."""

from typing import ClassVar

from slice_ros.errors import ErrorCode


class SliceError(Exception):
    """A request that was not served.

    `code` is a constant of `action/Generate` (an `ErrorCode` if this version knows it).
    `message` is one sentence with what to change. `answer` is the text before the end, with its
    report; None if the node sent no result.
    """

    codes: ClassVar[tuple[ErrorCode, ...]] = ()  # the codes raised as this class

    def __init__(self, message: str, code: int | None = None, answer=None) -> None:
        """Make it; the default code is the first one of its class."""
        super().__init__(message)
        self.message, self.answer = message, answer
        self.code = self.codes[0] if code is None else code


class InvalidRequest(SliceError):
    """The request is invalid: change it."""

    codes = (ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_SLO_CLASS, ErrorCode.PROMPT_TOO_LONG)


class Infeasible(SliceError):
    """The objectives cannot be met now: relax them, or ask again under less load."""

    codes = (ErrorCode.INFEASIBLE_SLO,)


class QueueFull(SliceError):
    """The queue of the node is full: ask again later."""

    codes = (ErrorCode.QUEUE_FULL,)


class EngineFailure(SliceError):
    """The model failed, or had no memory for this request."""

    codes = (ErrorCode.ENGINE_FAILURE, ErrorCode.OUT_OF_MEMORY)


class Cancelled(SliceError):
    """Cancelled by the caller, by `SliceClient.close`, or through ~/cancel."""

    codes = (ErrorCode.CANCELLED,)


class DeadlineMissed(SliceError):
    """The request missed an objective, and the node is set to drop such requests."""

    codes = (ErrorCode.DEADLINE_MISSED,)


class Unavailable(SliceError):
    """No node serves now: wait until it is ready."""

    codes = (ErrorCode.NOT_READY, ErrorCode.SHUTTING_DOWN)


class SessionBusy(SliceError):
    """Another request of the same session is live: wait for it, or cancel it."""

    codes = (ErrorCode.SESSION_BUSY,)


class FormatIncomplete(SliceError):
    """max_tokens ended the answer before its format was complete: allow more."""

    codes = (ErrorCode.FORMAT_INCOMPLETE,)


class Timeout(SliceError, TimeoutError):
    """No complete answer within the caller's `timeout`; the request was cancelled."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ErrorCode.CANCELLED)


_CLASSES = {code: error for error in SliceError.__subclasses__() for code in error.codes}


def error_for(code: int, message: str, answer=None) -> SliceError:
    """Return the exception of an error code; a plain `SliceError` for an unknown code."""
    if code in _CLASSES:
        return _CLASSES[code](message, ErrorCode(code), answer)
    return SliceError(message, code, answer)
