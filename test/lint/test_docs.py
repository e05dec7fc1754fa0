# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Every relative link of the documentation leads to a file, and to a heading in it."""

from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r'\]\((?!https?:)([^)#]*)#?([^)]*)\)', page.read_text())
    broken = []
    for path, anchor in links:
        target = page.parent / path if path else page
        if not target.exists() or anchor and anchor not in _anchors(target):
            broken.append(f'{path}#{anchor}')
    assert not broken


def test_the_readme_links_every_page():
    linked = re.findall(r'\]\((docs/\w+\.md)', (ROOT / 'README.md').read_text())
    assert {f'docs/{page.name}' for page in PAGES[1:]} == set(linked)
