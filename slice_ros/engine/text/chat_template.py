# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A chat template, rendered in a process that may be killed: it is code of the model's maker."""

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import signal
import socket
import struct
import subprocess
import sys
from threading import Lock
import weakref

from slice_ros.errors import ErrorCode, RequestError

_PROGRAM = Path(__file__).with_name('template_process.py')
_PATIENCE_S = 10.0  # for a process that does not run at all; its processor time has a limit
_TOO_LONG = ('the chat template needs too much processor time for these messages: correct the '
             'chat_template.jinja of the model')
_LENGTH = struct.Struct('<I')

Messages = Sequence[tuple[str, str]]  # role, content


class ChatTemplate:
    """Renders messages with a chat template. Thread-safe; one rendering at a time.

    `names` are what the template may read beside the messages: texts of special tokens, and
    arguments of its own. The process is started here, once more after each death, and ends with
    this object.
    """

    def __init__(self, source: str, names: Mapping[str, object], max_bytes: int) -> None:
        self.source = source
        self._setup = {'template': source, 'names': dict(names), 'max_bytes': max_bytes}
        self._lock = Lock()
        self._process: _Process | None = None
        self._unusable = False  # whether compiling it takes too long
        try:
            self._process = _Process(self._setup)
        except OSError:
            pass  # each request tries again, and its caller receives the reason

    def render(self, messages: Messages) -> str:
        """Return the text of messages, with the start of the answer.

        Where the template refuses them with a system message in front, as that of Gemma 2 does,
        its content goes in front of the user's first: so its makers' documentation says. Raises
        ``RequestError``: INVALID_REQUEST when the template refuses them, fails, or needs too much
        time or memory; PROMPT_TOO_LONG when the text has more than `max_bytes`.
        """
        with self._lock:
            answer = self._answer(messages)
            if answer.get('refused') and (folded := _folded(messages)):
                again = self._answer(folded)
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

    def _answer(self, messages: Messages) -> dict[str, object]:
        if self._unusable:
            raise _refused(_TOO_LONG)
        try:
            for _ in range(2):  # a process may have died since, for want of memory
                process = self._process = self._process or _Process(self._setup)
                try:
                    return process.answer(messages)
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
    if [role for role, _ in messages[:2]] != ['system', 'user']:
        return None
    return [('user', '\n\n'.join(content for _, content in messages[:2])), *messages[2:]]


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

    def answer(self, messages: Messages) -> dict[str, object]:
        """Return the answer. Raises ``OSError`` or ``EOFError`` when the process has died."""
        self._send(messages)
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
