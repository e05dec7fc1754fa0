# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Mistral: a token, then a list of calls; since 2025, name and arguments behind tokens each."""

from slice_ros.engine.text.tools.call_syntax import CallSyntax

MISTRAL_ARGS = CallSyntax(
    'mistral_args', marks=('[ARGS]',), triggers=('[TOOL_CALLS]',), head='NAME[ARGS]', tail='',
    between='[TOOL_CALLS]')
MISTRAL_SPACED = CallSyntax(   # models with a SentencePiece vocabulary
    'mistral_spaced', marks=('[TOOL_CALLS] [',), triggers=('[TOOL_CALLS]',), opening=' [',
    between=', ', closing=']')
MISTRAL = CallSyntax(
    'mistral', marks=('[TOOL_CALLS]',), triggers=('[TOOL_CALLS]',), opening='[', between=', ',
    closing=']')
