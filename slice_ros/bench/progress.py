# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The progress bars of commands that consist of parts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


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
