# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Inputs that a hostile caller, or the maker of a model, may send: made from a seed, for ever.

As a program it tries many, counts the outcomes and prints what is no declared error:
`python test/unit/engine/hostile_inputs.py COUNT [FIRST_SEED]`.
"""

from collections import Counter
import json
from pathlib import Path
import random
import sys
import tempfile
import time
import traceback

if __name__ == '__main__':
    sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parent)]

import mutated_gguf
import numpy as np
from slice_ros.engine import ResponseFormat
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.text.grammar import Grammars
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.errors import ErrorCode, ModelError, RequestError
import tiny
from tqdm import tqdm

MAX_CONTEXT = 100
CODES = (ErrorCode.INVALID_REQUEST, ErrorCode.PROMPT_TOO_LONG)
TEXTS = ('', ' ', 'a', 'hello', 'é', '🤖', '\ufffd', '\0', '\ud800', '\udfff', '\x02', '\x03',
         '\n', '<|im_end|>', '<|IM_START|>', '<|', '|>', '{{', '}}', '{%', '"', '\\', '\u202e',
         '\u200d', 'e\u0301', '＜', '<|im_start|>system\n', '𝟘', 'ﬁ', 'İ', 'ß')
PIECES = ('[', ']', '(', ')', '{', '}', '{9}', '{ 99 }', '{0,', '*', '+', '?', '|', '.', '^', '$',
          '\\', r'\d', r'\w', r'\p{L}', r'\x{41}', '(?i)', '(?x)', '(?:', '(?=', 'a', 'é', '-',
          '&&', '#', '/', '"', ' ', '\n', '\0', '\ud800')
KEYWORDS = ('type', 'properties', 'patternProperties', 'required', 'items', 'prefixItems', 'enum',
            'const', 'anyOf', 'allOf', 'oneOf', '$ref', '$defs', 'minimum', 'maximum', 'pattern',
            'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'minLength', 'maxLength',
            'format', 'minItems', 'maxItems', 'additionalProperties', 'default', 'not', 'if',
            'x-guidance')
PLAIN = ('string', 'number', 'integer', 'object', 'array', 'null', '#', '#/$defs/a', 'date',
         'ipv4', True, None, 0, -1, 1.5, 1e308, -1e-308, 10 ** 15, 10 ** 400, float('inf'), 0.1,
         'a', '\ud800')
# Schemas that are right, to be put together.
FITTING = (
    {}, {'type': 'string'}, {'type': 'number', 'minimum': -1e300, 'maximum': 0.1},
    {'enum': ['a', [1, {'b': None}], 1e-9]}, {'type': 'string', 'pattern': '(a|b){9}[^c]*'},
    {'type': 'integer', 'minimum': 10 ** 15, 'maximum': 10 ** 18}, {'multipleOf': 0.5},
    {'type': 'string', 'format': 'date'}, {'type': 'array', 'minItems': 3, 'maxItems': 400},
    {'type': ['null', 'boolean']}, {'const': {'a': [[]]}},
    {'type': 'string', 'maxLength': 10 ** 6})
EXPRESSIONS = ('m', 'm.content', 'messages', 'messages[0]', '1', '0', "'a'", 'none', 'loop', 'x',
               '[1]', '{}', 'range(9)', 'bos_token', 'm.role', 'namespace(a=1)', 'cycler(1)')
FORMS = ('{{ A }}', '{{ A + B }}', '{{ A / B }}', '{{ A ** B }}', '{{ A % B }}', '{{ A[B] }}',
         '{{ A | tojson }}', '{{ A | upper }}', '{{ A | trim }}', '{{ A | join(B) }}',
         '{{ A(B) }}', '{{ A | replace(B, A) }}', '{{ A.format(B) }}', '{{ A * 99999999 }}',
         '{{ A | sort }}',
         '{{ raise_exception(A) }}', '{{ strftime_now(A) }}', '{% set x = A %}', '{{ A[::-1] }}',
         '{% for m in A %}', '{% endfor %}', '{% if A %}', '{% endif %}', '{% include A %}',
         '{{ A', '{% for m in messages %}{{ m.content }}{% endfor %}', '<|im_end|>', 'text',
         '{% break %}')


class Targets:
    """What the inputs are tried on; `folder` is for files."""

    def __init__(self, folder):
        self.tokenizer = tiny.tokenizer()
        self.encoder = PromptEncoder(self.tokenizer, MAX_CONTEXT)
        self.grammars = Grammars(self.tokenizer, 320, frozenset([256]))
        self.file = folder / 'damaged.gguf'
        self.whole, self.header = mutated_gguf.whole_file(folder / 'whole.gguf')


def text(targets, dice):
    """Encode a prompt, or a chat."""
    texts = TEXTS if dice.random() < 0.2 else [text for text in TEXTS if text.isprintable()]
    said = ''.join(dice.choices(texts, k=dice.choice((0, 1, 3, 9, 200))))
    if dice.random() < 0.3:
        assert len(targets.encoder.encode(said)) < MAX_CONTEXT
        return
    chat = [(dice.choice(('user', 'system', 'assistant', 'tool', said[:9])), said)
            for _ in range(dice.randrange(4))]
    ids = targets.encoder.encode_chat(chat)
    # Two special tokens a turn and one to begin the answer: the template's, none of the caller.
    assert sum(i > 255 for i in ids) == 2 * len(chat) + 1, ids


def template(targets, dice):
    """Encode a chat with a template of nonsense."""
    whole = dice.random() < 0.5
    forms = [form for form in FORMS if form.endswith('}}')] if whole else FORMS
    source = ''.join(dice.choices(forms, k=dice.choice((1, 2, 4))))
    if whole:
        source = f'{{% for m in messages %}}{source}{{% endfor %}}'
    for name in 'AB':
        source = source.replace(name, dice.choice(EXPRESSIONS))
    tokenizer = targets.tokenizer
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = source
        encoder = PromptEncoder(tokenizer, MAX_CONTEXT)
    finally:
        tokenizer.chat_template = before
    encoder.encode_chat([('user', ''.join(dice.choices(TEXTS, k=3)))])


def regex(targets, dice):
    """Compile a regular expression."""
    part = ''.join(dice.choices(PIECES, k=dice.choice((1, 3, 9))))
    _compile(targets, 'regex', part * dice.choice((1, 1, 2, 30, 5000)))


def schema(targets, dice):
    """Compile a JSON schema."""
    written = json.dumps(_schema(dice, dice.choice((1, 2, 3))))
    if dice.random() < 0.2:
        at = dice.randrange(len(written))
        written = written[:at] + dice.choice(('', '[' * 5000, '{"items":' * 70, '\ud800', 'NaN',
                                              '-', '"')) + written[at:]
    _compile(targets, 'json_schema', written)


def gguf(targets, dice):
    """Read a damaged GGUF file."""
    targets.file.write_bytes(
        mutated_gguf.mutated(targets.whole, targets.header, dice.getrandbits(64)))
    made = GgufFile(targets.file)
    made.config()
    made.types()
    tensors = GgufTensors(made, np.float16)
    for name, _ in made.named():
        assert tensors[name].numel()


KINDS = {'text': text, 'regex': regex, 'schema': schema, 'gguf': gguf, 'template': template}


def attempt(targets, kind, seed):
    """Try one input: 'served' or the declared error's code. Any other exception is a fault."""
    try:
        KINDS[kind](targets, random.Random(f'{kind} {seed}'))
    except ModelError as error:
        assert kind == 'gguf' and 0 < len(str(error)) < 1000, error
        return 'ModelError'
    except RequestError as error:
        assert error.code in CODES and 0 < len(error.message) < 700, error
        assert '\n' not in error.message and error.message.encode(), error
        return error.code.name
    return 'served'


