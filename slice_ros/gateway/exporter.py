# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""/metrics: the state of the node and of the gateway, for Prometheus."""

from collections.abc import Iterator
import math

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from slice_ros import srv
from slice_ros.client import Unavailable
from starlette.requests import Request
from starlette.responses import Response

OUTCOMES = ('finished', 'attained', 'cancelled', 'failed', 'rejected')
PERCENTILES = (('0.5', 'p50'), ('0.99', 'p99'))
TIMES = {'ttft': 'received to first token', 'tpot': 'a token after the first',
         'completion': 'received to last token'}


async def metrics(request: Request) -> Response:
    """Answer /metrics; without a node only with what the gateway knows."""
    door = request.app.state.door
    try:
        status = await door.ros.status()
    except Unavailable:
        status = None
    return Response(generate_latest(_Families(door, status)), media_type=CONTENT_TYPE_LATEST)


class _Families:
    """A registry of one answer: what `generate_latest` collects from."""

    def __init__(self, door, status: srv.GetStatus.Response | None) -> None:
        self._door, self._status = door, status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield GaugeMetricFamily('slice_up', 'The node serves.',
                                float(status is not None and status.state == 'ready'))
        yield GaugeMetricFamily('slice_gateway_live_requests',
                                'Requests of the gateway that have not ended.', self._door.live)
        responses = CounterMetricFamily('slice_gateway_responses', 'Responses by status code.',
                                        labels=['code'])
        for code, count in sorted(self._door.responses.items()):
            responses.add_metric([str(code)], count)
        yield responses
        if status is not None:
            yield from _of_classes(status)
            yield from _of_scheduler(status)


def _of_classes(status: srv.GetStatus.Response) -> Iterator[Metric]:
    classes = status.scheduler.classes
    requests = CounterMetricFamily('slice_requests', 'Requests that ended, by outcome; attained '
                                   'are those finished within every objective.',
                                   labels=['slo_class', 'outcome'])
    for c in classes:
        for outcome in OUTCOMES:
            requests.add_metric([c.slo.name, outcome], getattr(c, outcome))
    yield requests
    for name, text, value in (
            ('live', 'Requests not yet ended.', lambda c: c.live),
            ('waiting', 'Of these, not started.', lambda c: c.waiting),
            ('attainment', 'Attained of those that ended in the window; NaN for none.',
             lambda c: c.attainment)):
        family = GaugeMetricFamily(f'slice_class_{name}', text, labels=['slo_class'])
        for c in classes:
            family.add_metric([c.slo.name], value(c))
        yield family
    for time, text in TIMES.items():
        measured = GaugeMetricFamily(f'slice_{time}_seconds', f'Time {text}, in the window.',
                                     labels=['slo_class', 'quantile'])
        wanted = GaugeMetricFamily(f'slice_{time}_objective_seconds',
                                   f'Objective: time {text}; infinite for none.',
                                   labels=['slo_class'])
        for c in classes:
            for quantile, field in PERCENTILES:
                measured.add_metric([c.slo.name, quantile], getattr(c, f'{time}_{field}_ms') / 1e3)
            objective = getattr(c.slo, 'deadline_ms' if time == 'completion' else f'{time}_ms')
            wanted.add_metric([c.slo.name], objective / 1e3 or math.inf)
        yield measured
        yield wanted


def _of_scheduler(status: srv.GetStatus.Response) -> Iterator[Metric]:
    s, e = status.scheduler, status.engine
    for name, text, value in (('steps', 'Forward passes.', s.steps),
                              ('tokens', 'Tokens generated.', s.tokens),
                              ('engine_failures', 'Steps that failed.', s.engine_failures),
                              ('gate_shut', 'Times that the pacing gate shut.', s.gate_shut)):
        yield CounterMetricFamily(f'slice_{name}', text, value)
    for name, text, value in (
            ('queued_requests', 'Live requests that have not started.', s.queued),
            ('queue_limit_requests', 'Most of these that are taken.', s.max_queued),
            ('load', 'Share of the window that the engine was busy.', s.load),
            ('step_seconds', 'Median time of a step.', s.step_p50_ms / 1e3),
            ('slots_used', 'Requests with a KV cache.', s.slots_used),
            ('slots', 'Most of these.', e.slots),
            ('kv_tokens_used', 'Tokens in the KV caches.', s.kv_tokens_used),
            ('kv_tokens', 'Most of these.', e.kv_tokens),
            ('sessions', 'Conversations that are kept.', s.sessions),
            ('resident_bytes', 'Resident memory of the node.', e.resident_bytes)):
        yield GaugeMetricFamily(f'slice_{name}', text, value)
