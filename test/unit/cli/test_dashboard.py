# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of the monitor for messages with any content, at every size."""

import io
import math

import pytest
from rich.console import Console
from slice_ros import msg, srv
from slice_ros.cli.dashboard import render, strip_text, verdict
from slice_ros.cli.figures import against, bar, ms, number, of_share, plain, share, times
from slice_ros.client.strips import GATED, IDLE, PAUSED, PREFILL, Strips, WAITING
from slice_ros.client.watch import View
from slice_ros.errors import ErrorCode

NAN = math.nan


def a_class(name='control', attainment=.96, ttft=(180.0, 420.0), **more):
    return msg.ClassStatus(
        slo=msg.SloClass(name=name, ttft_ms=500.0, tpot_ms=50.0, deadline_ms=1500.0,
                         utility=1.0),
        attainment=attainment, ttft_p50_ms=ttft[0], ttft_p99_ms=ttft[1], tpot_p50_ms=31.0,
        tpot_p99_ms=61.0, completion_p50_ms=900.0, completion_p99_ms=1200.0, window_requests=27,
        **more)


def a_report(name='control', **more):
    return msg.SloReport(request_id='0123456789abcdef', slo=msg.SloClass(name=name),
                         prompt_tokens=96, output_tokens=40, ttft_ms=210.0, tpot_ms=31.0,
                         completion_ms=1430.0, max_gap_ms=88.0, **more)


def a_view(classes=None, requests=3, reports=4, **state):
    listed = [msg.RequestStatus(
        request_id=f'request-{i}', slo_class='control', output_tokens=5, max_tokens=60,
        state=('waiting', 'prefill', 'paused')[i % 3], age_ms=1234.0, ttft_ms=NAN, tpot_ms=NAN)
        for i in range(requests)]
    strips = Strips()
    strips.update(listed, 10.0)
    message = msg.SchedulerState(**{
        'policy': 'slice', 'rate_control': 'paced', 'gate_open': True, 'gate_age_ms': 12.0,
        'load': .87, 'capacity_ratio': .85, 'step_p50_ms': 12.34, 'step_p99_ms': 25.0,
        'plan_p50_ms': .21, 'prediction_error': .12, 'queued': 3, 'max_queued': 64,
        'slots_used': 12, 'kv_tokens_used': 4321, 'tokens_per_s': 143.0, 'overhead': .03,
        'window_s': 60.0, 'requests': listed,
        'classes': [a_class()] if classes is None else classes, **state})
    status = srv.GetStatus.Response(state='ready', version='0.1.0', engine=msg.EngineStatus(
        model='/models/tiny.gguf', device='cpu', weights='int4', slots=32, kv_tokens=65536,
        resident_bytes=512 << 20, max_batch=16, max_context=2048, kernels='AVX-512'))
    return View('slice', '', status, message, [a_report(attained=True) for _ in range(reports)],
                strips.live(11.0))


def drawn(view, width=100, height=40, styled=False):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=styled,
                      color_system='truecolor' if styled else None)
    console.print(render(view, width, height))
    return console.file.getvalue()


@pytest.mark.parametrize('width', [80, 140])
def test_everything_is_said(width):
    text = drawn(a_view(), width, 45)
    for part in ('slice  ready  policy slice  paced', 'tiny.gguf · cpu · int4 weights',
                 '512 MiB', '96%', '180/420 ≤500', '31/61 ≤50', '900/1.2s ≤1.5s', '87%', '85%',
                 '12/25 ms', '0.2 ms', 'off 12%', '3/64', '12/32', '4321/66k', '143',
                 'open 12 ms', '3 requests', 'waiting', 'prefill', '5/60', '1.2s', 'attained',
                 '96+40', '210', '1.4s'):
        assert part in text, part


@pytest.mark.parametrize('width, height', [(80, 24), (140, 45), (60, 12), (20, 5), (250, 100)])
@pytest.mark.parametrize('crowd', [0, 3, 100])
def test_the_picture_fits_and_every_section_keeps_a_place(width, height, crowd):
    classes = [a_class(f'class_{i}') for i in range(max(min(crowd, 30), 1))]
    lines = drawn(a_view(classes, crowd, crowd), width, height).splitlines()
    assert all(len(line) <= width for line in lines)
    if height >= 24:
        assert len(lines) <= height
        assert any('capacity' in line for line in lines)
        assert any('requests' in line for line in lines)
        assert any('ended' in line for line in lines[-20:]) == bool(crowd) or not crowd


def test_what_there_is_no_room_for_is_counted():
    classes = [a_class(f'class_{i}') for i in range(30)]
    text = drawn(a_view(classes, 100, 20), 100, 24)
    assert 'class_0' in text and 'class_29' not in text and ' more' in text
    everything = drawn(a_view(classes, 100, 20), 100, None)
    assert 'class_29' in everything and 'request-' in everything and ' more' not in everything


