# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a syntax of tool calls consists of; the interface of the files of the families."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
import json

from slice_ros.engine.config import ToolCall

MAX_CALLS = 16   # of one answer


def described(syntax: 'CallSyntax', tools: Sequence[dict]) -> str:
    """Return what a system message says of `tools` where no chat template shows them."""
    example = syntax.text([('NAME', 'ARGUMENTS')])
    several = ' Several calls may follow each other.' if syntax.several else ''
    # Not as templates have them: a small model repeats the form of what it reads.
    listed = '\n'.join(json.dumps(tool['function'], ensure_ascii=False) for tool in tools)
    return ('You can call these tools, one JSON object a line:\n'
            f'{listed}\n'
            'To call a tool, end your answer with its name and its arguments, a JSON object that '
            f'is valid under its parameters, in this form:\n{example}\n'
            f'Then wait for its result.{several} Where no tool helps, just answer.')


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """How a family of models writes calls: opening, head, arguments, tail, ..., closing.

    `head` has `NAME` where the tool's name stands; calls are separated by `between`. An answer may
    begin with text. From the first of `triggers` in it on, which begin the opening, there are
    calls alone. The trigger '' stands for a call with which the answer begins.
    """

    name: str
    marks: tuple[str, ...]          # one of them is in each chat template of the family
    triggers: tuple[str, ...]       # the first is the one that is asked for
    opening: str = ''               # between the trigger and the first call
    head: str = '{"name": "NAME", "arguments": '
    tail: str = '}'
    between: str = '\n'
    closing: str = ''
    several: bool = True            # whether an answer may have several calls
    describe: Callable[['CallSyntax', Sequence[dict]], str] = described
    in_template: bool = True        # a template with a mark shows the tools, where it reads them

    def text(self, calls: Iterable[tuple[str, str]]) -> str:
        """Return calls, (name, arguments) each, as the model writes them."""
        return self.triggers[0] + self.opening + self.between.join(
            self.head.replace('NAME', name) + arguments + self.tail
            for name, arguments in calls) + self.closing

    def said(self, content: str, calls: Sequence[ToolCall]) -> str:
        """Return what an assistant has written: a text, and calls behind it."""
        return content + self.text((c.name, c.arguments) for c in calls) if calls else content
