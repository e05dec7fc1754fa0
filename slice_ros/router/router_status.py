# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the router reports of itself: ~/get_status, ~/scheduler_state, /diagnostics and reports."""

from collections.abc import Callable
import math

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from slice_ros import msg, srv
from slice_ros.errors import ErrorCode
from slice_ros.installed import version
from slice_ros.ros.qos import NO_EVENTS, REPORTS, SERVICES, STATE
from slice_ros.router.forwarding import Forwarding
from slice_ros.router.link import Link
from slice_ros.router.routed_call import RoutedCall

MAX_CLASSES = 256   # that are counted
MAX_LISTED = 64     # live requests in SchedulerState
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class RouterStatus:
    """Publishes and answers; ~/scheduler_state has the lease by which clients know the router.

    `forwarding` returns the requests. What only a slice node has (steps, load, windows) is NaN or
    0 in the state of the router; its counters are those of its own callers.
    """

    def __init__(self, node: Node, group: CallbackGroup, max_live: int,
                 forwarding: Callable[[], Forwarding]) -> None:
        self._node, self._max_live, self._get = node, max_live, forwarding
        self._version = version()
        self._counters: dict[str, msg.ClassStatus] = {}
        self._reports, self._state, self._diagnostics = (
            node.create_publisher(kind, name, qos, event_callbacks=NO_EVENTS)
            for kind, name, qos in ((msg.SloReport, '~/slo_reports', REPORTS),
                                    (msg.SchedulerState, '~/scheduler_state', STATE),
                                    (DiagnosticArray, '/diagnostics', 10)))
        node.create_service(srv.GetStatus, '~/get_status', self._get_status,
                            qos_profile=SERVICES, callback_group=group)

    def count(self, call: RoutedCall) -> None:
        """Count a call that has ended, and publish its report."""
        self._reports.publish(call.report)
        counter = self._counter(call.slo_class)
        if counter is None:
            return
        counter.received += 1
        if call.report.served:
            counter.finished += 1
            counter.attained += call.report.attained
        elif call.error is ErrorCode.CANCELLED:
            counter.cancelled += 1
        elif call.tokens:
            counter.failed += 1
        else:
            counter.rejected += 1

    def publish(self) -> None:
        """Publish the state and the diagnostics."""
        self._state.publish(self._state_message())
        links = list(self._get().links.values())
        array = DiagnosticArray(status=[self._router(links), *map(self._link, links)])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _get_status(self, request, response):
        """Answer as the first node that serves, with the state and the counters of the router."""
        links = list(self._get().links.values())
        first = next((link for link in links if link.usable), links[0])
        response.state = 'ready' if first.usable else first.state
        if first.status is not None:
            response.engine = first.status.engine
        response.scheduler, response.version = self._state_message(), self._version
        return response

    def _counter(self, name: str) -> msg.ClassStatus | None:
        """Return the counters of a class that the nodes know; None for another name."""
        slo = self._get().classes().get(name)
        if slo is not None and (name in self._counters or len(self._counters) < MAX_CLASSES):
            counter = self._counters.setdefault(name, msg.ClassStatus(attainment=math.nan))
            counter.slo = slo
            return counter
        return None

    def _state_message(self) -> msg.SchedulerState:
        nan, forwarding = math.nan, self._get()
        live = list(forwarding.live.values())
        for name in forwarding.classes():
            counter = self._counter(name)
            if counter is not None:
                counter.live = sum(call.slo_class == name for call in live)
                counter.waiting = sum(call.slo_class == name and not call.tokens for call in live)
        return msg.SchedulerState(
            stamp=self._node.get_clock().now().to_msg(), policy='router', gate_open=True,
            gate_age_ms=nan, capacity_ratio=nan, prediction_error=nan, step_p50_ms=nan,
            step_p99_ms=nan, plan_p50_ms=nan, max_queued=self._max_live,
            queued=sum(not call.tokens for call in live),
            requests=[msg.RequestStatus(
                request_id=call.id, slo_class=call.slo_class,
                state='running' if call.tokens else 'waiting', output_tokens=call.tokens,
                max_tokens=call.goal.max_tokens, age_ms=call.age_ms, ttft_ms=call.first_ms,
                tpot_ms=nan) for call in live[:MAX_LISTED]],
            classes=list(self._counters.values()))

    # -- diagnostics ---------------------------------------------------------------------------

    def _router(self, links: list[Link]) -> DiagnosticStatus:
        serving, forwarding = sum(link.usable for link in links), self._get()
        level = OK if serving == len(links) else WARN if serving else ERROR
        return self._status('router', level, f'{serving} of {len(links)} nodes serve', {
            'live': len(forwarding.live), 'sent to another node': forwarding.moved})

    def _link(self, link: Link) -> DiagnosticStatus:
        text = f'answers in {link.delay_ms:.1f} ms' if link.usable else link.state
        return self._status(link.name, OK if link.usable else WARN, text, {
            'state': link.state, 'delay_ms': f'{link.delay_ms:.3f}',
            'live there': len(link.goals.live)})

    def _status(self, what: str, level: bytes, text: str, values: dict) -> DiagnosticStatus:
        name = self._node.get_fully_qualified_name().lstrip('/')
        return DiagnosticStatus(
            level=level, name=f'{name}: {what}', message=text,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])
