# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Phi-4-mini: tools between tags in the system message, calls as a list between tags."""

from collections.abc import Sequence
import json

from slice_ros.engine.text.tools.call_syntax import CallSyntax


def _between_tags(syntax: CallSyntax, tools: Sequence[dict]) -> str:
    return f'<|tool|>{json.dumps(list(tools), ensure_ascii=False)}<|/tool|>'


# Its template puts into the system message what that has as `tools`: the same is written there.
PHI = CallSyntax(
    'phi', marks=('<|tool|>',), triggers=('<|tool_call|>',), opening='[', between=', ',
    closing=']<|/tool_call|>', describe=_between_tags, in_template=False)