def test_requests_of_the_first_class_are_seen_first():
    view, strips = a_view([a_class(), a_class('dialogue')]), Strips()
    for i in range(40):
        name = 'control' if i == 39 else 'dialogue'
        strips.update([msg.RequestStatus(request_id=str(i), slo_class=name)], 10.0)
    text = drawn(View('slice', '', view.status, view.state, (), strips.live(10.0)), 100, 24)
    rows = text[text.index('40 requests'):].splitlines()[2:]
    assert rows[0].startswith('control') and rows[1].startswith('dialogue')


@pytest.mark.parametrize('view, text', [
    (View('slice'), 'asking'), (View('/x/slice', 'is not there: waiting for it'), 'not there'),
    (View('slice', '', srv.GetStatus.Response(state='loading')), 'loading'),
    (View('slice', '', srv.GetStatus.Response(state='failed')), 'no model is loaded')])
def test_a_node_that_does_not_serve(view, text):
    assert text in drawn(view)


def test_a_node_that_does_nothing_has_no_figures():
    idle = a_class(attainment=NAN, ttft=(NAN, NAN))
    text = drawn(a_view([idle], 0, 0, prediction_error=NAN, step_p50_ms=NAN, step_p99_ms=NAN,
                        capacity_ratio=NAN, gate_age_ms=NAN))
    assert 'nan' not in text and '- ≤500' in text and '0 requests' in text


def test_what_is_wrong_stands_out():
    text = drawn(a_view(gate_open=False, gate_shut=3, gated=2, engine_failures=5))
    assert 'SHUT' in text and 'gate shut 3×' in text and '5 engine failures' in text


@pytest.mark.parametrize('poison', ['\x1b[31mred', '[red]x[/nope]', 'a\nb', '\u202e', '漢' * 300])
def test_text_from_elsewhere_is_only_text(poison):
    report = a_report(poison, error_code=6, error_msg=poison)
    view = a_view([a_class(poison)], policy=poison, rate_control=poison)
    view = View(poison, '', view.status, view.state, [report], view.strips)
    text = drawn(view)
    assert '\x1b' not in text and '\u202e' not in text
    assert len(text.splitlines()) <= 40


@pytest.mark.parametrize('fields, expected, style', [
    ({'attained': True}, 'attained', 'green'),
    ({'served': True, 'deadline_met': True}, 'missed TTFT TPOT', 'red'),
    ({'served': True, 'ttft_met': True, 'tpot_met': True}, 'missed deadline', 'red'),
    ({'error_code': int(ErrorCode.QUEUE_FULL)}, 'QUEUE_FULL', 'red'),
    ({'error_code': int(ErrorCode.CANCELLED)}, 'cancelled', 'bright_black'),
    ({'error_code': 999}, 'error 999', 'red')])
def test_a_verdict_shows_how_it_ended(fields, expected, style):
    text = verdict(a_report(**fields))
    assert (text.plain, str(text.style)) == (expected, style)


def test_a_strip_shows_tokens_by_height_and_states_by_sign():
    cells = (WAITING, PREFILL, 1, 2, 4, 8, 500, IDLE, PAUSED, GATED)
    assert strip_text(cells, 'cyan').plain == '·░▂▃▅▆█ ─‖'


@pytest.mark.parametrize('value, text', [
    (.04, '0.0'), (9.94, '9.9'), (9.96, '10'), (999.4, '999'), (999.6, '1.0s'), (12_345, '12s'),
    (1e300, '>2h'), (NAN, '-'), (math.inf, '-')])
def test_milliseconds(value, text):
    assert ms(value) == text


@pytest.mark.parametrize('value, text', [
    (0, '0'), (9999, '9999'), (65536, '66k'), (2_500_000, '2M'), (3e9, '3G'), (NAN, '-')])
def test_counts(value, text):
    assert number(value) == text


def test_colours_follow_the_objective():
    assert [against(x, 100) for x in (90, 91, 100, 101)] == ['green', 'yellow', 'yellow', 'red']
    assert against(5, 0) == '' and against(NAN, 100) == 'bright_black'
    assert [of_share(x, .9, .5) for x in (.9, .6, .4)] == ['green', 'yellow', 'red']
    assert [of_share(x, .8, .95) for x in (.8, .9, .96)] == ['green', 'yellow', 'red']
    styles = {str(span.style) for span in times(95, 200, 100).spans}
    assert {'yellow', 'red'} <= styles


def test_bars_and_shares_are_bounded():
    assert bar(.5, 4, '').plain == '██  ' and bar(7, 4, '').plain == '████'
    assert bar(NAN, 4, '').plain == bar(-3, 4, '').plain == '    '
    assert share(.333) == '33%' and share(1e9) == '999%' and share(NAN) == '-'
    assert plain('a\tb\x00' + 'c' * 999, 6) == 'a?b?cc'
