# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of what a caller says of tools: their schemas, and the calls in a conversation."""

from collections.abc import Iterable, Sequence
import json
import re

from slice_ros.engine.config import MAX_TOOL_BYTES, MAX_TOOLS, Message, Tool
from slice_ros.engine.text.schema_limits import read_schema
from slice_ros.errors import ErrorCode, RequestError

CHOICES = ('none', 'auto', 'required')
_NAME = re.compile('[A-Za-z0-9_-]{1,64}')
_NONE = '{"type": "object", "properties": {}}'


def check_tools(tools: Sequence[Tool]) -> None:
    """Raise ``RequestError``, INVALID_REQUEST, for tools that no model can be given."""
    if len(tools) > MAX_TOOLS:
        raise _invalid(f'{len(tools)} tools are too many: give {MAX_TOOLS} at most')
    size = sum(len(text) for tool in tools for text in tool)
    if size <= MAX_TOOL_BYTES:
        size = sum(len(text.encode(errors='replace')) for tool in tools for text in tool)
    if size > MAX_TOOL_BYTES:
        raise _invalid(f'the tools have {size} bytes: shorten them to {MAX_TOOL_BYTES} at most')
    names = set()
    for number, tool in enumerate(tools):
        if not _NAME.fullmatch(tool.name) or tool.name in CHOICES:
            raise _invalid(f'tools[{number}].name is {tool.name!r:.80}: give 1 to 64 letters, '
                           f'digits, _ and -, and none of {", ".join(CHOICES)}')
        if tool.name in names:
            raise _invalid(f'tools[{number}].name: two tools have the name {tool.name}')
        names.add(tool.name)
        _readable(f'tools[{number}].description', tool.description)
        _object(f'tools[{number}].parameters', tool.parameters or _NONE)


def shown(tools: Iterable[Tool]) -> list[dict]:
    """Return checked tools as chat templates and descriptions show them."""
    return [{'type': 'function', 'function': {
        'name': tool.name, 'description': tool.description,
        'parameters': json.loads(tool.parameters or _NONE)}} for tool in tools]


def arguments_schema(number: int, tool: Tool) -> dict:
    """Return the schema that the arguments of a checked tool are kept to.

    It is that of the caller, of an object, and allows no property that it does not name unless it
    says so. Raises ``RequestError``, INVALID_REQUEST, where it cannot be used.
    """
    field = f'tools[{number}].parameters'
    try:
        schema = read_schema(tool.parameters or _NONE)
    except ValueError as error:
        raise _invalid(f'{field}: the JSON schema cannot be used: {error}') from None
    if schema.setdefault('type', 'object') != 'object':
        raise _invalid(f'{field}: its type must be object, since arguments have names')
    if 'properties' in schema and not {'patternProperties', 'allOf', 'anyOf', 'oneOf', '$ref',
                                       'unevaluatedProperties'} & schema.keys():
        schema.setdefault('additionalProperties', False)
    return schema


def check_calls(messages: Sequence[Message]) -> None:
    """Raise ``RequestError``, INVALID_REQUEST, for calls or results that do not fit each other."""
    called = set()
    for message in messages:
        if message.tool_calls and message.role != 'assistant':
            raise _invalid(f'tool_calls of a message of the role {message.role}: only an '
                           'assistant calls tools')
        for number, call in enumerate(message.tool_calls):
            field = f'tool_calls[{number}]'
            if not call.id or not call.id.isprintable():
                raise _invalid(f'{field}.id must be printable, and not empty')
            if not _NAME.fullmatch(call.name):
                raise _invalid(f'{field}.name is {call.name!r:.80}, which no tool can have')
            _object(f'{field}.arguments', call.arguments)
            called.add(call.id)
        if (message.role == 'tool') != bool(message.tool_call_id):
            raise _invalid('tool_call_id belongs to a message of the role tool, which must have '
                           'one: that of the call it answers')
        if message.role == 'tool' and message.tool_call_id not in called:
            raise _invalid(f'tool_call_id is {message.tool_call_id!r:.80}: no earlier message has '
                           'a call of this id')


def _object(field: str, text: str) -> None:
    _readable(field, text)
    try:
        value = json.loads(text)
        json.dumps(value, indent=1)   # a template may, which nests deeper than reading it
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _invalid(f'{field} must be a JSON object, not {text!r:.80}')


def _readable(field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _invalid(f'{field} is no Unicode text') from None


def _invalid(sentence: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, sentence)
