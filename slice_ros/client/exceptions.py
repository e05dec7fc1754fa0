# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a request, as exceptions: one class for each thing a caller can do."""

from typing import ClassVar

from slice_ros.errors import ErrorCode


class SliceError(Exception):
    """A request that was not served.

    `code` is a constant of `action/Generate` (an `ErrorCode` where this version knows it),
    `message` one sentence that says what to change, and `answer` what came before the end, with
    its report; None where the node did not say.
    """

    codes: ClassVar[tuple[ErrorCode, ...]] = ()  # those that end in this class

    def __init__(self, message: str, code: int | None = None, answer=None) -> None:
        """Make it; without a code it has the first one of its class."""
        super().__init__(message)
        self.message, self.answer = message, answer
        self.code = self.codes[0] if code is None else code


class InvalidRequest(SliceError):
    """The request itself cannot be served: change it."""

    codes = (ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_SLO_CLASS, ErrorCode.PROMPT_TOO_LONG)


class Infeasible(SliceError):
    """The objectives cannot be met now: relax them, or ask when there is less load."""

    codes = (ErrorCode.INFEASIBLE_SLO,)


class QueueFull(SliceError):
    """As many requests wait as the node takes: ask again later."""

    codes = (ErrorCode.QUEUE_FULL,)


class EngineFailure(SliceError):
    """The model failed, or had no memory for this request."""

    codes = (ErrorCode.ENGINE_FAILURE, ErrorCode.OUT_OF_MEMORY)


class Cancelled(SliceError):
    """Ended by the caller, by `SliceClient.close`, or through ~/cancel."""

    codes = (ErrorCode.CANCELLED,)


class DeadlineMissed(SliceError):
    """Out of reach of its deadline, and the node drops such requests."""

    codes = (ErrorCode.DEADLINE_MISSED,)


class Unavailable(SliceError):
    """There is no node, or none that serves now: wait until it is ready."""

    codes = (ErrorCode.NOT_READY, ErrorCode.SHUTTING_DOWN)


class SessionBusy(SliceError):
    """Another request of the same session is live: wait for it, or cancel it."""

    codes = (ErrorCode.SESSION_BUSY,)


class FormatIncomplete(SliceError):
    """max_tokens ended the answer before it was whole in its format: allow more."""

    codes = (ErrorCode.FORMAT_INCOMPLETE,)


class Timeout(SliceError, TimeoutError):
    """No whole answer within the caller's own `timeout`; the request was cancelled."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ErrorCode.CANCELLED)


_CLASSES = {code: kind for kind in SliceError.__subclasses__() for code in kind.codes}


def error_for(code: int, message: str, answer=None) -> SliceError:
    """Return the exception of an error code; a plain `SliceError` for one not known here."""
    if code in _CLASSES:
        return _CLASSES[code](message, ErrorCode(code), answer)
    return SliceError(message, code, answer)
