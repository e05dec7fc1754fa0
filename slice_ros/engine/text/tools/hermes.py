# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Hermes 2 and 3, Qwen2.5 and Qwen3, and many others: each call between two tags."""

from slice_ros.engine.text.tools.call_syntax import CallSyntax

HERMES = CallSyntax(
    'hermes', marks=('<tool_call>',), triggers=('<tool_call>',), opening='\n',
    between='\n</tool_call>\n<tool_call>\n', closing='\n</tool_call>')
