# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What is expected of slice_gateway beside a node, by clients of others: openai and curl.

Each takes the robot beside the node, and the address of the gateway.
"""

import asyncio
import json
import math
import signal
import subprocess
import sys
import time

import openai
from pydantic import BaseModel, ConfigDict, Field
import pytest

PLACES = ', '.join(f'room {n} on floor {n % 3}' for n in range(12))
STORY = [{'role': 'user', 'content': 'Tell me a long story about a robot in a warehouse.'}]


class Pose(BaseModel):
    """A structured answer."""

    model_config = ConfigDict(extra='forbid')
    x: int
    y: int


class Turn(BaseModel):
    """The arguments of a tool."""

    model_config = ConfigDict(extra='forbid')
    angle_deg: int = Field(ge=-180, le=180)


def client(url, kind=openai.OpenAI):
    return kind(base_url=f'{url}/v1', api_key='none', max_retries=0, timeout=60.0)


def ready(url):
    """Return whether the gateway serves: it listens before it has discovered the node."""
    try:
        return client(url).completions.create(model='slice/control', prompt='Hi', max_tokens=1)
    except openai.InternalServerError:
        return None


def live(robot):
    return len(robot.status().scheduler.requests)


def check_chat_whole_and_streamed_are_the_same_text(robot, url):
    """An answer of /v1/chat/completions, whole and as events."""
    chat = client(url).chat.completions
    asked = {'model': 'slice/navigation', 'max_tokens': 12,
             'messages': [{'role': 'user', 'content': 'What is a wheel?'}]}
    whole = chat.create(**asked)
    choice = whole.choices[0]
    assert choice.message.content and choice.finish_reason in ('stop', 'length')
    assert whole.slo_report['slo_class'] == 'navigation'
    *chunks, last = chat.create(**asked, stream=True, stream_options={'include_usage': True})
    assert ''.join(c.choices[0].delta.content or '' for c in chunks) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason
    assert last.usage.completion_tokens == whole.usage.completion_tokens <= 12
    assert len(chunks) > 3


def check_structured_answers(robot, url):
    """A pydantic model, one that is cut off, and a choice."""
    chat = client(url).chat.completions
    said = chat.parse(model='slice/navigation', response_format=Pose, max_tokens=40, messages=[
        {'role': 'user', 'content': 'Drive to x 2, y 3.'}]).choices[0].message
    assert isinstance(said.parsed, Pose)
    with pytest.raises(openai.LengthFinishReasonError):
        chat.parse(model='slice/navigation', response_format=Pose, max_tokens=2, messages=STORY)
    choice = client(url).completions.create(
        model='slice/control', prompt='A box is 0.4 m ahead.', extra_body={
            'deadline_ms': 20000, 'response_format': {
                'type': 'choice', 'choices': ['STOP', 'GO']}})
    assert choice.choices[0].text in ('STOP', 'GO')
    assert choice.slo_report['objectives']['deadline_ms'] == 20000


def check_tools(robot, url):
    """A call, its result and the words about it, whole and streamed; then one that is cut."""
    chat = client(url).chat.completions
    talk = [{'role': 'user', 'content': 'Turn left by 90 degrees.'}]
    turn = openai.pydantic_function_tool(Turn, name='turn', description='Turn on the spot.')
    asked = {'model': 'slice/navigation', 'max_tokens': 60, 'tools': [turn]}
    forced = {'type': 'function', 'function': {'name': 'turn'}}
    choice = chat.parse(messages=talk, tool_choice=forced, **asked).choices[0]
    call, = choice.message.tool_calls
    assert choice.finish_reason == 'tool_calls' and not choice.message.content
    assert -180 <= call.function.parsed_arguments.angle_deg <= 180
    with chat.stream(messages=talk, tool_choice=forced, **asked) as stream:
        streamed = stream.get_final_completion().choices[0].message
    assert streamed.tool_calls[0].function.arguments == call.function.arguments
    talk += [choice.message, {'role': 'tool', 'tool_call_id': call.id, 'content': 'turned'}]
    words = chat.create(messages=talk, tool_choice='none', **asked).choices[0]
    assert words.message.content and not words.message.tool_calls
    with pytest.raises(openai.BadRequestError, match='tool_call_id'):
        chat.create(messages=[talk[0], talk[2]], **asked)
    with pytest.raises(openai.LengthFinishReasonError):
        chat.parse(messages=talk[:1], tool_choice=forced, **{**asked, 'max_tokens': 4})


def check_log_probabilities(robot, url):
    """Of messages and texts, whole and streamed; the text is the same without."""
    chat = client(url).chat.completions
    asked = {'model': 'slice/navigation', 'max_tokens': 10,
             'messages': [{'role': 'user', 'content': 'Is ice cold?'}]}
    plain = chat.create(**asked).choices[0]
    whole = chat.create(**asked, logprobs=True, top_logprobs=3).choices[0]
    assert plain.logprobs is None and whole.message.content == plain.message.content
    found = whole.logprobs.content
    assert bytes(b for one in found for b in one.bytes).decode() == whole.message.content
    for one in found:
        assert len(one.top_logprobs) == 3 and one.logprob == one.top_logprobs[0].logprob <= 0
        assert sum(math.exp(other.logprob) for other in one.top_logprobs) <= 1.0001
    pieces = [chunk.choices[0].logprobs for chunk in chat.create(
        **asked, logprobs=True, top_logprobs=3, stream=True)]
    assert [one for piece in pieces if piece for one in piece.content] == found
    text = client(url).completions.create(
        model='slice/navigation', prompt='Is ice cold?', max_tokens=10, logprobs=2).choices[0]
    ranks = text.logprobs
    assert text.text == plain.message.content == ''.join(ranks.tokens)
    assert [text.text[at:at + len(token)] for at, token in zip(
        ranks.text_offset, ranks.tokens)] == ranks.tokens
    assert ranks.token_logprobs == pytest.approx([one.logprob for one in found])
    assert all(len(likeliest) == 2 for likeliest in ranks.top_logprobs)
    for wrong in ({'top_logprobs': 21, 'logprobs': True}, {'top_logprobs': 1}, {'n': 0},
                  {'n': 10**9}):
        with pytest.raises(openai.BadRequestError):
            chat.create(**asked, **wrong)


def check_several_answers(robot, url):
    """Each has its index and its seed, and all end when their caller leaves."""
    chat = client(url).chat.completions
    asked = {'model': 'slice/navigation', 'max_tokens': 12, 'n': 4, 'temperature': 1.5, 'seed': 5,
             'messages': [{'role': 'user', 'content': 'Where would you go first? ' + PLACES}]}
    before = robot.status().scheduler.tokens
    whole = chat.create(**asked)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3] and len(set(texts)) > 1
    assert whole.usage.completion_tokens <= 48
    robot.wait_for(lambda: robot.status().scheduler.tokens - before
                   == whole.usage.completion_tokens, 'other tokens were counted')
    streamed = {n: '' for n in range(4)}
    for chunk in chat.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ''
    assert list(streamed.values()) == texts
    assert chat.create(**{**asked, 'n': 1}).choices[0].message.content == texts[0]
    with robot.paced(), chat.create(**{**asked, 'max_tokens': 400, 'messages': STORY},
                                    stream=True) as stream:
        for chunk in stream:
            if chunk.choices[0].index == 3:
                break
        assert live(robot) >= 2
    robot.wait_for(lambda: not live(robot), 'they are computed for nobody')


def check_embeddings(robot, url):
    """Vectors as base64, which the client asks for by itself, and as numbers."""
    embeddings = client(url).embeddings
    texts = ['A cup is on the table.', 'The lift is out of order.']
    found = embeddings.create(model='', input=texts)
    again = embeddings.create(model='slice/navigation', input=texts[1], encoding_format='float')
    assert [d.index for d in found.data] == [0, 1] and found.usage.prompt_tokens > 10
    assert again.data[0].embedding == pytest.approx(found.data[1].embedding, abs=1e-6)
    assert sum(x * x for x in again.data[0].embedding) == pytest.approx(1, abs=1e-5)


def check_many_at_once_by_the_asynchronous_client(robot, url):
    """Twelve at once, in the class of a header."""

    async def ask_all():
        async with client(url, openai.AsyncOpenAI) as door:
            return await asyncio.gather(*(door.chat.completions.create(
                model='slice/dialogue', max_tokens=4, extra_headers={'X-SLO-Class': 'control'},
                messages=[{'role': 'user', 'content': f'Say {i}.'}]) for i in range(12)))
    for answer in asyncio.run(ask_all()):
        assert answer.slo_report['slo_class'] == 'control' and answer.choices[0].message.content


def check_a_conversation_is_continued_by_its_session(robot, url):
    """The second turn computes only what is new."""
    def say(text):
        return client(url).chat.completions.create(
            model='slice/dialogue', messages=[{'role': 'user', 'content': text}], max_tokens=8,
            extra_body={'session_id': 'a door'})
    first = say('My name is Ann.').usage
    second = say('What is my name?').usage
    assert second.prompt_tokens > first.total_tokens
    assert second.prompt_tokens_details.cached_tokens >= first.prompt_tokens


def check_refusals_have_the_sentences_of_the_node(robot, url):
    """Each wrong request has its status and a sentence."""
    chat = client(url).chat.completions
    for error, sentence, wrong in (
            (openai.NotFoundError, 'there is no class', {'model': 'slice/nothing'}),
            (openai.NotFoundError, 'slice/CLASS', {'model': 'gpt-9'}),
            (openai.BadRequestError, 'temperature', {'temperature': -1.0}),
            (openai.BadRequestError, 'max_tokens is 0', {'max_tokens': 0}),
            (openai.BadRequestError, 'token', {'messages': [
                {'role': 'user', 'content': 'word ' * 4000}]}),
            (openai.BadRequestError, 'schema', {'response_format': {
                'type': 'json_schema', 'json_schema': {
                    'name': 'n', 'schema': {'not': {'type': 'null'}}}}})):
        with pytest.raises(error) as caught:
            chat.create(**{'model': 'slice/control', 'messages': STORY, 'max_tokens': 4, **wrong})
        assert sentence in caught.value.body['message']
    assert robot.put(scheduler__admission='reject').successful
    try:
        with pytest.raises(openai.APIStatusError) as caught:
            chat.create(model='slice/control', messages=STORY, max_tokens=400,
                        extra_body={'deadline_ms': 1.0})
        assert caught.value.status_code == 503 and caught.value.code == 'infeasible_slo'
    finally:
        assert robot.put(scheduler__admission='accept').successful


def check_whoever_leaves_cancels_the_request(robot, url):
    """A stream that is closed ends in the node as well."""
    with robot.paced(), client(url).chat.completions.create(
            model='slice/dialogue', messages=STORY, max_tokens=500, stream=True) as stream:
        next(iter(stream))
        assert live(robot) == 1
    robot.wait_for(lambda: not live(robot), 'it is computed for nobody')


def check_curl(robot, url):
    """Health, metrics, models, a stream, and bodies that are broken or huge."""
    def curl(*arguments):
        return subprocess.run(['curl', '-sS', '--max-time', '60', *arguments], text=True,
                              capture_output=True, check=True).stdout
    assert json.loads(curl(f'{url}/health')) == {'status': 'ready'}
    assert 'slice_up 1.0' in curl(f'{url}/metrics')
    names = [one['id'] for one in json.loads(curl(f'{url}/v1/models'))['data']]
    assert {'slice/control', 'slice/dialogue'} < set(names)
    streamed = curl('-N', f'{url}/v1/chat/completions', '--json', json.dumps(
        {'model': names[0], 'messages': STORY, 'max_tokens': 4, 'stream': True}))
    assert streamed.count('data: ') >= 3 and streamed.endswith('data: [DONE]\n\n')
    for body, status in (('{', '400'), ('[' * 99999, '400'), ('x' * 2_000_000, '413')):
        sent = subprocess.run(
            ['curl', '-s', '-o', '/dev/null', '-w', '%{http_code}', '--max-time', '60',
             f'{url}/v1/chat/completions', '--json', '@-'], input=body, text=True,
            capture_output=True)
        assert sent.stdout == status


def check_the_page_gets_what_is_going_on(robot, url):
    """The events of the page show the classes, and tokens as they come."""
    with robot.paced(), client(url).chat.completions.create(
            model='slice/dialogue', messages=STORY, max_tokens=500, stream=True) as stream:
        next(iter(stream))
        events = subprocess.Popen([sys.executable, '-c', (
            'import sys, urllib.request\n'
            'for line in urllib.request.urlopen(sys.argv[1]): print(line.decode(), flush=True)'),
            f'{url}/events'], stdout=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + 60
            for line in events.stdout:
                shown = json.loads(line[6:]) if line.startswith('data: ') else {}
                if shown.get('state') and any(max(r['cells']) > 0 for r in shown['requests']):
                    break
                assert time.monotonic() < end, line
        finally:
            events.kill()
            events.wait()
    assert [c['name'] for c in shown['classes']] == ['control', 'navigation', 'dialogue']
    assert shown['state'] == 'ready' and shown['scheduler']['slots_used'] == 1


GATEWAY_CHECKS = (
    check_chat_whole_and_streamed_are_the_same_text, check_structured_answers, check_tools,
    check_log_probabilities, check_several_answers, check_embeddings,
    check_many_at_once_by_the_asynchronous_client,
    check_a_conversation_is_continued_by_its_session,
    check_refusals_have_the_sentences_of_the_node, check_whoever_leaves_cancels_the_request,
    check_curl, check_the_page_gets_what_is_going_on)


def check_it_ends(robot, url, program):
    """SIGINT ends what streams with a sentence, and the program with 0."""
    with robot.paced(), client(url).chat.completions.create(
            model='slice/dialogue', messages=STORY, max_tokens=500, stream=True) as stream:
        next(iter(stream))
        program.send_signal(signal.SIGINT)
        with pytest.raises(openai.APIError, match='the gateway ends'):
            list(stream)
    assert program.wait(timeout=60.0) == 0
