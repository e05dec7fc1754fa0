# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 to 3.3: the answer is one call, of `parameters`, perhaps behind a token of its own."""

from slice_ros.engine.text.tools.call_syntax import CallSyntax

LLAMA = CallSyntax(
    'llama', marks=('<|python_tag|>', 'Environment: ipython'), triggers=('', '<|python_tag|>'),
    head='{"name": "NAME", "parameters": ', several=False)
