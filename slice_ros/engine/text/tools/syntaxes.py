# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Chooses the syntax of a model's tool calls from its chat template."""

import re

from slice_ros.engine.text.tools.call_syntax import CallSyntax
from slice_ros.engine.text.tools.gemma import GEMMA
from slice_ros.engine.text.tools.hermes import HERMES
from slice_ros.engine.text.tools.llama import LLAMA
from slice_ros.engine.text.tools.mistral import MISTRAL, MISTRAL_ARGS, MISTRAL_SPACED
from slice_ros.engine.text.tools.phi import PHI
from slice_ros.engine.text.tools.plain_json import PLAIN_JSON

# In the order in which their marks are looked for; all but the last are found by one.
SYNTAXES = (MISTRAL_ARGS, MISTRAL_SPACED, MISTRAL, PHI, LLAMA, HERMES, GEMMA, PLAIN_JSON)
# Marks of syntaxes whose arguments are no JSON (Qwen3-Coder, GLM-4.5, FunctionGemma): no file here
# has them, and their models are asked for the plain one.
_NO_JSON = ('<function=', '<arg_key>', '<start_function_call>')


def choose_syntax(template: str | None, wanted: str = 'auto') -> CallSyntax:
    """Return the syntax `wanted`, or with 'auto' the one that a chat template shows."""
    if wanted != 'auto':
        return next(syntax for syntax in SYNTAXES if syntax.name == wanted)
    return next((syntax for syntax in SYNTAXES if _shows(template, syntax)), PLAIN_JSON)


def shows_tools(template: str | None, syntax: CallSyntax) -> bool:
    """Return whether a chat template shows a model the tools itself, to be called in `syntax`."""
    return (syntax.in_template and _shows(template, syntax)
            and re.search(r'\btools\b', template) is not None)


def reads_calls(template: str | None, syntax: CallSyntax) -> bool:
    """Return whether a chat template writes the calls of earlier messages itself."""
    return syntax.in_template and _shows(template, syntax) and 'tool_calls' in template


def _shows(template: str | None, syntax: CallSyntax) -> bool:
    return template is not None and not any(mark in template for mark in _NO_JSON) and any(
        mark in template for mark in syntax.marks)
