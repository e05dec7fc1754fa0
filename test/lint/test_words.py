# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One word for one thing: words that the glossary's terms have replaced do not come back."""

from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parents[2]
# Replaced word -> term of docs/glossary.md.
REPLACED = {
    r'worth': 'utility, or utility density',
    r'promis(e|es|ed|ing)': 'objective, predicted step time',
    r'flow(s|ed|ing)?': 'inter-token gap',
    r'held': 'gated, kept, reserved',
    r'(told|heard(?!`|\'| ->)|rested)': 'delivered, received, notified, yielded',
    r'(take_back|takes? back|taken back)': 'readmit',
    r'(flow_of|slack_step|may_begin|TAKE_BACK|Promises|Gatekeeper|Courier|Pacer)': 'see glossary',
    r'(FlatBatchRunner|RequestNode|ManagedNode|falls_shut|looked_at)': 'see glossary',
}
PLACES = ('slice_ros', 'test', 'docs', 'msg', 'srv', 'action', 'launch', 'config/workloads',
          'config/profiles', 'config/slice.yaml', 'README.md')
KINDS = ('.py', '.md', '.msg', '.srv', '.action', '.yaml', '.hpp', '.cpp', '.h')
# The glossary's own names for what it replaces, and this file.
EXEMPT = ('test/lint/test_words.py', 'docs/glossary.md')


def lines() -> list[tuple[str, str]]:
    """Return (place, text) of every line that is checked."""
    found = []
    for place in PLACES:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob('*')):
            name = file.relative_to(ROOT).as_posix()
            if file.suffix in KINDS and name not in EXEMPT:
                found += [(f'{name}:{number}', line)
                          for number, line in enumerate(file.read_text().splitlines(), 1)]
    return found


@pytest.mark.parametrize('word', REPLACED)
def test_replaced_words_are_gone(word):
    pattern = re.compile(f'(?<![A-Za-z]){word}(?![A-Za-z])')
    found = [f'{place}: {text.strip()}' for place, text in lines() if pattern.search(text)]
    assert not found, f'write {REPLACED[word]}'


def test_the_check_finds_a_word():
    """The check itself: every pattern matches the word that it is for."""
    for word in ('worth', 'promised', 'flowing', 'held', 'told', 'taken back', 'Courier'):
        assert any(re.fullmatch(pattern, word) for pattern in REPLACED), word
