# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of a run that has little time: in order, each with a limit, the results of each kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import os
import re
import time

from slice_ros.bench.processes import Process

DONE, FAILED, CUT, NOT_RUN = 'done', 'failed', 'cut short', 'not run'
_LEAST_S = 10.0            # in less no part gets anywhere: imports alone take a few seconds
_POLL_S = 0.2
_LOG_CHARACTERS = 60_000   # of the log of a part that is not done
# Lines of ``pytest -v``: a test with its outcome, and the summary of what failed.
_OUTCOME = re.compile(r'^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b.*\[ *\d+%\]$', re.M)
_SUMMARY = re.compile(r'^(?:FAILED|ERROR) (\S+\.py.*)$', re.M)
# The line of a log that names an error; those of CUDA go on for many more.
_ERROR = re.compile(r'^(?:slice_bench: |[\w.]*(?:Error|Exception)\b).*$', re.M)

Advance = Callable[[float], None]   # called with the seconds that have passed


@dataclass(slots=True)
class Outcome:
    """How a part ended, and what it found, perhaps only up to then."""

    state: str = NOT_RUN
    reason: str = 'not reached'
    seconds: float = 0.0
    result: dict = field(default_factory=dict)
    log: str = ''   # empty if the part is done


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to find out; `run` fills the outcome within the seconds that it is given."""

    name: str
    limit_s: float
    run: Callable[[Outcome, float, Advance], None]


def run_parts(parts: Sequence[Part], outcomes: dict[str, Outcome], limit_s: float,
              save: Callable[[], None], show: Callable) -> None:
    """Run the parts in order, for `limit_s` seconds in all, and fill `outcomes` by name.

    `save` is called before the first and after each part, also when a signal interrupts it.
    `show(name, seconds)` is a context manager that yields an `Advance`.
    """
    end = time.monotonic() + limit_s
    outcomes |= {part.name: Outcome() for part in parts}
    save()
    for part in parts:
        outcome, started = outcomes[part.name], time.monotonic()
        limit = min(part.limit_s, end - started)
        if limit < _LEAST_S:
            continue
        outcome.state, outcome.reason = CUT, 'interrupted'
        try:
            with show(part.name, limit) as advance:
                part.run(outcome, limit, advance)
        finally:
            outcome.seconds = time.monotonic() - started
            save()


def run_program(outcome: Outcome, limit_s: float, advance: Advance, arguments: Sequence[str],
                read: Callable[[str], dict] = lambda log: {}) -> None:
    """Run a Python module as a program; end it after `limit_s` seconds.

    While it runs, the result is what `read` makes of its log.
    """
    environment = os.environ | {'PYTHONUNBUFFERED': '1', 'COLUMNS': '200'}
    end = time.monotonic() + limit_s
    with Process(*arguments, env=environment) as child:
        while child.alive and time.monotonic() < end:
            time.sleep(_POLL_S)
            advance(_POLL_S)
            outcome.result = read(child.log())
        in_time = not child.alive
        outcome.result = read(child.log())
        if not in_time:
            outcome.state, outcome.reason = CUT, f'not done in {limit_s:.0f} s'
        elif child.process.returncode:
            errors = _ERROR.findall(child.log())
            outcome.state = FAILED
            outcome.reason = errors[-1] if errors else child.end_of_log()
        else:
            outcome.state, outcome.reason = DONE, ''
        if outcome.state != DONE:
            outcome.log = child.log()[-_LOG_CHARACTERS:]


def run_tests(outcome: Outcome, limit_s: float, advance: Advance, folder: str) -> None:
    """Run the GPU tests of `folder`; the result has the tests that ended, by outcome."""
    run_program(outcome, limit_s, advance, (
        'pytest', '-m', 'gpu', '-v', '--tb=short', '--color=no', '--continue-on-collection-errors',
        folder), count_tests)
    failed = outcome.result['failed']
    if outcome.state == FAILED and failed:
        outcome.reason = f'{len(failed)} tests: ' + '; '.join(failed)
    elif outcome.state == CUT and failed:
        outcome.state = FAILED
        outcome.reason += f'; {len(failed)} tests failed until then: ' + '; '.join(failed)


def count_tests(log: str) -> dict:
    """Return what the log of ``pytest -v`` says: numbers of tests, and the names of the failed."""
    tests = _OUTCOME.findall(log)
    failed = [name for name, how in tests if how in ('FAILED', 'ERROR')]
    passed = sum(how == 'PASSED' for _, how in tests)
    # A summary has the reason as well, and the files that could not be read.
    return {'passed': passed, 'skipped': sum(how == 'SKIPPED' for _, how in tests),
            'failed': _SUMMARY.findall(log) or failed}
