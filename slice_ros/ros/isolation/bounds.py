# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Bounds on all that a caller sends, by length alone: checked before anything else is done.

A text has at least as many bytes as characters, so that one with too many characters is refused
without looking at it. Bounds in bytes are checked exactly by `conversions` and the engine.
"""

from slice_ros.engine.config import (
    MAX_BIASES, MAX_STOP_BYTES, MAX_STOPS, MAX_TEMPLATE_ARGUMENTS, MAX_TOOL_BYTES, MAX_TOOLS)
from slice_ros.errors import ErrorCode, RequestError

MAX_NAME = 63            # characters of the name of an SLO class, or of an adapter
MAX_ID = 128             # characters of a request id or a session id
MAX_WORD = 32            # characters of a role or the type of a response format
MAX_TEXTS = 64           # of a call of ~/embed
MAX_CHOICES = 256        # of a response format
MAX_FORMAT_BYTES = 32768   # of its choices, or its grammar
MAX_CALLS = 64           # tool calls of one message
HEAVY = 4096             # characters from which on reading a request takes long


def invalid(sentence: str) -> RequestError:
    """Return the refusal of a value that cannot be served."""
    return RequestError(ErrorCode.INVALID_REQUEST, sentence)


def check_request(goal, max_messages: int, max_text_bytes: int) -> None:
    """Raise `RequestError` when any field of a goal, request or prompt is too long."""
    check_texts(goal, max_messages, max_text_bytes)
    check_id('session_id', goal.session_id)
    if len(goal.tool_choice) > MAX_ID:
        raise invalid(f'tool_choice has {len(goal.tool_choice)} characters: give the name of a '
                      'tool, none, auto or required')
    if len(goal.adapter) > MAX_NAME:
        raise invalid(f'adapter has {len(goal.adapter)} characters: engine.adapters has the names')
    if len(goal.stop) > MAX_STOPS:
        raise invalid(f'{len(goal.stop)} stop texts are too many: give {MAX_STOPS} at most')
    for number, text in enumerate(goal.stop):
        if not 0 < len(text) <= MAX_STOP_BYTES:
            raise invalid(f'stop[{number}] must have 1 to {MAX_STOP_BYTES} bytes')
    biased = len(goal.sampling.biased_tokens) + len(goal.sampling.biases)
    if biased > 2 * MAX_BIASES:
        raise invalid(f'sampling has {biased} biases and their tokens: give {MAX_BIASES} tokens '
                      'at most')
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
    """Raise `RequestError` when prompt, messages, tools or options are too long or too many."""
    _check_word('reasoning', goal.reasoning)
    if len(goal.template_arguments) > MAX_TEMPLATE_ARGUMENTS:
        raise invalid(f'template_arguments has {len(goal.template_arguments)} characters: shorten '
                      f'it to {MAX_TEMPLATE_ARGUMENTS}')
    if len(goal.tools) > MAX_TOOLS:
        raise invalid(f'{len(goal.tools)} tools are too many: give {MAX_TOOLS} at most')
    size = tools_length(goal)
    if size > MAX_TOOL_BYTES:
        raise invalid(f'the tools have {size} bytes: shorten them to {MAX_TOOL_BYTES} at most')
    if len(goal.messages) > max_messages:
        raise invalid(f'{len(goal.messages)} messages are too many: give {max_messages} at most')
    for number, message in enumerate(goal.messages):
        field = f'messages[{number}]'
        _check_word(f'{field}.role', message.role)
        check_id(f'{field}.tool_call_id', message.tool_call_id)
        if len(message.tool_calls) > MAX_CALLS:
            raise invalid(f'{field} has {len(message.tool_calls)} tool_calls: give {MAX_CALLS} '
                          'at most')
        for call in message.tool_calls:
            check_id(f'{field}.tool_calls.id', call.id)
            check_id(f'{field}.tool_calls.name', call.name)
    check_size(text_length(goal), max_text_bytes)


def check_embedded(request, max_text_bytes: int) -> None:
    """Raise `RequestError` when there are no texts to embed, too many, or too long ones."""
    if not 1 <= len(request.texts) <= MAX_TEXTS:
        raise invalid(f'{len(request.texts)} texts: give 1 to {MAX_TEXTS}')
    _check_word('pooling', request.pooling)
    check_size(sum(map(len, request.texts)), max_text_bytes)


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
    """Return the characters of the prompt and of all messages, tool calls included."""
    return len(goal.prompt) + sum(
        len(message.content) + sum(len(call.arguments) for call in message.tool_calls)
        for message in goal.messages)


def tools_length(goal) -> int:
    """Return the characters of all tools."""
    return sum(len(tool.name) + len(tool.description) + len(tool.parameters)
               for tool in goal.tools)


def is_heavy(goal) -> bool:
    """Return whether reading a goal may take long: much text, or a grammar to compile."""
    form = goal.response_format
    return (bool(form.grammar or goal.tools)
            or text_length(goal) + sum(map(len, form.choices)) > HEAVY)


def _check_word(field: str, text: str) -> None:
    if len(text) > MAX_WORD:
        raise invalid(f'{field} has {len(text)} characters: the interface lists what it can be')
