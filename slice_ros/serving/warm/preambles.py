# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The messages that all requests of a class begin with."""

import json
from typing import TYPE_CHECKING

from slice_ros.engine.chat_options import ChatOptions
from slice_ros.serving.sessions import Messages

if TYPE_CHECKING:
    from slice_ros.engine import Engine

ROLES = ('system', 'user', 'assistant')
_SHAPE = ('a text, the system message, or a JSON array of messages: [{"role": "system", '
          '"content": "..."}, ...]')


def parse_preamble(text: str) -> Messages:
    """Return the messages of a preamble, none for an empty one.

    A text is the system message; a JSON array has messages with `role` and `content`. Raises
    ``ValueError`` for an array that has not.
    """
    if not text.strip():
        return []
    if not text.lstrip().startswith('['):
        return [('system', text)]
    try:
        messages = [(message['role'], message['content']) for message in json.loads(text)]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f'must be {_SHAPE}') from None
    for role, content in messages:
        if role not in ROLES or not isinstance(content, str):
            raise ValueError(f'must be {_SHAPE}, with a role of {", ".join(ROLES)}')
    return messages


def prefix_of(engine: 'Engine', preamble: Messages, options: ChatOptions = ChatOptions()
              ) -> list[int]:
    """Return the tokens that every chat begins with that begins with `preamble`.

    Raises `RequestError` as `Engine.encode_chat` does.
    """
    one, other = (engine.encode_chat([*preamble, ('user', text)], (), options)
                  for text in ('0', 'a'))
    same = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), 0)
    return one[:same]
