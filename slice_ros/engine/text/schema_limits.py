# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Limits of JSON schemas and regular expressions, so that compiling them stays quick.

llguidance bounds the size of a compiled grammar, but not each search while it compiles. Schemas
beyond the limits below were measured to take seconds; planners stay far below them.
"""

from collections.abc import Iterator
from fractions import Fraction
import json
import math
import re

MAX_BYTES = 32768         # of a JSON schema
MAX_REGEX_BYTES = 4096
_MAX_DEPTH = 64           # of the schema's own JSON
_MAX_PROPERTIES = 200     # of one object
_MAX_ALL_PROPERTIES = 500
_MAX_VALUES = 1000        # enum, anyOf ...
_MAX_INNER_VALUES = 500   # lists and objects in enum and const, with all that is in them
_MAX_DIGITS = 100         # of an integer
_MAX_REGEXES = 64         # patterns and formats
_MAX_COMBINED = 4         # of these, if the schema combines schemas
_MAX_REPEATS = 500        # of a part of a regular expression, nested ones multiplied
_MAX_MULTIPLE = 1000
_STEP = 1e-6              # multipleOf of numbers for which the schema has none

_COMBINING = ('allOf', 'anyOf', 'oneOf', '$ref')
# The keys of their objects are names, not keywords.
_NAMES = ('properties', 'patternProperties', '$defs', 'definitions')
_WITHOUT_FORCE = frozenset((
    '$comment', '$defs', '$id', '$schema', 'default', 'definitions', 'deprecated', 'description',
    'discriminator', 'examples', 'readOnly', 'title', 'type', 'writeOnly'))
# What these have is no schema.
_VALUES = ('const', 'default', 'enum', 'examples')
_PART = re.compile(
    r'\\[xuU]\{[0-9A-Fa-f]{1,8}\}|\\.|\[\^?\]?|(?P<repeat>\{[\s0-9,]*\})'
    r'|(?P<verbose>\(\?[a-wyzA-Z-]*x)|.', re.DOTALL)


def read_schema(text: str) -> dict:
    """Return the JSON schema in `text`. Raises ``ValueError`` with what is wrong with it.

    Its numbers get a limit of digits: a small model may add digits for ever.
    """
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        raise ValueError(f'it has more than {MAX_BYTES} bytes')
    try:
        schema = json.loads(text, parse_constant=_no_number, parse_int=_integer,
                            parse_float=_float)
    except RecursionError:
        raise ValueError(f'it is nested deeper than {_MAX_DEPTH} levels') from None
    if not isinstance(schema, dict):
        raise ValueError('a schema is a JSON object')
    regexes = properties = inner = 0
    combined = False
    multiple = Fraction(1)
    numbers = []
    for key, node in _objects(schema):
        if key in _NAMES:
            properties += len(node)
            if len(node) > _MAX_PROPERTIES or properties > _MAX_ALL_PROPERTIES:
                raise ValueError(f'an object may name {_MAX_PROPERTIES} properties, all together '
                                 f'{_MAX_ALL_PROPERTIES}')
            if key == 'patternProperties':
                regexes, combined = regexes + len(node), True
                for pattern in node:
                    check_regex(pattern)
            continue
        if 'x-guidance' in node:
            raise ValueError('x-guidance cannot be used here')
        regexes += ('pattern' in node) + ('format' in node)
        combined = combined or _combines(node)
        if isinstance(node.get('pattern'), str):
            check_regex(node['pattern'])
        inner += sum(_inner_values(node[name]) for name in _VALUES if name in node)
        if inner > _MAX_INNER_VALUES:
            raise ValueError(f'its enum and const have more than {_MAX_INNER_VALUES} values in '
                             'lists and objects')
        number = node.get('multipleOf')
        if isinstance(number, (int, float)) and number > 0:
            multiple = _common_multiple(multiple, Fraction(str(number)))
        if _endless(node):
            numbers.append(node)
    if regexes > (_MAX_COMBINED if combined else _MAX_REGEXES):
        raise ValueError(
            f'it has {regexes} patterns and formats: {_MAX_REGEXES} are possible, and '
            f'{_MAX_COMBINED} where allOf, oneOf, patternProperties or the like combine schemas')
    for node in () if combined else numbers:
        node['multipleOf'] = _STEP
    return schema


def check_regex(regex: str) -> None:
    """Raise ``ValueError`` when a regular expression is too long, or repeats a part too often.

    The time is linear. The syntax is that of the Rust package regex.
    """
    if len(regex) > MAX_REGEX_BYTES or len(regex.encode()) > MAX_REGEX_BYTES:
        raise ValueError(f'a regular expression may have {MAX_REGEX_BYTES} bytes')
    check_repeats(regex)


def check_repeats(regex: str) -> None:
    """Raise ``ValueError`` when a regular expression repeats a part too many times."""
    worst = [1]       # most repeats so far inside each open group
    last = 1          # of the part just read
    classes = 0       # character classes that are open: they may be nested
    for part in _PART.finditer(regex):
        text = part[0]
        if text[0] == '[':
            classes += 1
        elif classes:
            classes -= text == ']'
            last = 1
        elif part['verbose']:
            raise ValueError('the flag x cannot be used')
        elif text == '(':
            worst.append(1)
        elif text == ')' and len(worst) > 1:
            last = worst.pop()
        elif part['repeat']:
            counts = re.findall('[1-9][0-9]{0,8}', text)
            last *= max(map(int, counts), default=1)
        else:
            last = 1
        worst[-1] = max(worst[-1], last)
        if last > _MAX_REPEATS:
            raise ValueError(f'a part of it is repeated more than {_MAX_REPEATS} times')


def _objects(schema: dict) -> Iterator[tuple[str, dict]]:
    """Yield every JSON object in a schema, with its key where it is one of `_NAMES`, else ''."""
    stack = [('', schema, 0)]
    while stack:
        key, node, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f'it is nested deeper than {_MAX_DEPTH} levels')
        if isinstance(node, dict):
            yield key, node
            for name, value in node.items():
                if key in _NAMES:
                    stack.append(('', value, depth + 1))
                elif name not in _VALUES:
                    stack.append((name if name in _NAMES else '', value, depth + 1))
                elif isinstance(value, list) and len(value) > _MAX_VALUES:
                    raise ValueError(f'{name} has {len(value)} values, {_MAX_VALUES} are possible')
        elif isinstance(node, list):
            if len(node) > _MAX_VALUES:
                raise ValueError(f'{len(node)} parts are too many: {_MAX_VALUES} are possible')
            stack += [('', value, depth + 1) for value in node]


def _inner_values(value: object) -> int:
    """Return how many values are in `value`, but for plain ones in a list, which are cheap."""
    count, depth, level = 0, 0, [value]
    while level := [inner for outer in level if isinstance(outer, (list, dict))
                    for inner in (outer.values() if isinstance(outer, dict) else outer)]:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f'it is nested deeper than {_MAX_DEPTH} levels')
        count += sum(1 for inner in level
                     if depth > 1 or isinstance(value, dict) or isinstance(inner, (list, dict)))
    return count


def _combines(node: dict) -> bool:
    """Return whether several parts of a schema may apply to the same value."""
    how = [key for key in _COMBINING if key in node]
    if not how:
        return False
    several = any(isinstance(node.get(key), list) and len(node[key]) > 1
                  for key in ('allOf', 'oneOf'))
    return several or len(how) > 1 or any(
        key not in _WITHOUT_FORCE and key not in how for key in node)


def _endless(node: dict) -> bool:
    """Return whether a schema allows numbers with any number of digits."""
    kinds = node.get('type')
    if 'number' not in (kinds if isinstance(kinds, list) else [kinds]):
        return False
    low, high = (max((node[key] for key in keys if isinstance(node.get(key), (int, float))),
                     default=None, key=abs)
                 for keys in (('minimum', 'exclusiveMinimum'), ('maximum', 'exclusiveMaximum')))
    narrow = low is not None and high is not None and high - low < 1000 * _STEP
    return not narrow and not any(key in node for key in ('multipleOf', 'enum', 'const'))


def _common_multiple(a: Fraction, b: Fraction) -> Fraction:
    denominator = math.lcm(a.denominator, b.denominator)
    least = Fraction(math.lcm(int(a * denominator), int(b * denominator)), denominator)
    if int(str(least.numerator).rstrip('0')) > _MAX_MULTIPLE:
        raise ValueError(f'multipleOf goes up to {_MAX_MULTIPLE}')
    return least


def _no_number(name: str) -> None:
    raise ValueError(f'{name} is no JSON')


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f'a number in it has {len(text)} digits: {_MAX_DIGITS} are possible')
    return int(text)


def _float(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f'the number {text[:40]} in it is too large')
    return value
