# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests: JSON that came in, checked, and turned into what the client library takes.

A field that is null counts as absent. What the node cannot do is refused by name, and so is a
field that nobody knows: a misspelt deadline must not be lost without a word.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator, ValidationError
from pydantic_core import from_json
from slice_ros.client.goals import MAX_SEVERAL
from slice_ros.errors import ErrorCode
from slice_ros.gateway.http_errors import HttpError, REPLIES
from slice_ros.gateway.tool_bodies import (
    choice_name, EarlierCall, Format, FunctionChoice, FunctionTool, MAX_LIST)

MAX_MESSAGES = 1024   # each costs the event loop 10 us; the node takes 256
MAX_LOGPROBS = 20     # likeliest tokens beside each of an answer
MAX_PARTS = 64        # texts that one message is made of
BodyKind = TypeVar('BodyKind', bound=BaseModel)
# Fields of OpenAI's API that the node has nothing for, and the values that ask for nothing.
NOT_THERE: dict[str, tuple] = {
    'audio': (), 'best_of': (1,), 'echo': (False,), 'frequency_penalty': (0,),
    'function_call': ('none', 'auto'), 'functions': ([],),
    'modalities': (['text'],), 'prediction': (),
    'presence_penalty': (0,), 'store': (False,), 'suffix': ('',),
    'web_search_options': ()}
# Fields of it that change no answer.
IGNORED = ('metadata', 'parallel_tool_calls', 'prompt_cache_key', 'safety_identifier',
           'service_tier', 'user', 'verbosity')
SAMPLING = ('temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty', 'seed')
SWITCHES = ('enable_thinking', 'thinking')   # by which templates turn thoughts on and off
FIELDS = ('ttft_ms', 'tpot_ms', 'deadline_ms', 'session_id', 'reset_session', 'adapter',
          'reasoning', 'reasoning_budget', 'template_arguments')


class ImageUrl(BaseModel):
    """An image: a data URL, which the client library reads."""

    model_config = ConfigDict(extra='forbid', strict=True)
    url: str
    detail: Literal['auto', 'low', 'high'] = 'auto'   # changes no answer


class Part(BaseModel):
    """A part of a message: a text or an image."""

    model_config = ConfigDict(extra='forbid', strict=True)
    type: Literal['text', 'image_url']
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode='after')
    def has_what_it_names(self) -> 'Part':
        if getattr(self, self.type) is None:
            raise ValueError(f'{self.type} is missing')
        return self


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra='forbid', strict=True)
    role: Literal['system', 'developer', 'user', 'assistant', 'tool']
    content: str | Annotated[list[Part], Field(fail_fast=True, max_length=MAX_PARTS)] = ''
    name: str = ''        # changes no answer
    tool_calls: Annotated[list[EarlierCall], Field(fail_fast=True, max_length=MAX_PARTS)] = []
    tool_call_id: str = ''
    reasoning_content: str = ''   # of an answer that is sent back; no model is shown it again

    @model_validator(mode='before')
    @classmethod
    def without_nulls(cls, values: Any) -> Any:
        """Leave out what is null, as an answer's message has it that is sent back as it came."""
        return {name: value for name, value in values.items() if value is not None} if (
            isinstance(values, dict)) else values

    def fields(self) -> dict[str, Any]:
        """Return it as the client library takes it."""
        text, images = self.content, []
        if not isinstance(text, str):
            images = [part.image_url.url for part in text if part.image_url is not None]
            text = ''.join(part.text or '' for part in text)
        return {'images': images,
                'role': 'system' if self.role == 'developer' else self.role, 'content': text,
                'tool_calls': [call.fields() for call in self.tool_calls],
                'tool_call_id': self.tool_call_id}


class StreamOptions(BaseModel):
    """What a stream carries beside the text."""

    model_config = ConfigDict(extra='forbid', strict=True)
    include_usage: bool = False
    include_obfuscation: bool = False   # there is none to include


