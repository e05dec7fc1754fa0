# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tools as planners have them, and tokenizers and templates of models that call them."""

import json
from pathlib import Path

from slice_ros.engine import Tool
from slice_ros.engine.text.grammar import Grammars
from slice_ros.engine.text.tools.syntaxes import SYNTAXES
import tiny
from tokenizers import AddedToken

TOOLS = tuple(Tool(tool['name'], tool['description'], json.dumps(tool['parameters'])) for tool in
              json.loads(Path(__file__).with_name('data').joinpath('tools.json').read_text()))
BY_NAME = {tool.name: tool for tool in TOOLS}
SYNTAX = {syntax.name: syntax for syntax in SYNTAXES}
SPECIAL = ('[TOOL_CALLS]', '[ARGS]', '<|python_tag|>')
STOP = 258
HERMES = """
{%- if tools %}{{ '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
{%- for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}
{{- 'Call with <tool_call></tool_call>.<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif m.role != 'system' or not tools %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}
{%- for call in m.tool_calls %}
{%- if not loop.first or m.content %}{{ '\\n' }}{% endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson + '}\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
# What templates of the families have about tools, cut down to it.
TEMPLATES = {
    'hermes': HERMES,
    'llama': '{% if tools is not none %}Environment: ipython{% endif %}{{ m.tool_calls }}',
    'mistral': '{{ tools }}[TOOL_CALLS][{{ m.tool_calls }}',
    'mistral_spaced': '{{ tools }}[TOOL_CALLS] [{{ m.tool_calls }}',
    'mistral_args': '{{ tools }}[TOOL_CALLS]{{ name }}[ARGS]{{ m.tool_calls }}',
    'gemma': '<start_of_turn>user\n{{ content }}',
    'phi': "<|tool|>{{ message['tools'] }}<|/tool|>",
    'json': tiny.TEMPLATE}


def tokenizer(template=tiny.TEMPLATE):
    """Return the tokenizer of bytes, with the special tokens of some families."""
    made = tiny.tokenizer()
    made.backend_tokenizer.add_special_tokens([
        AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    made.chat_template = template
    return made


def constraint(wanted, syntax='json'):
    """Return the constraint of an answer of the tokenizer of bytes."""
    return Grammars(tokenizer(), 320, frozenset([STOP]), SYNTAX[syntax]).compile(wanted)


def follow(answer, text):
    """Have an answer say `text`, if it may; return what of it is released, and where it fails.

    The place is None where all of it was possible.
    """
    released = ''
    for place, token in enumerate(tokenizer().backend_tokenizer.encode(text).ids):
        answer.prepare()
        if answer.error or answer.forbidden[token]:
            return released, place
        released += answer.accept(token)
    return released, None


def may_end(answer):
    """Return whether an answer may end as it is now."""
    if answer.over:
        return True
    answer.prepare()
    return not answer.forbidden[STOP]
