# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Gemma 2 and 3: no syntax of their own; a block of code, as their makers' guide shows it."""

from slice_ros.engine.text.tools.call_syntax import CallSyntax

GEMMA = CallSyntax(
    'gemma', marks=('<start_of_turn>',), triggers=('```tool_code',), opening='\n',
    head='{"name": "NAME", "parameters": ', closing='\n```', in_template=False)
