# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Python values to the goal message of `action/Generate`.

The generated messages check no types by themselves, and a wrong type would reach C code. These
functions return a message that can be sent, or raise `InvalidRequest`.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from hashlib import blake2s
import json
import math
import operator
from typing import Any

from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.client.exceptions import InvalidRequest
from slice_ros.client.function_tools import Tool, tool_message
from slice_ros.client.images import image_messages

MAX_SEVERAL = 8    # answers to one prompt
MAX_TIMEOUT = 1e9  # seconds; a timer cannot count much further

Messages = Iterable[msg.ChatMessage | tuple[str, str] | Mapping[str, Any]]


def make_goal(prompt: str | Messages, slo_class: str, *, max_tokens: int = 128,
              ttft_ms: float = 0.0, tpot_ms: float = 0.0, deadline_ms: float = 0.0,
              sampling: msg.SamplingParams | Mapping | None = None, stop: Iterable[str] = (),
              session_id: str = '', reset_session: bool = False,
              response_format: msg.ResponseFormat | None = None,
              choice: Iterable[str] | None = None, schema: Mapping | str | None = None,
              regex: str | None = None, tools: Iterable[Tool] = (), tool_choice: str = '',
              adapter: str = '', reasoning: str = '', reasoning_budget: int = 0,
              template_arguments: Mapping[str, Any] | str = '') -> Generate.Goal:
    """Return the goal of a request; fields as in `action/Generate`, formats as in `answer_format`.

    `prompt` is a text, or a conversation: messages, (role, text) pairs or mappings with the fields
    of a message, where `images` may be anything that `image_messages` takes. `tools` are Python
    functions, messages or mappings. Raises `InvalidRequest` for values that no message can carry.
    """
    try:
        text = isinstance(prompt, str)
        goal = Generate.Goal(
            check_fields=True, prompt=prompt if text else '', slo_class=slo_class,
            messages=[] if text else [_chat_message(m) for m in prompt],
            ttft_ms=float(ttft_ms), tpot_ms=float(tpot_ms), deadline_ms=float(deadline_ms),
            max_tokens=operator.index(max_tokens), sampling=_sampling(sampling),
            stop=[stop] if isinstance(stop, str) else list(stop), session_id=session_id,
            reset_session=reset_session, adapter=adapter, reasoning=reasoning,
            reasoning_budget=operator.index(reasoning_budget),
            template_arguments=template_arguments if isinstance(template_arguments, str)
            else json.dumps(template_arguments),
            response_format=answer_format(response_format, choice, schema, regex),
            tools=[tool_message(tool) for tool in tools], tool_choice=tool_choice)
        _check_encodable(goal)
    except (AssertionError, AttributeError, KeyError, OverflowError, TypeError,
            ValueError) as error:
        raise InvalidRequest(f'this cannot be sent: {error!s:.200}') from error
    return goal


