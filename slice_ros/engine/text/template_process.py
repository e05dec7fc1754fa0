# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Renders a chat template; a program of its own, which `chat_template` starts and may end.

A template is code of whoever made the model. A loop or a format in it cannot be interrupted in a
thread, so it runs here, with limits on processor time and memory. This file imports jinja2 and
the standard library only. It reads requests from standard input and answers there too: it is a
socket. A frame is the length, 4 bytes, and JSON.
"""

from datetime import date, datetime, time
import json
import os
import resource
import signal
import struct

from jinja2 import nodes, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

COMPILE_CPU_S = 1.0
RENDER_CPU_S = 0.1
MEMORY = 256 << 20
_CHANNEL = 0
_LENGTH = struct.Struct('<I')
_MAX_REASON = 300


def main() -> None:
    """Answer requests until the other side closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)   # of a terminal, meant for the parent
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends this process, in whatever it is
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    setup = receive()
    signal.setitimer(signal.ITIMER_PROF, COMPILE_CPU_S)
    try:
        template = environment().from_string(setup['template'])
    except Exception as error:
        template = None
        broken = describe(error)
    send({})  # it is compiled
    while True:
        signal.setitimer(signal.ITIMER_PROF, 0)
        chat = receive()
        signal.setitimer(signal.ITIMER_PROF, RENDER_CPU_S)
        if template is None:
            answer = broken
        else:
            try:
                answer = render(template, chat, setup)
            except Exception as error:  # a template may raise anything
                answer = describe(error)
        send(answer)


def render(template, chat: dict, setup: dict) -> dict[str, object]:
    """Return the text, or its size if that is above the limit; as transformers renders it."""
    text = template.render(
        messages=chat['messages'], tools=chat['tools'], documents=None,
        add_generation_prompt=True, **setup['names'] | chat['arguments'])
    size = len(text.encode())
    return {'size': size} if size > setup['max_bytes'] else {'text': text}


def describe(error: Exception) -> dict[str, object]:
    """Return the reason of a refusal, and whether the template gave it on purpose."""
    try:
        reason = ''.join(c if c.isprintable() else ' ' for c in str(error)[:4 * _MAX_REASON])
        reason = ' '.join(reason.split())[:_MAX_REASON]
    except Exception:
        reason = ''
    return {'kind': type(error).__name__, 'reason': reason,
            'refused': isinstance(error, TemplateError)}


def environment() -> ImmutableSandboxedEnvironment:
    """Return the environment that transformers gives chat templates."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters['tojson'] = _to_json
    made.globals |= {'raise_exception': _raise_exception, 'strftime_now': _strftime_now,
                     'dict': _Dict(), 'namespace': _Namespace}
    return made


class _Generation(Extension):
    """The block `generation`, which marks what an assistant says: its text is the body's."""

    tags = {'generation'}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(['name:endgeneration'], drop_needle=True)
        return nodes.CallBlock(self.call_method('_body'), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class _Dict:
    """`dict` without its attributes."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


class _Namespace(Namespace):
    """A namespace without attributes that begin with an underscore."""

    def __init__(*args, **kwargs):  # `self` may be one of the names
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name, value):
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith('_'):
        raise SecurityError(f'a namespace cannot have the attribute {name!r:.80}')


def _raise_exception(message):
    raise TemplateError(message)


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def _strftime_now(form):
    """Format the beginning of this day: a prompt stays the prefix of others until midnight."""
    return datetime.combine(date.today(), time.min).strftime(form)


def receive() -> object:
    size, = _LENGTH.unpack(_read(_LENGTH.size))
    return json.loads(_read(size))


def send(answer: dict[str, object]) -> None:
    data = json.dumps(answer).encode()
    rest = memoryview(_LENGTH.pack(len(data)) + data)
    while rest:
        rest = rest[os.write(_CHANNEL, rest):]


def _read(size: int) -> bytes:
    data = b''
    while len(data) < size:
        part = os.read(_CHANNEL, size - len(data))
        if not part:
            raise SystemExit  # the other side is gone
        data += part
    return data


if __name__ == '__main__':
    main()
