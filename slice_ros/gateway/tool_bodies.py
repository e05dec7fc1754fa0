# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tools and forms of answers in bodies of requests, as OpenAI's API has them; calls in answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from slice_ros.client import ToolCall
from slice_ros.gateway.http_errors import HttpError

MAX_LIST = 1024   # choices, stop texts, tools


class Function(BaseModel):
    """A function that the model may call. Its schema is enforced, strict or not."""

    model_config = ConfigDict(extra='forbid', strict=True)
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def fields(self) -> dict[str, Any]:
        """Return it as the client library takes it."""
        return self.model_dump(include={'name', 'description', 'parameters'})


class FunctionTool(BaseModel):
    """A tool: a function, of all that OpenAI's API knows."""

    model_config = ConfigDict(extra='forbid', strict=True)
    type: Literal['function']  # noqa: A003
    function: Function


class FunctionName(BaseModel):
    """The name of a function."""

    model_config = ConfigDict(extra='forbid', strict=True)
    name: str


class FunctionChoice(BaseModel):
    """The choice of one function."""

    model_config = ConfigDict(extra='forbid', strict=True)
    type: Literal['function']  # noqa: A003
    function: FunctionName


class JsonSchema(BaseModel):
    """The schema of an answer, as OpenAI's API wraps it. It is enforced, strict or not."""

    model_config = ConfigDict(extra='forbid', strict=True)
    name: str = ''
    description: str = ''
    strict: bool = True
    json_schema: dict[str, Any] = Field(alias='schema')


class Format(BaseModel):
    """The form of an answer: OpenAI's three, and the node's other two."""

    model_config = ConfigDict(extra='forbid', strict=True)
    type: Literal['text', 'json_object', 'json_schema', 'choice', 'regex']
    json_schema: JsonSchema | None = None
    choices: Annotated[list[str], Field(fail_fast=True, max_length=MAX_LIST)] | None = None
    regex: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return it as an argument of `SliceClient.generate`."""
        if self.type == 'text':
            return {}
        if self.type == 'json_object':
            return {'schema': {'type': 'object'}}
        name = {'choice': 'choices'}.get(self.type, self.type)
        value = getattr(self, name)
        if value is None:
            raise HttpError(f'response_format.{name} is missing: its type is {self.type}',
                            param='response_format')
        if isinstance(value, JsonSchema):
            return {'schema': value.json_schema}
        return {self.type: value}


class CalledFunction(BaseModel):
    """What an earlier answer called, with its arguments as JSON."""

    model_config = ConfigDict(extra='ignore', strict=True)   # as the openai client has parsed it
    name: str
    arguments: str


class EarlierCall(BaseModel):
    """A call of an earlier answer."""

    model_config = ConfigDict(extra='ignore', strict=True)   # as it was streamed, with an index
    id: str = Field(min_length=1)  # noqa: A003
    type: Literal['function'] = 'function'  # noqa: A003
    function: CalledFunction

    def fields(self) -> dict[str, str]:
        """Return it as the client library takes it."""
        return {'id': self.id, **self.function.model_dump()}


def choice_name(choice: str | FunctionChoice) -> str:
    """Return a choice as the node knows it."""
    return choice if isinstance(choice, str) else choice.function.name


def calls_json(calls: tuple[ToolCall, ...], indices: bool) -> list[dict]:
    """Return the calls of an answer; with `indices` as a stream has them."""
    return [{**({'index': number} if indices else {}), 'id': call.id, 'type': 'function',
             'function': {'name': call.name, 'arguments': call.json}}
            for number, call in enumerate(calls)]
