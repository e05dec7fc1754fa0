# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The page at /: what slice_monitor shows, for browsers; its figures come from /events."""

import asyncio
import json
from pathlib import Path
import time

from slice_ros import msg
from slice_ros.client.strips import Strip
from slice_ros.client.watch import View
from slice_ros.errors import ErrorCode
from slice_ros.gateway import http_errors
from slice_ros.gateway.answers import finite
from slice_ros.gateway.http_errors import HttpError
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

PERIOD_S = 0.25    # between two pictures
ENDED = 12         # verdicts shown
ID = 8             # last characters of a request's id; the first ones name its client
TOO_MANY = http_errors.Reply(429, 'rate_limit_error', 'too_many_pages', http_errors.NODE_AFTER)
# The page loads nothing and sends nothing elsewhere.
POLICY = ("default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
          "connect-src 'self'; img-src data:; frame-ancestors 'none'")
CLASS_FIELDS = ('live', 'waiting', 'window_requests', 'failed', 'rejected')
CLASS_FIGURES = ('attainment', 'ttft_p50_ms', 'ttft_p99_ms', 'tpot_p50_ms', 'tpot_p99_ms',
                 'completion_p50_ms', 'completion_p99_ms')
STATE_FIELDS = ('policy', 'rate_control', 'gate_open', 'gate_shut', 'steps', 'tokens', 'queued',
                'max_queued', 'gated', 'sessions', 'slots_used', 'kv_tokens_used',
                'engine_failures')
STATE_FIGURES = ('load', 'window_s', 'prediction_error', 'step_p50_ms', 'step_p99_ms',
                 'plan_p50_ms', 'overhead', 'tokens_per_s')
ENGINE_FIELDS = ('device', 'weights', 'kernels', 'max_context', 'max_batch', 'slots', 'kv_tokens',
                 'kv_bits', 'resident_bytes')
REPORT_FIGURES = ('ttft_ms', 'tpot_ms', 'completion_ms', 'max_gap_ms')


async def page(request: Request) -> HTMLResponse:
    """Answer /."""
    text = Path(__file__).with_name('page.html').read_text(encoding='utf-8')
    return HTMLResponse(text, headers={'content-security-policy': POLICY,
                                       'x-content-type-options': 'nosniff'})


async def events(request: Request) -> Response:
    """Answer /events: a picture of the node, again and again."""
    door = request.app.state.door
    if door.pages >= door.options.bounds.pages:
        raise HttpError(f'{door.pages} pages are open, as many as this gateway serves', TOO_MANY)
    return _Pictures(door, request)


class _Pictures(Response):
    media_type = 'text/event-stream'

    def __init__(self, door, request: Request) -> None:
        super().__init__(headers={'cache-control': 'no-cache'})
        del self.headers['content-length']
        self._door, self._request = door, request

    async def __call__(self, scope, receive, send) -> None:
        door = self._door
        door.pages += 1
        left = asyncio.create_task(self._left())
        try:
            await door.ros.watch()
            await send({'type': 'http.response.start', 'status': 200,
                        'headers': self.raw_headers})
            while not left.done() and not door.stopping:
                await send({'type': 'http.response.body', 'more_body': True,
                            'body': b'data: ' + _picture(door) + b'\n\n'})
                await asyncio.wait((left,), timeout=PERIOD_S)
            await send({'type': 'http.response.body', 'body': b''})
        finally:
            left.cancel()
            door.pages -= 1
            await door.ros.unwatch()

    async def _left(self) -> None:
        while (await self._request.receive())['type'] != 'http.disconnect':
            pass


def _picture(door) -> bytes:
    """Return the figures of now; pages that ask at about the same time get the same ones."""
    now = time.monotonic()
    if now - door.picture[0] >= PERIOD_S / 2:
        door.picture = now, json.dumps(figures(door.ros.view()), separators=(',', ':')).encode()
    return door.picture[1]


def figures(view: View) -> dict:
    """Return what the page draws; a figure that there is none of is null."""
    status, state = view.status, view.state
    shown = {'node': view.node, 'absent': view.absent,
             'state': '' if status is None else status.state,
             'version': '' if status is None else status.version}
    if status is not None and status.engine.model:
        shown['engine'] = {name: getattr(status.engine, name) for name in ENGINE_FIELDS}
        shown['engine']['model'] = Path(status.engine.model).name
    if state is not None:
        shown['scheduler'] = _pick(state, STATE_FIELDS, STATE_FIGURES)
        shown['classes'] = [_class(c) for c in state.classes]
    shown['requests'] = [_request(strip) for strip in view.strips]
    shown['ended'] = [_ended(report) for report in list(view.reports)[:-ENDED - 1:-1]]
    return shown


def _pick(message, fields: tuple[str, ...], numbers: tuple[str, ...]) -> dict:
    return {**{name: getattr(message, name) for name in fields},
            **{name: finite(getattr(message, name)) for name in numbers}}


def _class(c: msg.ClassStatus) -> dict:
    return {'name': c.slo.name, 'objectives': {
        'ttft': c.slo.ttft_ms, 'tpot': c.slo.tpot_ms, 'completion': c.slo.deadline_ms},
        **_pick(c, CLASS_FIELDS, CLASS_FIGURES)}


def _request(strip: Strip) -> dict:
    status = strip.status or msg.RequestStatus(
        state='running', ttft_ms=float('nan'), tpot_ms=float('nan'), age_ms=float('nan'))
    return {'id': strip.request_id[-ID:], 'class': strip.slo_class, 'tokens': strip.tokens,
            'cells': list(strip.cells), 'state': 'gated' if status.gated else status.state,
            **_pick(status, ('max_tokens',), ('age_ms', 'ttft_ms', 'tpot_ms'))}


def _ended(report: msg.SloReport) -> dict:
    return {'id': report.request_id[-ID:], 'class': report.slo.name, 'verdict': _verdict(report),
            'attained': report.attained, 'why': report.error_msg or report.finish_reason,
            **_pick(report, ('prompt_tokens', 'output_tokens'), REPORT_FIGURES)}


def _verdict(report: msg.SloReport) -> str:
    if report.error_code:
        known = report.error_code in ErrorCode.__members__.values()
        return ErrorCode(report.error_code).name if known else f'error {report.error_code}'
    missed = [name for name, met in (('TTFT', report.ttft_met), ('TPOT', report.tpot_met),
                                     ('deadline', report.deadline_met)) if not met]
    return f'missed {" ".join(missed)}' if missed else 'attained'
