# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The loads of ``slice_bench serve`` on its peers, one peer after the other, and their table."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from slice_ros.bench.schedule.sweep import bound_of, Run, run_row
from slice_ros.bench.vllm.vllm_peer import model_directory, PEERS, VllmPeer
from slice_ros.engine.runners.vllm_runner import DTYPES

PATIENCE = 300.0   # seconds after the last arrival, for the requests that are still live


def peer_list(text: str) -> list[str]:
    """Split a flag of peers, each once."""
    peers = list(dict.fromkeys(part.strip() for part in text.split(',') if part.strip()))
    for peer in peers:
        if peer not in PEERS:
            raise ArgumentTypeError(f'{peer!r:.80} is none of {", ".join(PEERS)}')
    return peers


def serve_peers(args: Namespace, vocabulary: int, runs: Sequence[Run], console: Console
                ) -> list[dict]:
    """Serve the loads of `runs` on each peer of the flags; return their rows.

    `vocabulary` is the number of tokens of the model. Plans of vLLM are not timed, and it is not
    simulated: these figures are None.
    """
    if not args.peer:
        return []
    loads = list({(run.rate, run.seed): run for run in runs}.values())
    everything = [a for load in loads for a in load.arrivals]
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())
    rows = []
    with (model_directory(args.model) as model,
          Progress(*columns, console=console, transient=True) as progress):
        task = progress.add_task('', total=len(everything) * len(args.peer))
        for peer in args.peer:
            progress.update(task, description=f'{peer} loads')
            with VllmPeer(peer, args.peer_python, model, DTYPES[args.peer_weights], everything,
                          args.max_batch, args.slots, args.threads) as started:
                console.print('{peer}: vLLM {ready}, {weights}'.format(peer=peer, **started.about))
                for load in loads:
                    progress.update(task, description=f'{peer} at {load.rate:g}/s')
                    requests, steps = started.serve(load.arrivals, load.seed, vocabulary, PATIENCE,
                                                    lambda: progress.advance(task))
                    row = run_row(replace(load, policy=peer), [r.report() for r in requests],
                                  (None, None), bound_of(load))
                    rows.append(row | {
                        'predicted_attainment': None, 'mixed': None, 'steps': steps,
                        'tokens': sum(r.generated for r in requests)})
    return rows


def peer_table(rows: Sequence[Mapping]) -> Table:
    """Return what each policy and each peer did with the same arrivals, class by class."""
    table = Table(title='the same arrivals; times are p50 / p99, and steps of vLLM those that '
                        'gave a token', title_justify='left', box=SIMPLE, padding=(0, 1, 0, 0))
    for name in ('req/s', 'seed', 'served by', 'steps', 'tokens', 'attained', 'utility', 'class',
                 'attained', 'TTFT, s', 'TPOT, ms'):
        table.add_column(name, justify='left' if name in ('served by', 'class') else 'right',
                         no_wrap=True)
    for row in sorted(rows, key=lambda row: (row['rate'], row['seed'])):
        whole = (f'{row["rate"]:g}', str(row['seed']), row['policy'], str(row['steps']),
                 str(row['tokens']), f'{row["attainment"]:.1%}',
                 f'{row["utility_attainment"]:.1%}')
        for name, of in row['classes'].items():
            table.add_row(*whole, name, f'{of["attained"]} of {of["requests"]}',
                          _two(of['ttft_p50'], of['ttft_p99'], 1, 2),
                          _two(of['tpot_p50'], of['tpot_p99'], 1e3, 0))
            whole = ('',) * len(whole)
    return table


def _two(one: float | None, other: float | None, scale: float, digits: int) -> str:
    return ' / '.join('-' if each is None else f'{each * scale:.{digits}f}'
                      for each in (one, other))
