# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The leaves: a request that begins with the leaf, and is cancelled with it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from py_trees.behaviour import Behaviour
from py_trees.common import Access, Status
from slice_ros.client import Answer, InvalidRequest, SliceClient, SliceError, Stream, Timeout
from slice_ros.errors import ErrorCode


class Ask(Behaviour):
    """A request for one value; RUNNING while its answer streams.

    `prompt` is a text, a conversation, or a function that returns either when the leaf begins.
    The value goes to the blackboard as `key`, and why there is none as `<key>_error`: the name of
    an error code, '' for none. Without a whole answer within `deadline` seconds the request ends
    with DEADLINE_MISSED. The leaf then fails, and says why in its feedback message; with a
    `fallback` it succeeds with that as the value. `fields` are those of `SliceClient.generate`.
    """

    def __init__(self, name: str, prompt: Any, *, key: str, slo_class: str = 'dialogue',
                 deadline: float | None = None, fallback: Any = None, **fields) -> None:
        super().__init__(name)
        self._prompt, self._slo_class, self._fields = prompt, slo_class, fields
        self._deadline, self._fallback = deadline, fallback
        if deadline is not None:
            self._fields = {'deadline_ms': deadline * 1e3, **fields}
        self._key, self._error_key = key, f'{key}_error'
        self._blackboard = self.attach_blackboard_client(name)
        for written in (self._key, self._error_key):
            self._blackboard.register_key(written, Access.WRITE)
        self._client: SliceClient | None = None
        self._stream: Stream | None = None
        self._error: SliceError | None = None   # of a request that could not be sent

    def setup(self, **options) -> None:
        """Take the `client` that the tree was set up with. Raises ``KeyError`` without one."""
        if 'client' not in options:
            raise KeyError(f'{self.name} needs a SliceClient: tree.setup(client=...)')
        self._client = options['client']

    def initialise(self) -> None:
        """Send the request."""
        self._error, self._stream = None, None
        try:
            prompt = self._prompt() if callable(self._prompt) else self._prompt
            self._stream = self._client.generate(
                prompt, self._slo_class, timeout=self._deadline, **self._fields)
        except InvalidRequest as error:
            self._error = error

    def update(self) -> Status:
        """Return RUNNING until the answer is there, or why there is none."""
        ended = self._stream is None or self._stream.done
        if self._stream is not None:
            self.read(self._stream.text)
        if not ended:
            self.feedback_message = self._stream.text[-80:]
            return Status.RUNNING
        error = self._error or self._stream.error
        if error is None:
            self._put(self.value(self._stream.result), '')
            self.feedback_message = self._stream.text[-80:]
            return Status.SUCCESS
        code = _name(error)
        self.feedback_message = f'{code}: {error.message}'
        if self._fallback is None:
            self._blackboard.set(self._error_key, code)
            return Status.FAILURE
        self._put(self._fallback, code)
        return Status.SUCCESS

    def terminate(self, new_status: Status) -> None:
        """Cancel the request, unless it has ended."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def value(self, answer: Answer) -> Any:
        """Return what of a whole answer goes to the blackboard."""
        return answer.text

    def read(self, text: str) -> None:
        """Take the text received so far, at every tick."""

    def _put(self, value: Any, code: str) -> None:
        self._blackboard.set(self._key, value)
        self._blackboard.set(self._error_key, code)


class AskChoice(Ask):
    """Asks for one of some texts, word for word."""

    def __init__(self, name: str, prompt: Any, *, key: str, choices: Iterable[str],
                 **options) -> None:
        super().__init__(name, prompt, key=key, choice=tuple(choices), **options)


class AskJson(Ask):
    """Asks for JSON that is valid under a schema; the value is the parsed document."""

    def __init__(self, name: str, prompt: Any, *, key: str, schema: Mapping | str,
                 **options) -> None:
        super().__init__(name, prompt, key=key, schema=schema, **options)

    def value(self, answer: Answer) -> Any:
        return answer.json


class Say(Ask):
    """Asks for free text and hands each new piece of it to `say`; the value is the whole text.

    A `fallback` is said where nothing has been said before.
    """

    def __init__(self, name: str, prompt: Any, *, key: str, say: Callable[[str], object],
                 **options) -> None:
        super().__init__(name, prompt, key=key, **options)
        self._say, self._said = say, 0

    def initialise(self) -> None:
        self._said = 0
        super().initialise()

    def read(self, text: str) -> None:
        if len(text) > self._said:
            piece, self._said = text[self._said:], len(text)
            self._say(piece)

    def update(self) -> Status:
        status = super().update()
        if status is Status.SUCCESS and self._said == 0 and self._fallback is not None:
            self.read(self._fallback)
        return status


def _name(error: SliceError) -> str:
    if isinstance(error, Timeout):
        return ErrorCode.DEADLINE_MISSED.name
    return error.code.name if isinstance(error.code, ErrorCode) else f'error {error.code}'
