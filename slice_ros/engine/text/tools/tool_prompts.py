# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tools, calls and results as messages that the chat template of a model has a place for."""

from collections.abc import Sequence
import json
import re

from slice_ros.engine.config import Message, Tool
from slice_ros.engine.text.tools.call_syntax import CallSyntax
from slice_ros.engine.text.tools.syntaxes import reads_calls, shows_tools
from slice_ros.engine.text.tools.tool_schemas import shown


def dressed(messages: Sequence[Message], tools: Sequence[Tool], syntax: CallSyntax,
            template: str) -> tuple[list[Message], list[dict]]:
    """Return messages as a chat template can show them, and the tools that it shows itself.

    Where it shows no tools, the system message says what they are; where it has no place for
    calls and results, they become words of the assistant and of the user.
    """
    listed = shown(tools)
    made = list(messages)
    if not reads_calls(template, syntax):
        made = _results_of_user([
            message._replace(content=syntax.said(message.content, message.tool_calls),
                             tool_calls=()) for message in made])
    if not listed or shows_tools(template, syntax):
        return made, listed
    words = syntax.describe(syntax, listed)
    if made and made[0].role == 'system':
        made[0] = made[0]._replace(content=f'{made[0].content}\n\n{words}')
    else:
        made.insert(0, Message('system', words))
    return made, []


def _results_of_user(messages: Sequence[Message]) -> list[Message]:
    """Return messages in which the results of tools are what the user says next."""
    made: list[Message] = []
    joined = False   # whether the last of them has a result
    for message in messages:
        result = message.role == 'tool'
        if result:
            message = Message('user', f'<tool_response>\n{message.content}\n</tool_response>')
        if joined and message.role == 'user':
            made[-1] = message._replace(content=f'{made[-1].content}\n{message.content}')
        else:
            made.append(message)
            joined = result
    return made


def neutral(messages: Sequence[Message], tools: Sequence[dict]
            ) -> tuple[list[Message], list[dict]]:
    """Return messages and tools with no sign in tools and calls that a special token could have.

    Their texts keep letters, digits and blanks: what special tokens a template's text of them has
    are its own.
    """
    return [message._replace(tool_calls=tuple(
        call._replace(arguments=json.dumps(plain(json.loads(call.arguments))))
        for call in message.tool_calls)) for message in messages], plain(list(tools))


def plain(value: object) -> object:
    """Return a value of JSON whose texts have letters, digits and blanks alone."""
    if isinstance(value, str):
        return re.sub(r'[^A-Za-z0-9_\s-]', 'x', value)
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        return {plain(name): plain(inner) for name, inner in value.items()}
    return value
