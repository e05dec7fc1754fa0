# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The progress bars of commands that consist of parts, and parts that run in parallel."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from rich.console import Console
from rich.progress import (
    BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn)


@contextmanager
def parts(console: Console) -> Iterator[Callable]:
    """Yield a context manager that shows one part of the work, as a bar if `total` is given."""
    with Progress(TextColumn('{task.description}'), BarColumn(), TimeRemainingColumn(),
                  console=console, transient=True) as progress:
        @contextmanager
        def part(what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
            task = progress.add_task(what, total=total)
            try:
                yield lambda done: progress.advance(task, done)
            finally:
                progress.remove_task(task)
        yield part


def in_parallel(calls: Sequence[tuple[Callable, object]], jobs: int, console: Console) -> list:
    """Call each (function, argument) on `jobs` processes behind a bar; return what they return.

    Functions are those of modules; they, arguments and results have to be picklable.
    """
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())
    results: list = [None] * len(calls)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task('simulating', total=len(calls))
        if jobs == 1:
            for i, (function, argument) in enumerate(calls):
                results[i] = function(argument)
                progress.advance(task)
            return results
        # Spawned, since forking a process that has threads (the progress bar's) is not safe.
        with ProcessPoolExecutor(jobs, mp_context=get_context('spawn')) as pool:
            futures = {pool.submit(function, argument): i
                       for i, (function, argument) in enumerate(calls)}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                progress.advance(task)
    return results
