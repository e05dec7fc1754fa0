# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The hostile inputs of ``slice_bench abuse``. To add one, add a line to `CORPUS`.

`one` is a message of its own, `flood` many at once, `growing` one in sizes that double until
they are well above every limit of the node. The first argument is a name, the second the way in,
one of those in `abuse_sender.WAYS`; the fields are those of its message. What a line leaves out
of a request is `abuse_sender.DEFAULTS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import json

MB8 = 8 << 20
HUGE = 'x' * MB8
CLASSES = ['control', 'navigation', 'dialogue']
NAN, INF = float('nan'), float('inf')
TOKEN = '<|im_end|>'      # a special token of the embedded model


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent at once, and what is to be set again afterwards."""

    name: str
    family: str                                  # cases that differ in size only share one
    way: str
    requests: Callable[[], Sequence[Mapping]]    # the fields of each, made when they are sent
    restore: Mapping[str, object] = field(default_factory=dict)   # parameters


def one(name: str, way: str, restore: Mapping[str, object] | None = None, /,
        **fields) -> Iterator[Case]:
    """Yield the case of one message."""
    yield Case(name, name, way, lambda: [fields], restore or {})


def flood(name: str, way: str, times: int, make: Callable[[int], Mapping]) -> Iterator[Case]:
    """Yield the case of `times` messages at once; `make` returns the fields of each."""
    yield Case(f'{name}, {times} at once', name, way, lambda: [make(i) for i in range(times)])


def growing(name: str, way: str, first: int, last: int, make: Callable[[int], Mapping]
            ) -> Iterator[Case]:
    """Yield a case for each size from `first` to `last`, both powers of two."""
    size = first
    while size <= last:
        yield Case(f'{name}, {size}', name, way, lambda size=size: [make(size)])
        size *= 2


def schema(value: object) -> dict:
    """Return the field of an answer in a JSON schema."""
    text = value if isinstance(value, str) else json.dumps(value)
    return {'response_format': {'type': 'json_schema', 'grammar': text}}


def regex(text: str) -> dict:
    """Return the field of an answer that a regular expression matches."""
    return {'response_format': {'type': 'regex', 'grammar': text}}


def choice(choices: list[str]) -> dict:
    """Return the field of an answer that is one of `choices`."""
    return {'response_format': {'type': 'choice', 'choices': choices}}


def nested(depth: int, value: object = 0) -> str:
    """Return the JSON text of `value` in `depth` lists."""
    return '[' * depth + json.dumps(value) + ']' * depth


def pairs(number: int) -> dict:
    """Return a JSON schema of an object of `number` properties."""
    return {'type': 'object', 'properties': {f'p{i}': {'type': 'integer'} for i in range(number)}}


def wide(number: int) -> dict:
    """Return a JSON schema of an object of `number` objects of 100 properties."""
    return {'type': 'object', 'properties': {f'o{i}': pairs(100) for i in range(number)}}


_TEXTS = (
    one('8 MB of prompt', 'text', prompt=HUGE),
    one('a prompt of nothing but spaces', 'text', prompt=' ' * 4096),
    one('a prompt of NUL characters', 'text', prompt='\0' * 512),
    one('a prompt in Jinja', 'text', prompt='{{ 7 * 7 }}{% for i in range(10**9) %}{% endfor %}'),
    one('text written from right to left', 'text', prompt='\u202e\u2067' * 256 + 'stop'),
    growing('one long word', 'text', 256, MB8, lambda n: {'prompt': 'a' * n}),
    growing('special tokens in the prompt', 'goal', 64, 1 << 20,
            lambda n: {'prompt': TOKEN * n}),
    growing('joined emoji', 'goal', 64, 1 << 18, lambda n: {'prompt': '\U0001f468\u200d' * n}),
    growing('combining marks', 'goal', 64, 1 << 20, lambda n: {'prompt': 'e' + '\u0301' * n}),
    growing('messages', 'goal', 16, 1 << 16, lambda n: {
        'prompt': '', 'messages': [{'role': 'user', 'content': 'go'}] * n}),
    one('a role of 8 MB', 'goal', prompt='', messages=[{'role': HUGE, 'content': 'go'}]),
    one('an assistant that speaks first', 'goal', prompt='', messages=[
        {'role': 'assistant', 'content': 'Hello.'}]),
    one('a prompt and messages', 'goal', prompt='go', messages=[
        {'role': 'user', 'content': 'go'}]),
)
_FORMATS = (
    growing('regex of open brackets', 'text', 256, MB8, lambda n: regex('[' * n)),
    growing('regex of nested groups', 'text', 64, 1 << 20, lambda n: regex(
        '(' * n + 'a' + ')' * n)),
    growing('regex with a counted repeat', 'text', 64, 1 << 30, lambda n: regex(f'(a|b){{{n}}}')),
    growing('regex of alternatives', 'text', 64, 1 << 18, lambda n: regex(
        '|'.join(f'word{i}' for i in range(n)))),
    one('regex of stars on stars', 'text', **regex('((((a*)*)*)*)*b')),
    one('regex with a lookahead and a backreference', 'text', **regex(r'(?=a)(a)\1')),
    one('regex of every letter, repeated', 'text', **regex(r'(\p{L}|\p{N}){0,4000}')),
    growing('pattern of open brackets in a schema', 'text', 1024, MB8, lambda n: schema(
        '{"pattern": "' + '[' * n)),
    growing('pattern in a schema', 'text', 1024, 1 << 20, lambda n: schema(
        {'type': 'string', 'pattern': '(a?)' * (n // 4)})),
    growing('enum of nested lists', 'text', 16, 1 << 16, lambda n: schema(
        '{"enum": [' + ','.join(nested(5, i) for i in range(n)) + ']}')),
    growing('lists in a schema, one in another', 'text', 16, 1 << 20, lambda n: schema(
        '{"const": ' + nested(n) + '}')),
    growing('objects of 100 properties', 'text', 1, 1 << 9, lambda n: schema(wide(n))),
    growing('properties in a schema', 'text', 16, 1 << 16, lambda n: schema(pairs(n))),
    growing('alternatives in a schema', 'text', 16, 1 << 14, lambda n: schema(
        {'anyOf': [{'type': 'string', 'maxLength': i + 1} for i in range(n)]})),
    growing('a minimum of many digits', 'text', 16, 1 << 16, lambda n: schema(
        '{"type": "number", "minimum": -1' + '0' * n + ', "maximum": 1.5}')),
    growing('a string of a least length', 'text', 64, 1 << 30, lambda n: schema(
        {'type': 'string', 'minLength': n, 'maxLength': 2 * n})),
    growing('an array of a least length', 'text', 64, 1 << 30, lambda n: schema(
        {'type': 'array', 'items': {'type': 'integer'}, 'minItems': n})),
    one('a schema that contains itself', 'text', **schema(
        {'$defs': {'a': {'$ref': '#/$defs/a'}}, '$ref': '#/$defs/a'})),
    one('a schema elsewhere', 'text', **schema({'$ref': 'http://localhost:1/schema'})),
    one('a schema that nothing satisfies', 'text', **schema({'allOf': [
        {'type': 'string'}, {'type': 'integer'}]})),
    one('multipleOf a tiny number', 'text', **schema(
        {'type': 'number', 'multipleOf': 1e-300, 'minimum': 0, 'maximum': 1e300})),
    one('NaN in a schema', 'text', **schema('{"type": "number", "minimum": NaN}')),
    one('no schema at all', 'text', **schema('not JSON')),
    growing('choices', 'text', 16, 1 << 18, lambda n: choice([f'choice {i}' for i in range(n)])),
    growing('one long choice', 'text', 1024, MB8, lambda n: choice(['a' * n])),
    one('choices of nothing', 'text', **choice([''])),
    one('a response format of 8 MB', 'text', response_format={'type': HUGE}),
    growing('tools', 'goal', 8, 1 << 15, lambda n: {
        'tools': [{'name': f't{i}'} for i in range(n)]}),
    growing('a tool of a long schema', 'text', 256, MB8, lambda n: {
        'tools': [{'name': 't', 'parameters': '{"title": "' + 'a' * n + '"}'}]}),
    growing('a tool of a deep schema', 'text', 16, 1 << 20, lambda n: {
        'tools': [{'name': 't', 'parameters': '{"default": ' + nested(n) + '}'}]}),
    one('a tool that contains itself', 'text', tool_choice='required', tools=[
        {'name': 't', 'parameters': '{"properties": {"a": {"$ref": "#"}}, "required": ["a"]}'}]),
    one('a tool that is not there', 'text', tool_choice='fly', tools=[{'name': 't'}]),
    one('a result without a call', 'text', prompt='', messages=[
        {'role': 'user', 'content': 'go'},
        {'role': 'tool', 'content': 'done', 'tool_call_id': 'x'}]),
)
_VALUES = (
    growing('stop texts', 'goal', 8, 1 << 17, lambda n: {'stop': [f's{i}' for i in range(n)]}),
    growing('one long stop text', 'goal', 128, MB8, lambda n: {'stop': ['a' * n]}),
    one('an empty stop text', 'goal', stop=['']),
    one('a temperature of NaN', 'text', sampling={'temperature': NAN}),
    one('an infinite temperature', 'text', sampling={'temperature': INF}),
    one('a tiny temperature', 'text', sampling={'temperature': 1e-38}),
    one('a top_p of NaN', 'text', sampling={'temperature': 1.0, 'top_p': NAN}),
    one('a min_p below 0', 'text', sampling={'temperature': 1.0, 'min_p': -1.0}),
    one('an infinite repetition penalty', 'text', sampling={'repetition_penalty': INF}),
    growing('biased tokens', 'text', 256, 1 << 20, lambda n: {'sampling': {
        'biased_tokens': list(range(n)), 'biases': [1.0] * n}}),
    one('a bias of NaN', 'text', sampling={'biased_tokens': [1], 'biases': [NAN]}),
    one('a bias of a token that is none', 'text', sampling={
        'biased_tokens': [-(1 << 31)], 'biases': [1.0]}),
    one('log-probabilities of too many tokens', 'text', sampling={
        'logprobs': True, 'top_logprobs': 2**32 - 1}),
    one('the largest top_k and seed', 'text', sampling={
        'temperature': 100.0, 'top_k': 2**32 - 1, 'seed': 2**63 - 1}),
    one('no tokens', 'text', max_tokens=0),
    one('the largest max_tokens', 'text', max_tokens=2**32 - 1),
    one('objectives of NaN', 'goal', ttft_ms=NAN, tpot_ms=NAN),
    one('objectives out of reach', 'goal', ttft_ms=1e-300, tpot_ms=5e-324, deadline_ms=1e308),
    one('an objective below 0', 'goal', deadline_ms=-1.0),
)
_NAMES = (
    one('a request id of 8 MB', 'text', request_id=HUGE),
    one('a request id with line ends', 'prompt', request_id='a\r\nb\x1b[2J'),
    one('a request id that is a path', 'text', request_id='../../etc/passwd'),
    flood('the same request id', 'text', 8, lambda i: {'request_id': 'twice'}),
    one('a session id of 8 MB', 'goal', session_id=HUGE),
    flood('8 MB of refused session ids', 'goal', 10, lambda i: {'session_id': HUGE}),
    one('a session forgotten without an id', 'goal', reset_session=True),
    flood('the same session', 'goal', 8, lambda i: {'session_id': 'shared'}),
    flood('sessions', 'goal', 100, lambda i: {'session_id': f'session {i}'}),
    growing('a class name', 'goal', 1 << 16, MB8, lambda n: {'slo_class': 'x' * n}),
    one('a class name that is a path', 'goal', slo_class='../control'),
    one('no class name', 'text', slo_class=''),
)
_SERVICES = (
    one('cancel of an unknown id', 'cancel', request_id='nobody'),
    one('cancel of nothing', 'cancel'),
    one('cancel of an id and a class', 'cancel', request_id='a', slo_class='dialogue'),
    one('cancel of an id of 8 MB', 'cancel', request_id=HUGE),
    one('cancel of an unknown class', 'cancel', slo_class='nobody'),
    one('cancel of an unknown goal', 'cancel_goal'),
    one('result of an unknown goal', 'goal_result'),
    one('admission of 8 MB', 'admission', prompt=HUGE),
    one('admission of the largest numbers', 'admission', prompt='', prompt_tokens=2**32 - 1,
        max_tokens=2**32 - 1),
    growing('admission of a text', 'admission', 256, 1 << 20, lambda n: {'prompt': 'a b ' * n}),
    growing('texts to embed', 'embed', 32, 1 << 17, lambda n: {'texts': ['a b'] * n}),
    growing('a text to embed', 'embed', 256, 1 << 20, lambda n: {'texts': ['a b ' * n]}),
    one('64 long texts to embed', 'embed', texts=['word ' * 300] * 64),
    one('a text to embed of a special token', 'embed', texts=[TOKEN, '\0', '\ufffd' * 99]),
    one('a pooling of 8 MB', 'embed', texts=['a'], pooling=HUGE),
    flood('embed calls', 'embed', 100, lambda i: {'texts': ['word ' * 20]}),
    flood('goals', 'goal', 200, lambda i: {}),
    flood('text calls', 'text', 200, lambda i: {}),
    flood('status calls', 'status', 200, lambda i: {}),
    flood('cancel calls', 'cancel', 200, lambda i: {'request_id': f'nobody {i}'}),
    flood('admission calls', 'admission', 200, lambda i: {'prompt': 'word ' * 400}),
    flood('prompts by topic', 'prompt', 1000, lambda i: {'request_id': f'flood {i}'}),
    one('a prompt of 8 MB by topic', 'prompt', prompt=HUGE),
    one('a prompt that is cut off', 'raw_prompt', data=b'\0\1\0\0\xff\xff'),
    one('a prompt that claims 4 GB', 'raw_prompt', data=b'\0\1\0\0' + b'\xff' * 64),
    one('a prompt that is no UTF-8', 'raw_prompt',
        data=b'\0\1\0\0\10\0\0\0\xff\xfe\xc0\x80\xed\xa0\x80\0' + b'\0' * 512),
)
_NODE = (
    one('an unknown parameter', 'parameters', **{'slo.nobody.tpot_ms': 1.0}),
    one('a parameter of the wrong type', 'parameters', **{'limits.max_queued': 'many'}),
    one('a parameter of NaN', 'parameters', **{'slo.control.tpot_ms': NAN}),
    one('a parameter of 8 MB', 'parameters', **{'scheduler.policy': HUGE}),
    one('a parameter name of 8 MB', 'parameters', **{HUGE: 1}),
    growing('class names in a parameter', 'parameters', 128, 1 << 17, lambda n: {
        'slo.classes': [f'c{i}' for i in range(n)]}),
    one('ten classes at once', 'parameters', {'slo.classes': CLASSES},
        **{'slo.classes': CLASSES + [f'extra_{i}' for i in range(10)]}),
    one('a class with the name of a path', 'parameters', **{'slo.classes': [*CLASSES, '../x']}),
    flood('parameter calls', 'parameters', 100, lambda i: {'limits.max_queued': -i}),
    one('the transition to where it is', 'transition', label='activate'),
    one('a transition from elsewhere', 'transition', label='configure'),
    one('a transition that rclpy runs itself', 'transition', id=60),
    one('an unknown transition', 'transition', id=99),
    one('a transition of 8 MB', 'transition', id=255, label=HUGE),
    flood('transitions', 'transition', 50, lambda i: {'id': 3}),
)
CORPUS = tuple(case for part in (_TEXTS, _FORMATS, _VALUES, _NAMES, _SERVICES, _NODE)
               for cases in part for case in cases)
