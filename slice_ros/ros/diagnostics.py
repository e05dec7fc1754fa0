# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The content of `/diagnostics`: one status for the engine, the scheduler, and each SLO class.

It is derived from the messages of ~/scheduler_state and ~/get_status, so that the three agree. An
idle node is OK.
"""

from collections.abc import Iterable

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from slice_ros import msg

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

QUEUE_WARN = 0.8         # share of limits.max_queued that waits
LOAD_WARN = 0.95         # share of the window the engine was busy
LOAD_IDLE = 0.1          # share up to which waits are short even if predictions are wrong
PREDICTION_WARN = 0.5    # mean relative error of predicted step times
ATTAINMENT_WARN = 0.9    # share of the requests of a class that attained
ATTAINMENT_ERROR = 0.5
FEW = 5                  # requests in the window below which a class is at most WARN


class Diagnostics:
    """Rates status messages; engine failures and a shut gate count for one window."""

    def __init__(self, name: str) -> None:
        self._name = name            # of the node
        self._failures = 0
        self._failing_until = 0.0    # seconds, on the clock of `now` in `with_model`
        self._shut = 0
        self._shut_until = 0.0

    def with_model(self, now: float, state: str, engine: msg.EngineStatus,
                   scheduler: msg.SchedulerState, delivery: float,
                   guesses: tuple[int, int] = (0, 0)) -> list[DiagnosticStatus]:
        """Return every status of a node that has a model.

        `now` is seconds on a monotonic clock, `delivery` the share of the busy time that the loop
        spends on delivering tokens, `guesses` are those fed, and those that were right.
        """
        if scheduler.engine_failures > self._failures:
            self._failing_until = now + scheduler.window_s
        self._failures = scheduler.engine_failures
        if scheduler.gate_shut > self._shut or not scheduler.gate_open:
            self._shut_until = now + scheduler.window_s
        self._shut = scheduler.gate_shut
        return [
            self._engine(state, engine, scheduler, guesses, now < self._failing_until),
            self._scheduler(scheduler, delivery, now < self._shut_until),
            *(self._class(status) for status in scheduler.classes)]

    def without_model(self, state: str, failure: str = '') -> list[DiagnosticStatus]:
        """Return the status of a node without a model; `failure` is why loading one failed."""
        if state == 'failed':
            return [self._status('engine', ERROR, f'no model: {failure}', '', [])]
        return [self._status('engine', OK, f'no model: {state}', '', [])]

    def _engine(self, state: str, engine: msg.EngineStatus, scheduler: msg.SchedulerState,
                guesses: tuple[int, int], failing: bool) -> DiagnosticStatus:
        level, text = OK, state
        if failing:
            level, text = ERROR, 'steps ended in an engine error: see the log'
        values = [*_values(engine), ('step_p50_ms', _text(scheduler.step_p50_ms)),
                  ('step_p99_ms', _text(scheduler.step_p99_ms)),
                  ('engine_failures', str(scheduler.engine_failures)),
                  ('guesses', str(guesses[0])), ('guesses_right', str(guesses[1])),
                  ('state', state)]
        return self._status('engine', level, text, engine.device, values)

    def _scheduler(self, scheduler: msg.SchedulerState, delivery: float,
                   stood_still: bool) -> DiagnosticStatus:
        waiting = scheduler.queued / max(scheduler.max_queued, 1)
        level, text = OK, f'{scheduler.load:.0%} busy'
        if not scheduler.gate_open:
            level, text = ERROR, 'the pacing gate is shut: the executor or the clock stands still'
        elif waiting >= 1:
            level, text = ERROR, 'the queue is full: new requests are refused'
        elif waiting >= QUEUE_WARN:
            level, text = WARN, f'the queue is {waiting:.0%} full'
        elif stood_still:
            level, text = WARN, 'the pacing gate was shut of late: a callback of the node takes '\
                'long, or its clock stands still at times'
        elif scheduler.load >= LOAD_WARN:
            level, text = WARN, 'the engine is always busy: the least useful requests are late'
        elif scheduler.load > LOAD_IDLE and scheduler.prediction_error > PREDICTION_WARN:
            level, text = WARN, (f'step times are predicted {scheduler.prediction_error:.0%} '
                                 'wrong: admission and scheduling are less exact')
        values = [*_values(scheduler), ('delivery', _text(delivery))]
        return self._status('scheduler', level, text, '', values)

    def _class(self, status: msg.ClassStatus) -> DiagnosticStatus:
        level, text = OK, 'no request of late'
        if status.window_requests:
            text = (f'{status.attainment:.0%} of {status.window_requests} requests attained '
                    f'within {status.window_s:g} s')
            if status.attainment < ATTAINMENT_ERROR and status.window_requests >= FEW:
                level = ERROR
            elif status.attainment < ATTAINMENT_WARN:
                level = WARN
        values = [*_values(status.slo), *_values(status)]
        return self._status(f'class {status.slo.name}', level, text, '', values)

    def _status(self, what: str, level: bytes, text: str, hardware: str,
                values: Iterable[tuple[str, str]]) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=level, name=f'{self._name}: {what}', message=text, hardware_id=hardware,
            values=[KeyValue(key=key, value=value) for key, value in values])


def _values(message) -> list[tuple[str, str]]:
    """Return the plain fields of a message, lists of names among them, by their names."""
    return [(name, _text(getattr(message, name)))
            for name, kind in message.get_fields_and_field_types().items()
            if kind in ('boolean', 'double', 'string', 'uint32', 'uint64', 'sequence<string>')]


def _text(value) -> str:
    if isinstance(value, list):
        return ', '.join(value)
    return f'{value:.6g}' if isinstance(value, float) else str(value)