def _compile(targets, kind, grammar):
    began = time.thread_time()
    try:
        targets.grammars.compile(ResponseFormat(kind, grammar=grammar))
    finally:
        spent = time.thread_time() - began
        assert spent < 2, f'{spent:.1f} s for {grammar!r:.300}'


def _schema(dice, depth):
    if not depth:
        return dice.choice(PLAIN)
    if dice.random() < 0.5:
        return dice.choice((
            lambda: dice.choice(FITTING), lambda: {'anyOf': dice.choices(FITTING, k=3)},
            lambda: {'type': 'object', 'required': ['b'], 'properties': {
                name: _schema(dice, depth - 1) if depth > 1 else dice.choice(FITTING)
                for name in 'abc'}},
            lambda: {'type': 'array', 'items': _schema(dice, depth - 1)}))()
    made = {}
    for _ in range(dice.randrange(1, 5)):
        key = dice.choice(KEYWORDS)
        made[key] = dice.choice((
            lambda: dice.choice(PLAIN), lambda: _schema(dice, depth - 1),
            lambda: [_schema(dice, depth - 1) for _ in range(dice.choice((1, 2, 5)))],
            lambda: {name: _schema(dice, depth - 1) for name in dice.choices('abc', k=2)},
            lambda: [dice.choice(PLAIN)] * dice.choice((1, 300)),
            lambda: ''.join(dice.choices(PIECES, k=6))))()
    return made


def main():
    """Try many inputs, print the outcomes and each kind of fault once."""
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    outcomes, faults = Counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        targets = Targets(Path(folder))
        for seed in tqdm(range(first, first + count)):
            # A template costs a process of its own, so there are fewer of these.
            kind = 'template' if seed % 100 == 0 else tuple(KINDS)[seed % 4]
            try:
                outcomes[kind, attempt(targets, kind, seed)] += 1
            except Exception as error:
                outcomes[kind, 'FAULT'] += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                faults.setdefault((kind, type(error).__name__, where.filename, where.lineno),
                                  (seed, ascii(str(error))[:200]))
    for outcome, times in sorted(outcomes.items()):
        print(times, *outcome)
    for fault, example in faults.items():
        print(*fault, *example)
    return bool(faults)


if __name__ == '__main__':
    sys.exit(main())
