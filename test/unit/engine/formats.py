# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Response formats, and answers that keep to them."""

import json

from slice_ros.engine import ResponseFormat, Sampling

GREEDY = Sampling()


def choice(*choices):
    return ResponseFormat('choice', choices)


def regex(expression):
    return ResponseFormat('regex', grammar=expression)


def schema(value):
    return ResponseFormat('json_schema', grammar=json.dumps(value))


def answer(engine, wanted, max_tokens=250, sampling=GREEDY, prompt='What now?'):
    """Return a finished sequence and its last output."""
    sequence = engine.open(engine.encode(prompt), max_tokens, sampling, (), wanted)
    text = ''
    while not sequence.finish_reason:
        for output in engine.step([(sequence, sequence.pending)]):
            text += output.text
    engine.close(sequence)
    assert text == sequence.text
    return sequence, output
