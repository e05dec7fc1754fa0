# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The time that answers take, and what forced and guessed tokens save of it."""

from collections.abc import Callable
from contextlib import contextmanager
from statistics import median
import time
from typing import NamedTuple

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
# A step for each token; forced and looked up ones without; also those that a draft model guesses.
WAYS = ('plain', 'guesses', 'draft model')


class Timed(NamedTuple):
    """One answer; seconds."""

    seconds: float
    drafting: float   # of these, those of the draft model
    steps: int
    sequence: TokenSequence


@contextmanager
def jumping(engine: Engine, jump: bool):
    """Have an engine leave out the steps of forced tokens, as it always does, or not."""
    engine.opener.jump_forward = jump
    try:
        yield
    finally:
        engine.opener.jump_forward = True


def answer_times(engine: Engine, latency: LatencyModel, rounds: int, done: Callable[[], None]
                 ) -> list[dict]:
    """Return the figures of a greedy answer to each of `ANSWERS`, from its prompt to its end.

    All `WAYS` to each answer are measured one after the other in each of `rounds`, so that a
    disturbance affects them alike, and in turn each is the first; a ratio is the median of those
    of the rounds to a step for each token. The first round is not measured. With a draft model,
    its guesses are a way of their own, and it knows what those of earlier rounds have come to.
    `done` is called after each round of an answer.
    """
    ways = WAYS if engine.draft_model else WAYS[:-1]
    found = {name: [] for name in ANSWERS}
    known = Drafts()
    for round_ in range(-1, rounds):
        for name, times in found.items():
            first = round_ % len(ways)
            each = {}
            for way in (*ways[first:], *ways[:first]):
                with jumping(engine, way != 'plain'):
                    each[way] = _timed(engine, name, latency, {
                        'plain': None, 'guesses': Drafts(), 'draft model': known}[way],
                        way == 'draft model')
            if round_ >= 0:
                times.append(each)
            done()
    return [_figures(name, way, times) for name, times in found.items() for way in ways[1:]]


def _timed(engine: Engine, name: str, latency: LatencyModel, drafts: Drafts | None, drafting: bool
           ) -> Timed:
    """Serve an answer; guesses need `drafts`, with `drafting` the draft model makes some too."""
    if name in TEXTS:
        sequence = engine.open(engine.encode_chat([('user', TEXTS[name])]), MAX_TOKENS, Sampling())
    else:
        sequence = engine.open(engine.encode(PROMPT), MAX_TOKENS, Sampling(), (),
                               response_format(name))
    request, steps, spent = sequence.request, 0, 0.0
    model = engine.draft_model.guesses_for(lambda _: sequence, MAX_DRAFT) if drafting else None
    started = time.perf_counter()
    while not sequence.finish_reason:
        chosen = {}
        if drafts is not None and request.decoding:
            chosen = drafts.choose(
                Step((request,)), (request,), lambda _: engine.draft(sequence, MAX_DRAFT), latency,
                started, model)
            spent += engine.draft_model.take_spent().took if model else 0.0
        engine.collect(engine.launch([(sequence, sequence.pending)],
                                     {sequence: draft for draft in chosen.values()}))
        steps += 1
    seconds = time.perf_counter() - started
    engine.close(sequence)
    if drafts is not None:
        drafts.finished(request)
    return Timed(seconds, spent, steps, sequence)


def _figures(name: str, way: str, rounds: list[dict[str, Timed]]) -> dict:
    _, _, steps, sequence = rounds[-1][way]
    return {'answer': name, 'way': way, 'tokens': sequence.generated, 'steps': steps,
            'guesses': sequence.request.guesses, 'right': sequence.request.right,
            'equal': all(each[way].sequence.tokens == each['plain'].sequence.tokens
                         for each in rounds),
            'ms': 1e3 * median(each[way].seconds for each in rounds),
            'draft_ms': 1e3 * median(each[way].drafting for each in rounds),
            'plain_ms': 1e3 * median(each['plain'].seconds for each in rounds),
            'ratio': median(each['plain'].seconds / each[way].seconds for each in rounds)}


def show_answers(console: Console, engine: Engine, rows: list[dict]) -> None:
    """Print what `answer_times` returns."""
    info = engine.info
    table = Table(title=f'answers: {info.model}, {info.weights}, {info.kernels}')
    table.add_column('answer')
    drafts = any(row['way'] == WAYS[-1] for row in rows)
    if drafts:
        table.add_column(f'guesses of {info.draft_model}, {engine.draft_model.info.weights}')
    for head in ('tokens', 'steps', 'right', 'ms', *(['its ms'] if drafts else []),
                 'a step a token', 'quicker', 'same'):
        table.add_column(head, justify='right')
    for row in rows:
        table.add_row(row['answer'], *(['yes' if row['way'] == WAYS[-1] else 'no'] * drafts),
                      str(row['tokens']), str(row['steps']),
                      f'{row["right"]}/{row["guesses"]}', f'{row["ms"]:.1f}',
                      *([f'{row["draft_ms"]:.1f}'] * drafts),
                      f'{row["plain_ms"]:.1f}', f'{row["ratio"]:.2f}',
                      'yes' if row['equal'] else 'no')
    console.print(table)
