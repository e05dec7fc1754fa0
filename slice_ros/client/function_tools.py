# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Python functions as tools: their schemas, and the loop of calls and results.

pydantic makes the schemas and checks arguments. It is imported when the first function is given,
so that planners without tools do without.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
import inspect
import json
import time
from typing import Any

from slice_ros import msg
from slice_ros.client.answer import Answer
from slice_ros.client.exceptions import InvalidRequest, Timeout

Tool = msg.Tool | Mapping | Callable


class FunctionTool:
    """A function that the model may call: named as it is, described by its docstring.

    Raises `InvalidRequest` where its signature has no JSON schema, or pydantic is missing.
    """

    def __init__(self, function: Callable) -> None:
        self._function = function
        try:
            from pydantic import TypeAdapter, validate_call
            self.name = function.__name__
            self._schema = TypeAdapter(function).json_schema()
            for schema in self._schema.get('properties', {}).values():
                schema.pop('title', None)   # the name again, which costs tokens
            self._call = validate_call(function)
        except ImportError as error:
            raise InvalidRequest('functions as tools need pydantic 2: pip install pydantic, or '
                                 'give their schemas as msg.Tool') from error
        except Exception as error:   # pydantic names what of the signature it has no schema for
            raise InvalidRequest(f'{function!r:.80} cannot be a tool: {error!s:.200}') from error
        if self._schema.get('type') != 'object':
            raise InvalidRequest(f'{self.name} cannot be a tool: it takes arguments by position')

    @cached_property
    def message(self) -> msg.Tool:
        """What the node is sent of it."""
        return msg.Tool(name=self.name, description=inspect.getdoc(self._function) or '',
                        parameters=json.dumps(self._schema))

    async def run(self, arguments: Mapping[str, Any]) -> str:
        """Call it; return what it gives, a text as it is and all else as JSON.

        Whatever it raises passes through, so does pydantic's error for arguments that its schema
        cannot rule out.
        """
        value = self._call(**arguments)
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, str):
            return value
        from pydantic_core import to_json
        return to_json(value).decode()


def tool_message(tool: Tool) -> msg.Tool:
    """Return a tool as a message; in a mapping, `parameters` are a schema, or its text."""
    if isinstance(tool, msg.Tool):
        return msg.Tool(check_fields=True, name=tool.name, description=tool.description,
                        parameters=tool.parameters)
    if isinstance(tool, Mapping):
        parameters = tool.get('parameters') or ''
        return msg.Tool(
            check_fields=True, name=tool['name'], description=tool.get('description') or '',
            parameters=parameters if isinstance(parameters, str) else json.dumps(parameters))
    if callable(tool):
        return FunctionTool(tool).message
    raise TypeError(f'a tool is a function, a msg.Tool or a mapping, not {tool!r:.80}')


async def run_tools(ask: Callable[..., Awaitable[Answer]], prompt, tools: Iterable[Callable],
                    slo_class: str, *, max_turns: int, timeout: float | None,
                    tool_choice: str = '', **fields) -> Answer:
    """Ask, call what the model wishes, and ask again with the results.

    `ask` and all else are as of `SliceClient`, of which this is `run_tools`.
    """
    known = {tool.name: tool for tool in map(FunctionTool, tools)}
    shown = [tool.message for tool in known.values()]
    end = None if timeout is None else time.monotonic() + timeout
    said = [('user', prompt)] if isinstance(prompt, str) else [*prompt]
    for turn in range(max(max_turns, 1)):
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            raise Timeout(f'no whole answer within {timeout:g} s')
        last = turn + 1 >= max_turns   # it has to do without another call
        answer = await ask(said, slo_class, timeout=left, tools=shown,
                           tool_choice='none' if last else tool_choice, **fields)
        if not answer.tool_calls:
            break
        results = [msg.ChatMessage(role='tool', tool_call_id=call.id,
                                   content=await known[call.name].run(call.arguments))
                   for call in answer.tool_calls]
        said = results if fields.get('session_id') else [*said, answer.message, *results]
        fields['reset_session'], tool_choice = False, ''
    return answer
