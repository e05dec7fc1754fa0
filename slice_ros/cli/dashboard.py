# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of slice_monitor: from messages to what rich draws."""

from collections.abc import Sequence
from itertools import groupby
import math
from operator import itemgetter

from rich.console import Group
from rich.table import Table
from rich.text import Text
from slice_ros import msg
from slice_ros.cli.figures import (
    BAD, bar, DIM, GOOD, join, ms, NEAR, number, of_share, plain, share, times, with_unit)
from slice_ros.client.strips import BINS, GATED, PAUSED, PREFILL, Strip, WAITING
from slice_ros.client.watch import View
from slice_ros.errors import ErrorCode

CLASS_STYLES = ('deep_sky_blue1', 'orchid1', 'slate_blue1', 'grey85')
CELLS = {WAITING: ('·', NEAR), PREFILL: ('░', 'blue'), PAUSED: ('─', DIM), GATED: ('‖', 'grey62')}
HEIGHTS = ((1, '▂'), (2, '▃'), (4, '▅'), (8, '▆'), (math.inf, '█'))   # tokens in a cell, at most
STATE_STYLES = {'ready': GOOD, 'failed': BAD, 'finalized': BAD}


def render(view: View, width: int, height: int | None) -> Group:
    """Return the picture for a terminal of this size; a `height` of None shows everything."""
    parts = [_title(view), _engine(view)]
    state = view.state
    if state is None:
        return Group(*parts)
    styles = {c.slo.name: CLASS_STYLES[i % len(CLASS_STYLES)] for i, c in enumerate(state.classes)}
    order = list(styles)   # with little room, the first classes are shown
    strips = sorted(view.strips, key=lambda strip: order.index(strip.slo_class)
                    if strip.slo_class in styles else len(order))
    capacity = _capacity(view, width)
    rows = height - 5 - capacity.row_count if height else 10_000
    classes = min(len(state.classes), max(rows // 2 - 2, 1))
    rows -= classes + 1
    ended = min(len(view.reports), max(rows // 3 - 1, 1), 12)
    live = max(min(rows - ended - 3, len(strips)), 0)
    parts += [
        _rule('classes', width, f'over the last {state.window_s:.0f} s; p50/p99 in ms'
                                + _more(len(state.classes) - classes)),
        _classes(state.classes[:classes], styles, width),
        _rule('capacity', width), capacity,
        _rule(f'{len(strips)} requests', width, _legend(width)
              + _more(len(strips) - live)),
        _requests(strips[:live], styles, width)]
    if ended:
        if height:
            parts += [Text()] * max(rows - live - ended - 3, 0)
        parts += [_rule('ended', width), _ended(view.reports[-ended:], styles)]
    return Group(*parts)


def _more(left_out: int) -> str:
    return f', {left_out} more' if left_out > 0 else ''


def _rule(title: str, width: int, note: str = '') -> Text:
    text = Text.assemble(('── ', DIM), (title, 'bold'), (f'  {note} ' if note else ' ', DIM))
    text.append('─' * max(width - text.cell_len, 0), DIM)
    text.truncate(width)
    return text


def _table(*columns: str | tuple[str, dict], expand: bool = False) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style=DIM, expand=expand)
    for column in columns:
        name, options = column if isinstance(column, tuple) else (column, {})
        table.add_column(name, no_wrap=True, **{'overflow': 'ellipsis', **options})
    return table


RIGHT = {'justify': 'right'}
TIME = {**RIGHT, 'min_width': 4}
NAMES = (('class', {'min_width': 10}), ('id', {'min_width': 8}))   # of a request


def _title(view: View) -> Text:
    if view.absent:
        return Text.assemble((plain(view.node), 'bold'), '  ', (view.absent, BAD))
    if view.status is None:
        return Text.assemble((plain(view.node), 'bold'), '  ', ('asking for its status', NEAR))
    state = view.state
    text = Text.assemble((plain(view.node), 'bold'), '  ', (
        plain(view.status.state), f'bold {STATE_STYLES.get(view.status.state, NEAR)}'))
    if state is not None:
        text.append('  ').append_text(join((f'policy {plain(state.policy, 40)}',
                                            plain(state.rate_control, 40).replace('_', '-'),
                                            f'{number(state.steps)} steps',
                                            f'{number(state.tokens)} tokens')))
        if state.gate_shut:
            text.append(f'  gate shut {number(state.gate_shut)}×', NEAR)
        if state.engine_failures:
            text.append(f'  {state.engine_failures} engine failures', BAD)
    text.no_wrap, text.overflow = True, 'ellipsis'
    return text


def _engine(view: View) -> Text:
    if view.status is None or not view.status.engine.model:
        return Text('no model is loaded' if view.status else '', DIM)
    e = view.status.engine
    parts = (plain(e.model.rsplit('/', 1)[-1]), plain(e.device), f'{plain(e.weights)} weights',
             f'{e.kv_bits} bit KV', f'{e.resident_bytes / 2**20:.0f} MiB resident',
             f'batch {e.max_batch}', f'context {number(e.max_context)}', plain(e.kernels),
             plain(view.status.version))
    text = join(parts, ' · ')
    text.no_wrap, text.overflow = True, 'ellipsis'
    return text


def _classes(classes: Sequence[msg.ClassStatus], styles, width: int) -> Table:
    wide = width >= 110
    table = _table('class', ('live', {**RIGHT, 'min_width': 9 if wide else 4}), ('ended', RIGHT),
                   'attained', 'TTFT', 'TPOT', 'completion',
                   *((('failed', RIGHT), ('refused', RIGHT)) if wide else ()), expand=wide)
    for c in classes:
        style = of_share(c.attainment, .9, .5)
        attained = Text.assemble(bar(c.attainment, 14 if wide else 6, style), ' ',
                                 (f'{share(c.attainment):>4}', style))
        live = Text(str(c.live)).append(f' {c.waiting} wait' if c.waiting and wide else '', DIM)
        row = [Text(plain(c.slo.name, 20), styles[c.slo.name]), live, str(c.window_requests),
               attained, times(c.ttft_p50_ms, c.ttft_p99_ms, c.slo.ttft_ms),
               times(c.tpot_p50_ms, c.tpot_p99_ms, c.slo.tpot_ms),
               times(c.completion_p50_ms, c.completion_p99_ms, c.slo.deadline_ms)]
        if wide:
            row += [Text(number(n), BAD if n else DIM) for n in (c.failed, c.rejected)]
        table.add_row(*row)
    return table


def _capacity(view: View, width: int) -> Table:
    s, e = view.state, view.status.engine if view.status else msg.EngineStatus()
    waiting = s.queued / max(s.max_queued, 1)
    load = of_share(s.load, .8, .95)
    off = of_share(s.prediction_error, .25, .5)
    gate = Text('open', GOOD) if s.gate_open else Text('SHUT', f'bold {BAD}')
    if s.gate_age_ms > 0:
        gate.append(f' {with_unit(s.gate_age_ms)}', DIM)
    columns = 6 if width >= 132 else 4
    room = 4 if columns == 6 else 0
    items = (
        ('load', Text.assemble(bar(s.load, 6, load), f' {share(s.load)}')),
        ('ratio', share(s.capacity_ratio)),
        ('step', f'{ms(s.step_p50_ms)}/{with_unit(s.step_p99_ms)}'),
        ('queue', Text(f'{s.queued}/{s.max_queued}', of_share(waiting, .5, .8))),
        ('slots', _used(s.slots_used, e.slots, room)), ('tokens/s', number(s.tokens_per_s)),
        ('plan', with_unit(s.plan_p50_ms)), ('gate', gate),
        ('KV', _used(s.kv_tokens_used, e.kv_tokens, room)), ('overhead', share(s.overhead)),
        ('forecast', Text(f'off {share(s.prediction_error)}', off)),
        ('gated', Text(str(s.gated)).append(
            f', {s.sessions} sessions' if s.sessions else '', DIM)))
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    for _ in range(columns):
        table.add_column(style=DIM, no_wrap=True)
        table.add_column(no_wrap=True, ratio=1, overflow='ellipsis')
    for start in range(0, len(items), columns):
        table.add_row(*(part for item in items[start:start + columns] for part in item))
    return table


def _used(used: int, of: int, room: int) -> Text:
    if not of:
        return Text(number(used))
    style = of_share(used / of, .8, .95)
    text = Text.assemble((number(used), style), f'/{number(of)}')
    return Text.assemble(bar(used / of, room, style), ' ', text) if room else text


def _legend(width: int) -> str:
    cell = '0.1 s a cell: ' if width >= 100 else ''
    return f'{cell}▂▅█ tokens ░ prefill · waiting ─ paused ‖ gated'


def _requests(strips: Sequence[Strip], styles, width: int) -> Table:
    table = _table(*NAMES, ('state', {'min_width': 7}), ('tokens', {**RIGHT, 'min_width': 8}),
                   ('age', TIME), ('TTFT', TIME), ('TPOT', TIME), ('', {**RIGHT, 'ratio': 1}),
                   expand=True)
    names = max((len(strip.slo_class) for strip in strips), default=0)
    room = min(max(width - max(min(names, 12), 10) - 47, 8), BINS)
    for strip in strips:
        r = strip.status or msg.RequestStatus(state='running', ttft_ms=math.nan, tpot_ms=math.nan,
                                              age_ms=math.nan)
        most = f'/{r.max_tokens}' if r.max_tokens else ''
        table.add_row(
            Text(plain(strip.slo_class, 12), styles.get(strip.slo_class, '')),
            Text(plain(strip.request_id, 8), DIM),
            Text('gated', 'grey62') if r.gated else Text(plain(r.state, 8)),
            f'{strip.tokens}{most}', ms(r.age_ms), ms(r.ttft_ms),
            ms(r.tpot_ms if r.output_tokens > 1 else math.nan),
            strip_text(list(strip.cells)[-room:], styles.get(strip.slo_class, '')))
    return table


def strip_text(cells: Sequence[int], style: str) -> Text:
    """Return the cells of a strip, one character each."""
    drawn = [(next(glyph for most, glyph in HEIGHTS if cell <= most), style) if cell > 0
             else CELLS.get(cell, (' ', style)) for cell in cells]
    text = Text(no_wrap=True)
    for style, run in groupby(drawn, key=itemgetter(1)):   # fewer pieces are drawn faster
        text.append(''.join(glyph for glyph, _ in run), style)
    return text


def _ended(reports: Sequence[msg.SloReport], styles) -> Table:
    table = _table(*NAMES, ('verdict', {'min_width': 11}), ('tokens', {**RIGHT, 'min_width': 7}),
                   ('TTFT', TIME), ('TPOT', TIME), ('total', TIME), ('gap', TIME),
                   ('', {'ratio': 1}), expand=True)
    for r in reversed(reports):
        why = plain(r.error_msg) if r.error_code else plain(r.finish_reason)
        table.add_row(
            Text(plain(r.slo.name, 12), styles.get(r.slo.name, '')),
            Text(plain(r.request_id, 8), DIM), verdict(r), f'{r.prompt_tokens}+{r.output_tokens}',
            *(ms(value) for value in (r.ttft_ms, r.tpot_ms, r.completion_ms, r.max_gap_ms)),
            Text(why, DIM))
    return table


def verdict(report: msg.SloReport) -> Text:
    """Return how a request ended: attained, which objectives it missed, or its error."""
    if report.attained:
        return Text('attained', GOOD)
    if report.error_code == ErrorCode.CANCELLED:
        return Text('cancelled', DIM)
    if report.error_code:
        known = report.error_code in ErrorCode.__members__.values()
        return Text(ErrorCode(report.error_code).name if known else f'error {report.error_code}',
                    BAD)
    missed = [name for name, met in (('TTFT', report.ttft_met), ('TPOT', report.tpot_met),
                                     ('deadline', report.deadline_met)) if not met]
    return Text(f'missed {" ".join(missed)}', BAD)
