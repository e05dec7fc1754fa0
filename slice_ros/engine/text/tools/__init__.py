# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tools: how a model is shown them, how it writes a call, and how its calls are read.

Each family of models writes calls in a syntax of its own: a file with a `CallSyntax` each.
`syntaxes` chooses one, `tool_schemas` checks what comes from a caller, `tool_prompts` puts tools,
calls and results into messages, `call_grammar` makes a grammar of a syntax, `call_reader` takes
calls out of an answer.
"""
