# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Style of the Python files, with the rules in setup.cfg: ROS 2's own, as ament applies them."""

from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ['slice_ros', 'launch', 'setup.py']


def findings(*command: str) -> str:
    """Run a checker from the root of the checkout; return what it says, empty if nothing."""
    done = subprocess.run([sys.executable, '-m', *command], cwd=ROOT, capture_output=True,
                          text=True, timeout=100)
    assert not done.stderr, done.stderr
    assert bool(done.stdout) == bool(done.returncode), done.stdout
    return done.stdout


def test_flake8():
    """Layout, names, imports, quotes."""
    said = findings('flake8', *PACKAGE, 'test')
    assert not said, said


def test_docstrings():
    """PEP 257: each docstring is a sentence, in the imperative for functions."""
    said = findings('pydocstyle', *PACKAGE)
    assert not said, said


def test_the_oldest_python_that_is_declared_has_all_that_is_used():
    """Humble's is 3.10; a name that is newer is found by nobody who tests on another."""
    pytest.importorskip('vermin', reason='vermin is not installed: make lint')
    oldest = re.search(r'python_requires = >=(\S+)', (ROOT / 'setup.cfg').read_text())[1]
    done = subprocess.run(
        [Path(sys.executable).with_name('vermin'), f'-t={oldest}-', '--no-tips', '--violations',
         *PACKAGE],
        cwd=ROOT, capture_output=True, text=True, timeout=100)
    newer = [line for line in done.stdout.splitlines() if ' requires ' in line]
    assert 'Analyzing' in done.stdout and not newer, done.stdout
