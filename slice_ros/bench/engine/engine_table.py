# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The output of ``slice_bench engine``: a table of 80 columns and a few sentences."""

from rich.console import Console
from rich.table import Table
from slice_ros.bench.engine.engine_measure import SHARE_BATCH


def show(console: Console, result: dict) -> None:
    """Print the results of the benchmark, the dictionary of its JSON."""
    peers = result['peers']
    table = Table(title=f'{result["model"]}: {result["weights"]}, '
                  f'{result["kv_bits"]} bit KV on {result["device"]}, '
                  f'{result["threads"]} threads')
    for name in ('step', 'cached', 'ms', 'quartiles', 'floor',
                 *(('peer', 'ratio') if peers else ('tokens/s',))):
        table.add_column(name, justify='right' if name != 'step' else 'left', no_wrap=True)
    rows = [(f'batch {d["batch"]}', d['context'], d['batch'], d) for d in result['decode']]
    rows += [(f'prefill {p["tokens"]}', 0, p['tokens'], p) for p in result['prefill']]
    for what, cached, tokens, row in rows:
        table.add_row(what, str(cached), _ms(row['ms']),
                      f'{_ms(row["low_ms"])} - {_ms(row["high_ms"])}', _ms(row['floor_ms']),
                      *((_ms(row['peer_ms']), f'{row["ratio"]:.2f}') if peers
                        else (f'{1e3 * tokens / row["ms"]:.0f}',)))
    console.print(table)
    console.print('batch: a decode step of so many requests, each behind so many cached tokens')
    if result['mixed']:
        console.print(_together(result['mixed']))
    console.print(f'forward: {result["path"]} ({result["kernels"]})')
    console.print(f'floor: reading the weights once, {_ms(result["floor_ms"])} ms, and what is '
                  f'cached, at {result["read_gb_per_s"]:.1f} GB/s')
    if result['roofline']:
        console.print(_roofline(result['roofline']))
    if result['perplexity'] is not None:
        console.print(f'perplexity of a text: {result["perplexity"]:.3f}' + ''.join(
            f'; {p["name"]}, {p["model"]}: {p["perplexity"]:.3f}' for p in peers))
    if result['first_divergence'] is not None:
        console.print(
            f'greedy text leaves that of fp32 after {result["first_divergence"]:g} tokens (median '
            f'of 5 prompts, {result["divergence_length"]} at most)' + ''.join(
                f'; {p["name"]}, {p["model"]}: {p["first_divergence"]:g}' for p in peers))
    if result['overhead_share'] is not None:
        console.print(
            f'outside the model: {100 * result["overhead_share"]:.1f} % of a step at batch '
            f'{SHARE_BATCH} (tokens and text {100 * result["engine_share"]:.1f} %, '
            f'plan {100 * result["plan_share"]:.1f} %, the rest bookkeeping and delivery)')
    memory = '' if result['peak_mb'] is None else (
        f'; {result["resident_mb"]:.0f} MiB resident then, {result["peak_mb"]:.0f} at most, '
        f'{result["before_mb"]:.0f} before')
    console.print(f'loaded in {result["load_s"]:.1f} s: {result["weight_mb"]:.0f} MiB of weights'
                  + memory)
    for p in peers:
        console.print(f'peer: {p["model"]} in {p["package"]}, {p["threads"]} threads, '
                      f'{p["how"]}')


def _together(rows: list[dict]) -> Table:
    """Return the table of decodes and prefill chunks in one step: ms, and the share of both."""
    chunks = sorted({row['tokens'] for row in rows})
    table = Table(title='both in one step: ms (share of both one by one)')
    table.add_column('decode', no_wrap=True)
    for tokens in chunks:
        table.add_column(f'prefill {tokens}', justify='right', no_wrap=True)
    for batch in sorted({row['batch'] for row in rows}):
        found = {row['tokens']: row for row in rows if row['batch'] == batch}
        table.add_row(f'batch {batch}', *(
            f'{_ms(found[tokens]["ms"])} ({found[tokens]["ratio"]:.2f})' for tokens in chunks))
    return table


def _roofline(found: dict) -> Table:
    """Return the table of what limits the kernels, and the shares of it that steps reach."""
    table = Table(title=f'roofline of {found["kernels"]}, {found["threads"]} threads: '
                  f'{found["read_gb_per_s"]:.1f} GB/s')
    for name in ('weights', 'step', 'ms', 'work', 'a second', 'limit', 'share'):
        table.add_column(name, justify='left' if name in ('weights', 'step') else 'right',
                         no_wrap=True)
    for row in found['rows']:
        work, unit = row['work'], row['unit']
        table.add_row(row['weights'], row['step'], _ms(row['ms']), f'{work:.3g} {unit}',
                      f'{1e3 * work / row["ms"]:.1f}', f'{1e3 * work / row["least_ms"]:.1f}',
                      f'{100 * row["share"]:.0f} %')
    return table


def _ms(value: float) -> str:
    return f'{value:.1f}' if value >= 10 else f'{value:.2f}'
