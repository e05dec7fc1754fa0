# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The result of ``slice_bench gpu`` in Markdown, for docs/gpu.md."""

from collections.abc import Iterator, Sequence
import textwrap

_COLUMNS = 108   # of a line of text


def table(result: dict) -> str:
    """Return the section about a card; parts that are not done are named with the reason.

    `result` has 'machine', the fields of `Machine`, and 'parts', those of `Outcome` by name.
    """
    machine, parts = result['machine'], result['parts']
    measured = [part['result'] for part in parts.values() if 'decode' in part['result']]
    alone = [run for run in measured if not run['peers']]
    beside = [run for run in measured if run['peers']]
    copied = parts.get('forward', {}).get('result', {}).get('copy_gb_per_s', 0.0)
    lines = [f'### {machine["gpu"]}', '', _wrapped(
        f'Compute capability {machine["capability"]}, {machine["memory_gib"]:.0f} GiB, driver '
        f'{machine["driver"]}, torch {machine["torch"]} for CUDA {machine["cuda"]}, Triton '
        f'{machine["triton"]}. {" ".join(_checked(parts))}')]
    if measured:
        quickest = max(copied, *(run['read_gb_per_s'] for run in measured))
        lines += ['', _wrapped(
            'Medians in ms, and in brackets as a multiple of the floor: reading weights, keys and '
            f'values once at {quickest:.0f} GB/s, the most that a sum or a copy reached.')]
        lines += _decodes(alone, quickest)
        lines += _prefills(alone)
        lines += _mixed(alone)
    lines += _peers(beside)
    lines += _not_done(parts)
    return '\n'.join(lines) + '\n'


def _checked(parts: dict) -> Iterator[str]:
    forward = parts.get('forward', {}).get('result')
    if forward:
        yield f'Forward pass of the embedded model: {forward["kernels"]}.'
    tests = parts.get('tests', {}).get('result')
    if tests:
        yield (f'GPU tests: {tests["passed"]} passed, {len(tests["failed"])} failed, '
               f'{tests["skipped"]} skipped.')


def _decodes(runs: Sequence[dict], quickest: float) -> list[str]:
    batches = sorted({row['batch'] for run in runs for row in run['decode']})
    rows = []
    for run in runs:
        for context in sorted({row['context'] for row in run['decode']}):
            by_batch = {row['batch']: row for row in run['decode'] if row['context'] == context}
            rows.append([_model(run), run['weights'], str(context), *(
                _figure(by_batch.get(batch), run, quickest) for batch in batches)])
    return _grid(['decode', 'weights', 'cached', *(f'batch {batch}' for batch in batches)], rows)


def _prefills(runs: Sequence[dict]) -> list[str]:
    sizes = sorted({row['tokens'] for run in runs for row in run['prefill']})
    rows = []
    for run in runs:
        by_size = {row['tokens']: _ms(row['ms']) for row in run['prefill']}
        rows.append([_model(run), run['weights'], *(by_size.get(size, '') for size in sizes)])
    return _grid(['prefill', 'weights', *(f'{size} tokens' for size in sizes)], rows)


def _mixed(runs: Sequence[dict]) -> list[str]:
    """Return the table of mixed steps at the largest batch."""
    sizes = sorted({row['tokens'] for run in runs for row in run['mixed']})
    rows = []
    for run in runs:
        batch = max(row['batch'] for row in run['mixed'])
        by_size = {row['tokens']: row for row in run['mixed'] if row['batch'] == batch}
        rows.append([_model(run), run['weights'], str(batch), *(
            f'{_ms(by_size[size]["ms"])} ({by_size[size]["ratio"]:.2f})' if size in by_size
            else '' for size in sizes)])
    header = ['in one step (share of both one by one)', 'weights', 'batch',
              *(f'prefill {size}' for size in sizes)]
    return _grid(header, rows)


def _peers(runs: Sequence[dict]) -> list[str]:
    rows = []
    for run in runs:
        cases = [(f'batch {row["batch"]}, {row["context"]} cached', row) for row in run['decode']]
        cases += [(f'prefill {row["tokens"]}', row) for row in run['prefill']]
        rows += [[_model(run), run['weights'], case, _ms(row['ms']), _ms(row['peer_ms']),
                  f'{row["peer_ms"] / row["ms"]:.2f}'] for case, row in cases]
    peers = {f'{peer["package"]}, {peer["how"]}' for run in runs for peer in run['peers']}
    return [*_grid(['beside a peer', 'weights', 'case', 'ms', "the peer's ms", 'times as quick'],
                   rows), *(part for peer in sorted(peers) for part in ('', _wrapped(
                       f'The peer: {peer}.')))]


def _not_done(parts: dict) -> list[str]:
    rows = [_wrapped(f'- {name}: {part["state"]} ({" ".join(part["reason"].split())})')
            for name, part in parts.items() if part['state'] != 'done']
    return ['', 'Not done:', '', *rows] if rows else []


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    return ['', *(f'| {" | ".join(cells)} |' for cells in (
        header, ['---'] * len(header), *rows))]


def _figure(row: dict | None, run: dict, quickest: float) -> str:
    if row is None:
        return ''
    floor = row['floor_ms'] * run['read_gb_per_s'] / quickest
    return f'{_ms(row["ms"])} ({row["ms"] / floor:.1f})'


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _COLUMNS, break_on_hyphens=False,
                         subsequent_indent='  ' if text.startswith('- ') else '')


def _ms(value: float) -> str:
    return f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def _model(run: dict) -> str:
    return run['model'].removesuffix(', random weights')
