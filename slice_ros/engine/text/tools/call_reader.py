# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Takes tool calls out of an answer that a grammar keeps in its form, while it is generated."""

from collections.abc import Iterator
import json
import re
import secrets
import string

from slice_ros.engine.config import ToolCall
from slice_ros.engine.text.tools.call_syntax import CallSyntax

ID_LENGTH = 9   # of the id of a call: templates of Mistral want letters and digits, this many
_LETTERS = string.ascii_lowercase + string.digits


class CallReader:
    """One answer: `push` its text as it comes; what may belong to a call is withheld.

    `calls` has the whole calls so far. With `at_once` the answer begins with calls.
    """

    def __init__(self, syntax: CallSyntax, at_once: bool) -> None:
        self._syntax = syntax
        self._triggers = [trigger for trigger in syntax.triggers if trigger]
        self._begin = syntax.opening + syntax.head.partition('NAME')[0]   # without a trigger
        self._could_call = '' in syntax.triggers   # while the answer could be calls from its start
        self._rest = ''          # not released; once there are calls, all from them on
        self._calling = at_once
        self._ids: list[str] = []

    def push(self, text: str) -> str:
        """Add text of the answer; return the text that belongs to no call."""
        self._rest += text
        if self._calling:
            return ''
        if self._could_call:
            if self._rest.startswith(self._begin):
                self._calling = True
                return ''
            if self._begin.startswith(self._rest):
                return ''
            self._could_call = False
        places = [(at, trigger) for trigger in self._triggers
                  if (at := self._rest.find(trigger)) >= 0]
        if places:
            at, _ = min(places)
            self._calling = True
        else:
            at = len(self._rest) - max((_begun(self._rest, t) for t in self._triggers), default=0)
        released, self._rest = self._rest[:at], self._rest[at:]
        return released

    def flush(self) -> str:
        """Return the text that was withheld without need, at the end of the answer."""
        if self._calling:
            return ''
        rest, self._rest = self._rest, ''
        return rest

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The whole calls so far, in order; their arguments are JSON as the model wrote it."""
        found = list(self._found()) if self._calling else []
        while len(self._ids) < len(found):
            self._ids.append(''.join(secrets.choice(_LETTERS) for _ in range(ID_LENGTH)))
        return tuple(ToolCall(i, *call) for i, call in zip(self._ids, found))

    def _found(self) -> Iterator[tuple[str, str]]:
        """Yield (name, arguments) of each call."""
        syntax, decoder = self._syntax, json.JSONDecoder()
        text = self._rest
        trigger = next((t for t in self._triggers if text.startswith(t)), '')
        at = len(trigger) + len(syntax.opening)
        head = re.compile(re.escape(syntax.head).replace('NAME', '([A-Za-z0-9_-]+)'))
        while (match := head.match(text, at)) is not None:
            try:
                _, end = decoder.raw_decode(text, match.end())
            except (ValueError, RecursionError):   # max_tokens have cut it
                return
            if not text.startswith(syntax.tail, end):
                return
            yield match[1], text[match.end():end]
            at = end + len(syntax.tail) + len(syntax.between)


def _begun(text: str, trigger: str) -> int:
    """Return how many characters at the end of a text a trigger begins with."""
    return next((n for n in range(min(len(trigger) - 1, len(text)), 0, -1)
                 if text.endswith(trigger[:n])), 0)
