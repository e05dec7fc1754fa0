# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The grammar of answers that may call tools, in the dialect of Lark that llguidance reads."""

from collections.abc import Mapping, Sequence
import json
import re

from slice_ros.engine.config import Tool
from slice_ros.engine.text.tools.call_syntax import CallSyntax, MAX_CALLS
from slice_ros.engine.text.tools.tool_schemas import arguments_schema, CHOICES
from slice_ros.errors import ErrorCode, RequestError

_ANY = r'(.|\n)*'


def call_grammar(tools: Sequence[Tool], choice: str, syntax: CallSyntax,
                 special: Mapping[str, int], options: Mapping[str, object]) -> str:
    """Return the grammar of an answer under a tool choice; `tools` were checked before.

    'auto': free text, from the first trigger on calls; 'required': calls; a name: one call of that
    tool. `special` has the special tokens by text; `options` are those of JSON documents. Raises
    ``RequestError``, INVALID_REQUEST, for another choice, or a schema that cannot be used.
    """
    named = {number: tool for number, tool in enumerate(tools)
             if choice in CHOICES or tool.name == choice}
    if not named:
        raise RequestError(
            ErrorCode.INVALID_REQUEST, f'tool_choice is {choice!r:.80}: choose one of '
            f'{", ".join(CHOICES)}, or the name of a tool')

    def literal(text: str) -> str:
        return _literal(text, special)
    several = f' ({literal(syntax.between)} call){{0,{MAX_CALLS - 1}}}' if (
        syntax.several and choice in CHOICES) else ''
    lines = [
        '%llguidance {}',
        f'calls: {literal(syntax.opening)} call{several} {literal(syntax.closing)}',
        'call: ' + ' | '.join(f'call_{number}' for number in named)]
    for number, tool in named.items():
        schema = {**arguments_schema(number, tool), 'x-guidance': dict(options)}
        lines += [f'call_{number}: {literal(syntax.head.replace("NAME", tool.name))} '
                  f'arguments_{number} {literal(syntax.tail)}',
                  f'arguments_{number}: %json {json.dumps(schema)}']
    if choice == 'auto':
        lines += _or_text(syntax, special)
    else:
        lines.append(f'start: {literal(syntax.triggers[0])} calls')
    return '\n'.join(lines)


def _or_text(syntax: CallSyntax, special: Mapping[str, int]) -> list[str]:
    """Return the rules of an answer that is text, text and then calls, or calls alone."""
    starts, not_text, rules = ['TEXT'], [], []
    for number, trigger in enumerate(syntax.triggers):
        if not trigger:   # a text does not begin as a call does
            starts.append('calls')
            not_text.append(literally(syntax.opening + syntax.head.partition('NAME')[0]) + _ANY)
        elif trigger in special:   # nor does it have what only looks like this token
            starts.append(f'TEXT <[{special[trigger]}]> calls')
            not_text.append(_ANY + literally(trigger) + _ANY)
        else:
            starts.append(f'text_{number} calls')
            rules.append(f'text_{number}[lazy]: TEXT {json.dumps(trigger)}')
    text = f'TEXT: /{_ANY}/' + ''.join(f' & ~/{regex}/' for regex in not_text)
    return [*rules, text, f'start: {" | ".join(starts)}']


def literally(text: str) -> str:
    """Return a regular expression that matches exactly `text`."""
    return ''.join(c if c.isascii() and c.isalnum() else f'\\x{{{ord(c):x}}}' for c in text)


def _literal(text: str, special: Mapping[str, int]) -> str:
    """Return what stands in a rule for `text`, in which special tokens count as such."""
    found = [name for name in special if name in text]
    if not found:
        return json.dumps(text) if text else ''
    pieces = re.split(f'({"|".join(map(re.escape, found))})', text)
    return ' '.join(f'<[{special[piece]}]>' if piece in special else json.dumps(piece)
                    for piece in pieces if piece)
