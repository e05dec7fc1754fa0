# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A chat template, rendered in a process that may be killed: it is code of the model's maker."""

from collections.abc import Mapping, Sequence
from hashlib import blake2s
import json
import os
from pathlib import Path
import re
import signal
import socket
import struct
import subprocess
import sys
from threading import Lock
from types import MappingProxyType
import weakref

from slice_ros.engine.config import Message
from slice_ros.errors import ErrorCode, ModelError, one_line, RequestError

_PROGRAM = Path(__file__).with_name('template_process.py')
_PATIENCE_S = 10.0  # for a process that does not run at all; its processor time has a limit
_TOO_LONG = ('the chat template needs too much processor time for these messages: correct the '
             'chat_template.jinja of the model')
MAX_TEMPLATE_BYTES = 1 << 18  # of a file; the longest of the common models have 16 KiB
_LENGTH = struct.Struct('<I')

_CALL_ID = re.compile('[A-Za-z0-9]{9}')   # of a tool call, in templates that check it: Mistral's

Messages = Sequence[Message | tuple[str, str]]


def read_template(name: str) -> str:
    """Return the text of a chat template's file.

    Raises ``ModelError`` where there is none, or what is there is no text or too long.
    """
    path = Path(name).expanduser()
    try:
        if not path.is_file():
            raise ModelError(f'engine.chat_template names no file: {path}')
        with path.open('rb') as file:
            text = file.read(MAX_TEMPLATE_BYTES + 1)
        if len(text) > MAX_TEMPLATE_BYTES:
            raise ModelError(f'engine.chat_template: {path} has more than {MAX_TEMPLATE_BYTES} '
                             'bytes, which no template of a model has')
        return text.decode()
    except (OSError, ValueError) as error:
        raise ModelError(f'engine.chat_template: {path!r} cannot be read as text: '
                         f'{one_line(error)}') from error


class ChatTemplate:
    """Renders messages with a chat template. Thread-safe; one rendering at a time.

    `names` are what the template may read beside the messages: texts of special tokens, and
    arguments of its own. With `sees` its model takes images. The process is started here, once
    more after each death, and ends with this object.
    """

    def __init__(self, source: str, names: Mapping[str, object], max_bytes: int,
                 sees: bool = False) -> None:
        self.source, self._parts = source, False
        self._setup = {'template': source, 'names': dict(names), 'max_bytes': max_bytes}
        self._lock = Lock()
        self._process: _Process | None = None
        self._unusable = False  # whether compiling it takes too long
        try:
            self._process = _Process(self._setup)
        except OSError:
            pass  # each request tries again, and its caller receives the reason
        self._parts = sees and self._takes_parts()

    def _takes_parts(self) -> bool:
        """Return whether contents are lists of parts, as where the template places images."""
        self._parts = True
        try:
            text = self.render([Message('user', 'a word')])
        except RequestError:
            return False
        return 'a word' in text and "'type'" not in text

    def render(self, messages: Messages, tools: Sequence[dict] = (),
               arguments: Mapping[str, object] = MappingProxyType({})) -> str:
        """Return the text of messages, with the start of the answer, and `tools` for the template.

        It reads `arguments` by name, in place of its own of the same names.
        Where the template refuses them with a system message in front, as that of Gemma 2 does,
        its content goes in front of the user's first: so its makers' documentation says. Raises
        ``RequestError``: INVALID_REQUEST when the template refuses them, fails, or needs too much
        time or memory; PROMPT_TOO_LONG when the text has more than `max_bytes`.
        """
        if not self._parts and any(Message(*message).images for message in messages):
            raise _refused('the chat template of this model has no place for images')
        with self._lock:
            answer = self._answer(messages, tools, arguments)
            if answer.get('refused') and (folded := _folded(messages)):
                again = self._answer(folded, tools, arguments)
                answer = answer if again.get('refused') else again
        if 'text' in answer:
            return answer['text']
        if 'size' in answer:
            raise RequestError(
                ErrorCode.PROMPT_TOO_LONG, f'the chat template makes {answer["size"]} bytes of '
                f'these messages, more than the context could ever hold: shorten them')
        if answer['refused']:
            raise _refused(f'the chat template refuses these messages: {answer["reason"]}')
        raise _refused(f'the chat template fails on these messages ({answer["kind"]}: '
                       f'{answer["reason"]}): correct the chat_template.jinja of the model')

    def _answer(self, messages: Messages, tools: Sequence[dict], arguments: Mapping[str, object]
                ) -> dict[str, object]:
        if self._unusable:
            raise _refused(_TOO_LONG)
        try:
            for _ in range(2):  # a process may have died since, for want of memory
                process = self._process = self._process or _Process(self._setup)
                try:
                    return process.answer(
                        {'messages': _as_dicts(messages, self._parts),
                         'tools': list(tools) or None, 'arguments': dict(arguments)})
                except (OSError, EOFError) as error:
                    self._process, ended, late = None, process.end(), error
                if ended == -signal.SIGPROF or isinstance(late, TimeoutError):
                    self._unusable = ended == -signal.SIGPROF and not process.ready
                    if not self._unusable:
                        self._process = _Process(self._setup)  # ready for the next request
                    raise _refused(_TOO_LONG)
        except OSError as error:
            raise RequestError(ErrorCode.ENGINE_FAILURE, 'the process that renders the chat '
                               f'template cannot be started ({error}): free memory') from error
        raise _refused('the process that renders the chat template died of these messages: '
                       'correct the chat_template.jinja of the model')


