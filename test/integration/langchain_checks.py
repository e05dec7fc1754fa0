# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What is expected of slice_gateway beside a node, by LangChain: what most robot agents speak.

Each takes the robot beside the node, and the address of the gateway.
"""

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
import openai
from pydantic import BaseModel, ConfigDict, Field
import pytest

TURNS = 3   # calls of the agent


class Place(BaseModel):
    """A structured answer."""

    model_config = ConfigDict(extra='forbid')
    room: int = Field(ge=0, le=9)
    busy: bool


@tool
def drive(room: int, slowly: bool) -> str:
    """Drive to a room."""
    return f'in room {room}' + (', slowly' if slowly else '')


@tool
def battery() -> str:
    """Tell the charge of the battery."""
    return '81 %'


def model(url, **settings):
    return ChatOpenAI(base_url=f'{url}/v1', api_key='none', max_retries=0, timeout=60.0,
                      **{'model': 'slice/navigation', 'max_tokens': 80, 'temperature': 0,
                         **settings})


def check_langchain_answers_whole_and_streamed(robot, url):
    """The same text, with what it took; the class by the model's name or by `extra_body`."""
    whole = model(url, max_tokens=12).invoke('What is a wheel?')
    assert whole.content and whole.usage_metadata['output_tokens'] <= 12
    pieces = list(model(url, max_tokens=12).stream('What is a wheel?'))
    assert ''.join(piece.text for piece in pieces) == whole.content and len(pieces) > 3
    urgent = model(url, max_tokens=4, extra_body={'slo_class': 'control', 'deadline_ms': 20000})
    before = received(robot, 'control')
    assert urgent.invoke('Is ice cold?').content
    robot.wait_for(lambda: received(robot, 'control') == before + 1, 'it had another class')


def received(robot, name):
    return next(c.received for c in robot.status().scheduler.classes if c.slo.name == name)


def check_langchain_structured_output(robot, url):
    """A pydantic model by the schema of the answer, and by the arguments of a function."""
    for method in ('json_schema', 'function_calling'):
        asking = model(url).with_structured_output(Place, method=method)
        place = asking.invoke('Is room 4 busy?')
        assert isinstance(place, Place) and 0 <= place.room <= 9


def check_an_agent_of_langchain_calls_three_tools(robot, url):
    """Each call has arguments that its tool takes; the results lead to words."""
    tools = {one.name: one for one in (drive, battery)}
    calling = model(url).bind_tools(list(tools.values()), tool_choice='required')
    talk, called = [HumanMessage('See how full the battery is, then drive to room 4.')], 0
    while called < TURNS:
        answer = calling.invoke(talk)
        assert isinstance(answer, AIMessage) and answer.tool_calls
        assert not answer.invalid_tool_calls
        talk.append(answer)
        for call in answer.tool_calls:
            result = tools[call['name']].invoke(call)
            assert isinstance(result, ToolMessage) and result.tool_call_id == call['id']
            talk.append(result)
            called += 1
    named = model(url).bind_tools([drive], tool_choice='drive').invoke(talk)
    assert {call['name'] for call in named.tool_calls} == {'drive'}
    assert model(url, max_tokens=12).invoke(talk).content


def check_langchain_gets_the_sentence_of_a_refusal(robot, url):
    """A class that there is not, and an answer that was cut before its call had ended."""
    with pytest.raises(openai.NotFoundError, match='there is no class'):
        model(url, model='slice/nothing').invoke('Hi.')
    cut = model(url, max_tokens=3).bind_tools([drive], tool_choice='drive')
    answer = cut.invoke('Drive to room 4.')
    assert not answer.tool_calls and answer.response_metadata['finish_reason'] == 'length'


LANGCHAIN_CHECKS = (
    check_langchain_answers_whole_and_streamed, check_langchain_structured_output,
    check_an_agent_of_langchain_calls_three_tools, check_langchain_gets_the_sentence_of_a_refusal)