class Body(BaseModel):
    """What both kinds of completions have in common."""

    model_config = ConfigDict(extra='forbid', strict=True)
    model: str = ''
    slo_class: str = ''
    ttft_ms: float = 0.0
    tpot_ms: float = 0.0
    deadline_ms: float = 0.0
    session_id: str = ''
    reset_session: bool = False
    adapter: str = ''
    reasoning: str = ''
    reasoning_budget: int = 0
    template_arguments: dict[str, Any] = {}
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=MAX_LIST)] = {}   # by token id
    stop: str | Annotated[list[str], Field(fail_fast=True, max_length=MAX_LIST)] = []
    n: int = Field(1, ge=1, le=MAX_SEVERAL)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    response_format: Format | None = None

    def most_tokens(self) -> int | None:
        """Return the bound of the answer, None for the node's default."""
        return self.max_tokens

    def most_logprobs(self) -> int | None:
        """Return how many likeliest tokens it wants beside each, None for no log-probability."""
        raise NotImplementedError

    def fields(self) -> dict[str, Any]:
        """Return the arguments of `SliceClient.generate` beside prompt and class."""
        fields = {name: getattr(self, name) for name in FIELDS}
        fields['stop'] = self.stop
        fields['sampling'] = {name: value for name in SAMPLING
                              if (value := getattr(self, name)) is not None}
        if (top := self.most_logprobs()) is not None:
            fields['sampling'] |= {'logprobs': True, 'top_logprobs': top}
        if self.logit_bias:
            try:
                biases = {int(token): bias for token, bias in self.logit_bias.items()}
            except ValueError as error:
                raise HttpError(f'logit_bias: {error}', param='logit_bias') from error
            fields['sampling']['logit_bias'] = biases
        if self.most_tokens() is not None:
            fields['max_tokens'] = self.most_tokens()
        if self.response_format is not None:
            fields |= self.response_format.fields()
        return fields


class ChatBody(Body):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1,
                                             max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = None   # the newer name of max_tokens
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=MAX_LIST)] = []
    tool_choice: str | FunctionChoice = ''
    reasoning_effort: Literal['none', 'minimal', 'low', 'medium', 'high', 'xhigh'] | None = None
    chat_template_kwargs: dict[str, Any] = {}   # as vLLM has them
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_LOGPROBS)

    def prompt(self) -> list[dict[str, Any]]:
        return [message.fields() for message in self.messages]

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), 'tools': [tool.function.fields() for tool in self.tools],
                'tool_choice': choice_name(self.tool_choice), **self._thought()}

    def most_logprobs(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise HttpError('top_logprobs needs logprobs: set it to true', param='top_logprobs')
        return self.top_logprobs if self.logprobs else None

    def _thought(self) -> dict[str, Any]:
        """Return what turns thoughts on or off, and the other arguments of the template.

        The node knows how a model is asked for either; an effort above none turns them on.
        """
        arguments = {**self.chat_template_kwargs, **self.template_arguments}
        switches = [arguments.pop(name) for name in SWITCHES if type(arguments.get(name)) is bool]
        if self.reasoning_effort is not None:
            switches.append(self.reasoning_effort != 'none')
        word = {True: 'on', False: 'off'}[switches[-1]] if switches else ''
        return {'reasoning': self.reasoning or word, 'template_arguments': arguments or ''}

    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else (
            self.max_completion_tokens)


class TextBody(Body):
    """The body of /v1/completions: what the user says."""

    prompt_text: str | Annotated[list[str], Field(min_length=1, max_length=1)] = Field(
        alias='prompt')
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    def most_logprobs(self) -> int | None:
        return self.logprobs

    def prompt(self) -> str:
        return self.prompt_text if isinstance(self.prompt_text, str) else self.prompt_text[0]


class EmbeddingBody(BaseModel):
    """The body of /v1/embeddings."""

    model_config = ConfigDict(extra='forbid', strict=True)
    model: str = ''
    slo_class: str = ''
    texts: str | Annotated[list[str], Field(
        fail_fast=True, min_length=1, max_length=MAX_LIST)] = Field(alias='input')
    encoding_format: Literal['float', 'base64'] = 'float'
    pooling: str = 'mean'


def read(kind: type[BodyKind], data: bytes) -> BodyKind:
    """Return a body. Raises `HttpError` with one sentence on what is wrong in it."""
    try:
        values = from_json(data, allow_inf_nan=True)
    except ValueError as error:   # broken, too deep, or not UTF-8
        raise HttpError(f'the body is no JSON: {error}') from error
    if not isinstance(values, dict):
        raise HttpError('the body must be a JSON object')
    values = {name: value for name, value in values.items()
              if value is not None and name not in IGNORED}
    for name, asks_nothing in NOT_THERE.items():
        if name in values and values.pop(name) not in asks_nothing:
            raise HttpError(f'{name} is not supported: leave it out', param=name)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise HttpError(*_sentence(error)) from error


def _sentence(error: ValidationError) -> tuple:
    """Return the message, the reply and the field of what is wrong."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    # Of what is wrong with a text or a list of parts, the type of a part says most.
    part = [e for e in errors if 'content' in e['loc'] and e['loc'][-1] == 'type']
    inside = [e for e in errors if 'content' in e['loc'] and len(e['loc']) > 4]
    first = (part or inside or errors)[0]
    name = '.'.join(str(part) for part in first['loc'] if part != 'str')[:200]
    if first['type'] == 'extra_forbidden':
        message = f'{name} is not known here: is it spelt right?'
    elif part:
        message = f'{name}: only text and image_url are supported, no sounds or files'
    else:
        message = f'{name}: {first["msg"]}'
    return message[:500], REPLIES[ErrorCode.INVALID_REQUEST], str(first['loc'][0])[:100]