def _folded(messages: Messages) -> Messages | None:
    """Return messages whose system message is a part of the user's first; None without both."""
    if [message[0] for message in messages[:2]] != ['system', 'user']:
        return None
    first = '\n\n'.join(message[1] for message in messages[:2])
    return [Message(*messages[1])._replace(content=first), *messages[2:]]


def _as_dicts(messages: Messages, parts: bool) -> list[dict]:
    """Return messages as templates know them: calls as OpenAI's API has them, but parsed.

    With `parts`, contents are lists, in which images stand before the text.
    """
    made, names = [], {}
    for message in messages:
        message = Message(*message)
        one = {'role': message.role, 'content': message.content}
        if parts:
            one['content'] = [*({'type': 'image'} for _ in message.images),
                              {'type': 'text', 'text': message.content}]
        if message.tool_calls:
            names |= {call.id: call.name for call in message.tool_calls}
            one['tool_calls'] = [
                {'id': _call_id(call.id), 'type': 'function', 'function': {
                    'name': call.name, 'arguments': json.loads(call.arguments)}}
                for call in message.tool_calls]
        if message.tool_call_id:
            one |= {'tool_call_id': _call_id(message.tool_call_id),
                    'name': names.get(message.tool_call_id, '')}
        made.append(one)
    return made


def _call_id(name: str) -> str:
    return name if _CALL_ID.fullmatch(name) else blake2s(name.encode()).hexdigest()[:9]


class _Process:
    """One process; it may die at any time."""

    def __init__(self, setup: dict) -> None:
        self.ready = False  # whether it has compiled the template
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # Without site, which may import much, and with what can be imported here.
                [sys.executable, '-S', str(_PROGRAM)], stdin=theirs,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
                                  'PYTHONSAFEPATH': '1'})
        self._socket.settimeout(_PATIENCE_S)
        self._end = weakref.finalize(self, _end, self._socket, self._process)
        self._send(setup)

    def answer(self, chat: dict[str, object]) -> dict[str, object]:
        """Return the answer. Raises ``OSError`` or ``EOFError`` when the process has died."""
        self._send(chat)
        if not self.ready:
            self._receive()
            self.ready = True
        return self._receive()

    def end(self) -> int:
        """End the process; return its exit status, negative for a signal."""
        self._end()
        return self._process.returncode

    def _send(self, what: object) -> None:
        data = json.dumps(what).encode()
        self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def _receive(self) -> dict[str, object]:
        size, = _LENGTH.unpack(self._bytes(_LENGTH.size))
        return json.loads(self._bytes(size))

    def _bytes(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)


def _end(connection: socket.socket, process: subprocess.Popen) -> None:
    connection.close()
    # One that has died keeps its own exit status.
    process.kill()
    process.wait()


def _refused(sentence: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, sentence)
