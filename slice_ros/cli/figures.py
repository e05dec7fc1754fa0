# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How the monitor writes a figure: short, with a colour that rates it."""

from collections.abc import Iterable
import math

from rich.text import Text

GOOD, NEAR, BAD, DIM = 'green', 'yellow', 'red', 'bright_black'
BLOCKS = ' ▏▎▍▌▋▊▉█'


def plain(text: str, most: int = 200) -> str:
    """Return text without control characters of a terminal."""
    return ''.join(c if c.isprintable() else '?' for c in text[:most])


def ms(value: float) -> str:
    """Return milliseconds in five characters at most; seconds have an ``s``."""
    if not math.isfinite(value):
        return '-'
    if value < 9.95:
        return f'{value:.1f}'
    if value < 999.5:
        return f'{value:.0f}'
    seconds = value / 1e3
    if seconds < 9.95:
        return f'{seconds:.1f}s'
    return f'{seconds:.0f}s' if seconds < 9999 else '>2h'


def with_unit(value: float) -> str:
    """Return milliseconds with their unit."""
    text = ms(value)
    return f'{text} ms' if text[-1].isdigit() else text


def share(value: float) -> str:
    """Return a share as a percentage."""
    return f'{min(value, 9.99):.0%}' if math.isfinite(value) else '-'


def number(value: float) -> str:
    """Return a count in five characters at most."""
    if not math.isfinite(value):
        return '-'
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e4)):
        if value >= size:
            divisor = 1e3 if unit == 'k' else size
            return f'{value / divisor:.0f}{unit}'
    return f'{value:.0f}'


def against(value: float, objective: float) -> str:
    """Return the style of a time: good, close to its objective, or above it."""
    if not math.isfinite(value):
        return DIM
    if not objective:
        return ''
    return GOOD if value <= .9 * objective else NEAR if value <= objective else BAD


def of_share(value: float, good: float, bad: float) -> str:
    """Return the style of a share that is good up (or, if `good` > `bad`, down) to `good`."""
    if not math.isfinite(value):
        return DIM
    sign = 1 if good <= bad else -1
    return GOOD if sign * value <= sign * good else NEAR if sign * value <= sign * bad else BAD


def bar(value: float, width: int, style: str) -> Text:
    """Return a bar of `width` characters, filled to the share `value`."""
    filled = round(min(max(value, 0.0), 1.0) * width * 8) if math.isfinite(value) else 0
    whole, eighths = divmod(filled, 8)
    text = '█' * whole + (BLOCKS[eighths] if whole < width else '')
    return Text(text.ljust(width), f'{style} on grey19' if style else 'on grey19')


def times(p50: float, p99: float, objective: float) -> Text:
    """Return median and 99th percentile (ms) beside their objective (0 = none)."""
    if not math.isfinite(p50) and not math.isfinite(p99):
        text = Text('-', DIM)
    else:
        text = Text.assemble((ms(p50), against(p50, objective)), ('/', DIM),
                             (ms(p99), against(p99, objective)))
    return text.append(f' ≤{ms(objective)}', DIM) if objective else text


def join(parts: Iterable[Text | str], between: str = '  ') -> Text:
    """Return the parts that are not empty in one line."""
    return Text(between, DIM).join(
        part if isinstance(part, Text) else Text(part) for part in parts if part)
