# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Any other model: the answer is calls alone, a JSON object a line, as a system message asks."""

from slice_ros.engine.text.tools.call_syntax import CallSyntax

PLAIN_JSON = CallSyntax('json', marks=(), triggers=('',), in_template=False)
