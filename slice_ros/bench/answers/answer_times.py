# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The time that answers take, and what forced and guessed tokens save of it."""

from collections.abc import Callable
from contextlib import contextmanager
from statistics import median
import time

from rich.console import Console
from rich.table import Table
from slice_ros.bench.answers.answer_schemas import response_format, SCHEMAS
from slice_ros.bench.answers.free_texts import TEXTS
from slice_ros.engine import Engine, Sampling, TokenSequence
from slice_ros.scheduling.drafts import Drafts, MAX_DRAFT
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Step

PROMPT = 'Bring the red cup from the kitchen to the workshop, then charge. Answer as JSON: '
MAX_TOKENS = 256
ANSWERS = (*SCHEMAS, *TEXTS)


@contextmanager
def jumping(engine: Engine, jump: bool):
    """Have an engine leave out the steps of forced tokens, as it always does, or not."""
    engine.jump_forward = jump
    try:
        yield
    finally:
        engine.jump_forward = True


def answer_times(engine: Engine, latency: LatencyModel, rounds: int, done: Callable[[], None]
                 ) -> list[dict]:
    """Return the figures of a greedy answer to each of `ANSWERS`, from its prompt to its end.

    Both ways of each answer, with more than a token a step and with one, are measured one after
    the other in each of `rounds`, so that a disturbance affects both, and in turn either is the
    first; the ratio is the median of those of the rounds. The first round is not measured. `done`
    is called after each round of an answer.
    """
    found = {name: [] for name in ANSWERS}
    for round_ in range(-1, rounds):
        for name, times in found.items():
            pair = {}
            for several in (True, False) if round_ % 2 else (False, True):
                with jumping(engine, several):
                    pair[several] = _timed(engine, name, latency if several else None)
            if round_ >= 0:
                times.append((pair[True], pair[False]))
            done()
    return [_figures(name, pairs) for name, pairs in found.items()]


def _timed(engine: Engine, name: str, latency: LatencyModel | None
           ) -> tuple[float, int, TokenSequence]:
    """Return the seconds, the steps and the tokens of an answer; guesses need a `latency`."""
    if name in TEXTS:
        sequence = engine.open(engine.encode_chat([('user', TEXTS[name])]), MAX_TOKENS, Sampling())
    else:
        sequence = engine.open(engine.encode(PROMPT), MAX_TOKENS, Sampling(), (),
                               response_format(name))
    request, drafts = sequence.request, Drafts()
    steps, started = 0, time.perf_counter()
    while not sequence.finish_reason:
        chosen = {}
        if latency is not None and request.decoding:
            chosen = drafts.choose(Step((request,)), (request,),
                                   lambda _: engine.draft(sequence, MAX_DRAFT), latency, started)
        engine.collect(engine.launch([(sequence, sequence.pending)],
                                     {sequence: draft for draft in chosen.values()}))
        steps += 1
    seconds = time.perf_counter() - started
    engine.close(sequence)
    return seconds, steps, sequence


def _figures(name: str, pairs: list) -> dict:
    (_, steps, sequence), (_, _, plain) = pairs[0]
    return {'answer': name, 'tokens': sequence.generated, 'steps': steps,
            'guesses': sequence.request.guesses, 'right': sequence.request.right,
            'equal': sequence.tokens == plain.tokens,
            'ms': 1e3 * median(jump[0] for jump, _ in pairs),
            'plain_ms': 1e3 * median(each[0] for _, each in pairs),
            'ratio': median(each[0] / jump[0] for jump, each in pairs)}


def show_answers(console: Console, engine: Engine, rows: list[dict]) -> None:
    """Print what `answer_times` returns."""
    info = engine.info
    table = Table(title=f'answers: {info.model}, {info.weights}, {info.kernels}')
    table.add_column('answer')
    for head in ('tokens', 'steps', 'right', 'ms', 'a step a token', 'quicker', 'same'):
        table.add_column(head, justify='right')
    for row in rows:
        table.add_row(row['answer'], str(row['tokens']), str(row['steps']),
                      f'{row["right"]}/{row["guesses"]}', f'{row["ms"]:.1f}',
                      f'{row["plain_ms"]:.1f}', f'{row["ratio"]:.2f}',
                      'yes' if row['equal'] else 'no')
    console.print(table)
