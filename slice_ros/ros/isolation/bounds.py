# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Bounds on all that a caller sends, by length alone: checked before anything else is done.

A text has at least as many bytes as characters, so that one with too many characters is refused
without looking at it. Bounds in bytes are checked exactly by `conversions` and the engine.
"""

from copy import copy

from slice_ros.engine.config import MAX_STOP_BYTES, MAX_STOPS
from slice_ros.errors import ErrorCode, RequestError

MAX_NAME = 63            # characters of the name of an SLO class
MAX_ID = 128             # characters of a request id or a session id
MAX_WORD = 32            # characters of a role or the type of a response format
MAX_CHOICES = 256        # of a response format
MAX_FORMAT_BYTES = 32768   # of its choices, or its grammar
HEAVY = 4096             # characters from which on reading a request takes long


def invalid(sentence: str) -> RequestError:
    """Return the refusal of a value that cannot be served."""
    return RequestError(ErrorCode.INVALID_REQUEST, sentence)


def check_request(goal, max_messages: int, max_text_bytes: int) -> None:
    """Raise `RequestError` when any field of a goal, request or prompt is too long."""
    check_texts(goal, max_messages, max_text_bytes)
    check_id('session_id', goal.session_id)
    if len(goal.stop) > MAX_STOPS:
        raise invalid(f'{len(goal.stop)} stop texts are too many: give {MAX_STOPS} at most')
    for number, text in enumerate(goal.stop):
        if not 0 < len(text) <= MAX_STOP_BYTES:
            raise invalid(f'stop[{number}] must have 1 to {MAX_STOP_BYTES} bytes')
    form = goal.response_format
    _check_word('response_format.type', form.type)
    if len(form.choices) > MAX_CHOICES:
        raise invalid(f'response_format has {len(form.choices)} choices: give {MAX_CHOICES} at '
                      'most')
    size = len(form.grammar) + sum(map(len, form.choices))
    if size > MAX_FORMAT_BYTES:
        raise invalid(f'response_format has {size} bytes: shorten it to {MAX_FORMAT_BYTES} at '
                      'most')


def check_texts(goal, max_messages: int, max_text_bytes: int) -> None:
    """Raise `RequestError` when the prompt or the messages are too long or too many."""
    if len(goal.messages) > max_messages:
        raise invalid(f'{len(goal.messages)} messages are too many: give {max_messages} at most')
    for number, message in enumerate(goal.messages):
        _check_word(f'messages[{number}].role', message.role)
    check_size(text_length(goal), max_text_bytes)


def check_size(size: int, max_text_bytes: int) -> None:
    """Raise `RequestError` when texts of `size` bytes, or at least that, are too long."""
    if size > max_text_bytes:
        raise RequestError(ErrorCode.PROMPT_TOO_LONG,
                           f'the text has {size} bytes: shorten it to {max_text_bytes}')


def check_id(field: str, text: str) -> None:
    """Raise `RequestError` when the id of a request or a session cannot be used."""
    if not is_id(text):
        raise invalid(f'{field} must be printable and have {MAX_ID} characters at most')


def is_id(text: str) -> bool:
    """Return whether a text can be the id of a request or a session, or none."""
    return len(text) <= MAX_ID and text.isprintable()


def text_length(goal) -> int:
    """Return the characters of the prompt and of all messages."""
    return len(goal.prompt) + sum(len(message.content) for message in goal.messages)


def is_heavy(goal) -> bool:
    """Return whether reading a goal may take long: much text, or a grammar to compile."""
    form = goal.response_format
    return bool(form.grammar) or text_length(goal) + sum(map(len, form.choices)) > HEAVY


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


def _check_word(field: str, text: str) -> None:
    if len(text) > MAX_WORD:
        raise invalid(f'{field} has {len(text)} characters: the interface lists what it can be')