def goals_of_several(goal: Generate.Goal, n: int) -> list[Generate.Goal]:
    """Return a goal for each of `n` answers: the first as it is, the others with other seeds.

    A seed of the goal decides theirs. Raises `InvalidRequest` for an `n` that is none, and where
    the goal belongs to a session.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_SEVERAL:
        raise InvalidRequest(f'n must be a whole number from 1 to {MAX_SEVERAL}, not {n!r:.80}')
    if n > 1 and goal.session_id:
        raise InvalidRequest('a session goes on with one answer: leave n or session_id out')
    goals = [goal, *(copy(goal) for _ in range(n - 1))]
    for number, one in enumerate(goals[1:], 1):
        one.sampling = copy(goal.sampling)
        if goal.sampling.seed >= 0:
            digest = blake2s(f'{goal.sampling.seed} {number}'.encode(), digest_size=8).digest()
            one.sampling.seed = int.from_bytes(digest, 'big') >> 1
    return goals


def check_timeout(timeout: float | None) -> float | None:
    """Return seconds that a timer can count; None for no time-out. Raises `InvalidRequest`."""
    try:
        seconds = math.inf if timeout is None else float(timeout)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f'timeout must be seconds or None: {error}') from error
    if not seconds >= 0:
        raise InvalidRequest(f'timeout is {seconds}: give seconds, 0 or more')
    return None if seconds > MAX_TIMEOUT else seconds


def answer_format(response_format: msg.ResponseFormat | None = None,
                  choice: Iterable[str] | None = None, schema: Mapping | str | None = None,
                  regex: str | None = None) -> msg.ResponseFormat:
    """Return the format of an answer from at most one of the arguments; free text from none.

    `choice`: exactly one of these texts. `schema`: JSON that is valid under this JSON schema (a
    mapping, or JSON text). `regex`: text that matches the whole expression.
    Raises `InvalidRequest` for several arguments, other exceptions for an invalid one.
    """
    given = [form for form in (response_format, choice, schema, regex) if form is not None]
    if len(given) > 1:
        raise InvalidRequest('give one of response_format, choice, schema and regex')
    kind = msg.ResponseFormat
    if choice is not None:
        if isinstance(choice, str):
            raise TypeError(f'choice must be a list of texts, not {choice!r:.80}')
        return kind(check_fields=True, type=kind.CHOICE, choices=list(choice))
    if schema is not None:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        return kind(check_fields=True, type=kind.JSON_SCHEMA, grammar=text)
    if regex is not None:
        return kind(check_fields=True, type=kind.REGEX, grammar=regex)
    form = response_format or kind()
    return kind(check_fields=True, type=form.type, choices=form.choices, grammar=form.grammar)


def _chat_message(message: msg.ChatMessage | tuple[str, str] | Mapping[str, str]):
    calls, answered, images = [], '', ()
    if isinstance(message, msg.ChatMessage):
        role, content = message.role, message.content
        calls, answered = message.tool_calls, message.tool_call_id
        images = [*message.compressed_images, *message.images]
    elif isinstance(message, Mapping):
        images = message.get('images', ())
        role, content = message['role'], message.get('content', '') if images else (
            message['content'])
        calls, answered = message.get('tool_calls', ()), message.get('tool_call_id', '')
    elif isinstance(message, Sequence) and not isinstance(message, str):
        role, content = message
    else:
        raise TypeError(f'a message is a (role, text) pair, not {message!r:.80}')
    compressed, raw = image_messages(images)
    return msg.ChatMessage(
        check_fields=True, role=role, content=content, tool_call_id=answered,
        compressed_images=compressed, images=raw,
        tool_calls=[_tool_call(call) for call in calls])


def _tool_call(call: msg.ToolCall | Mapping[str, str]) -> msg.ToolCall:
    values = call if isinstance(call, Mapping) else {
        name: getattr(call, name) for name in ('id', 'name', 'arguments')}
    return msg.ToolCall(check_fields=True, **values)


def _sampling(values: msg.SamplingParams | Mapping | None) -> msg.SamplingParams:
    """Return the message; `logit_bias` of a mapping has biases by token id."""
    types = msg.SamplingParams.get_fields_and_field_types()
    if isinstance(values, msg.SamplingParams):
        values = {name: getattr(values, name) for name in types}
    values = dict(values or {})
    bias = values.pop('logit_bias', {})
    if bias:
        values |= {'biased_tokens': [operator.index(token) for token in bias],
                   'biases': [float(value) for value in bias.values()]}
    return msg.SamplingParams(check_fields=True, **{
        name: float(value) if types.get(name) == 'float' else value
        for name, value in values.items()})


def _check_encodable(goal: Generate.Goal) -> None:
    for text in (goal.prompt, goal.slo_class, goal.session_id, goal.adapter, goal.reasoning,
                 goal.template_arguments,
                 goal.response_format.type,
                 goal.response_format.grammar, *goal.response_format.choices, *goal.stop,
                 goal.tool_choice,
                 *(field for t in goal.tools for field in (t.name, t.description, t.parameters)),
                 *(field for m in goal.messages for field in (m.role, m.content, m.tool_call_id)),
                 *(field for m in goal.messages for c in m.tool_calls
                   for field in (c.id, c.name, c.arguments))):
        text.encode()
