# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""/diagnostics, compared with the status."""

from types import SimpleNamespace

from conftest import get, LONG, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from slice_ros import msg
from slice_ros.ros.diagnostics import Diagnostics

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture
def judge():
    """Return the levels that a scheduler state leads to, by what they are about."""
    diagnostics = Diagnostics('slice')
    clock = SimpleNamespace(now=0.0)

    def levels(attainment=1.0, requests=0, **fields):
        state = msg.SchedulerState(max_queued=10, gate_open=True, window_s=60.0, classes=[
            msg.ClassStatus(slo=msg.SloClass(name='arm'), attainment=attainment,
                            window_requests=requests)])
        for name, value in fields.items():
            setattr(state, name, value)
        statuses = diagnostics.with_model(clock.now, 'ready', msg.EngineStatus(), state, 0.0)
        return {s.name.partition(': ')[2]: s.level for s in statuses}
    levels.clock = clock
    return levels


def test_nothing_is_red_when_idle(judge):
    nan = float('nan')
    assert set(judge(attainment=nan, prediction_error=nan, step_p50_ms=nan).values()) == {OK}


@pytest.mark.parametrize('fields, what, level', [
    ({'queued': 8}, 'scheduler', WARN), ({'queued': 10}, 'scheduler', ERROR),
    ({'queued': 7}, 'scheduler', OK), ({'load': 0.99}, 'scheduler', WARN),
    ({'prediction_error': 0.8, 'load': 0.3}, 'scheduler', WARN),
    ({'prediction_error': 0.8, 'load': 0.02}, 'scheduler', OK),
    ({'gate_open': False}, 'scheduler', ERROR),
    ({'attainment': 0.95, 'requests': 100}, 'class arm', OK),
    ({'attainment': 0.8, 'requests': 100}, 'class arm', WARN),
    ({'attainment': 0.2, 'requests': 100}, 'class arm', ERROR),
    ({'attainment': 0.0, 'requests': 1}, 'class arm', WARN)])
def test_thresholds(judge, fields, what, level):
    levels = judge(**fields)
    assert levels.pop(what) == level and set(levels.values()) == {OK}


def test_an_engine_error_is_red_for_the_window(judge):
    assert judge(engine_failures=1)['engine'] == ERROR
    judge.clock.now = 59.0
    assert judge(engine_failures=1)['engine'] == ERROR
    judge.clock.now = 61.0
    assert judge(engine_failures=1)['engine'] == OK


def test_a_gate_that_was_shut_is_a_warning_for_the_window(judge):
    assert judge(gate_open=False, gate_shut=1)['scheduler'] == ERROR
    judge.clock.now = 59.0
    assert judge(gate_shut=1)['scheduler'] == WARN
    judge.clock.now = 61.0
    assert judge(gate_shut=1)['scheduler'] == OK


def test_a_model_that_cannot_be_loaded_is_red_with_its_reason():
    status, = Diagnostics('slice').without_model('failed', 'there is no such file')
    assert status.level == ERROR and 'there is no such file' in status.message
    status, = Diagnostics('slice').without_model('loading')
    assert status.level == OK


# What a quiet node's figures still depend on: the instant they were taken.
MOVING = {'load', 'tokens_per_s', 'resident_bytes'}


def figures(message):
    """Return the plain fields of a message that stay while nothing happens, as they are."""
    return {name: getattr(message, name)
            for name, kind in message.get_fields_and_field_types().items()
            if '/' not in kind and name not in MOVING}


def assert_has_figures(status, *messages):
    """Assert that a diagnostic status contains every figure of the messages."""
    values = {v.key: v.value for v in status.values}
    for message in messages:
        for name, value in figures(message).items():
            if isinstance(value, float):
                assert float(values[name]) == pytest.approx(value, rel=1e-5, nan_ok=True), name
            elif isinstance(value, list):
                assert values[name] == ', '.join(value), name
            else:
                assert values[name] == str(value), name


@pytest.fixture
def quiet(node, caller, slow_steps, spin):
    """After some requests: the status, and the state and diagnostics published around it."""
    node.set_parameters([Parameter('status.window_s', value=3600.0)])
    listener, received = Node('aggregator'), []
    listener.create_subscription(DiagnosticArray, '/diagnostics', received.append, 10)
    spinning = spin(listener)
    wait_until(lambda: received)
    for slo_class in ('navigation', 'control', 'navigation'):
        caller.ask(slo_class=slo_class, prompt='Left or right?', max_tokens=4)
    caller.ask(prompt='Hello', max_tokens=4, session_id='visitor')
    assert not caller.ask(prompt='Hello', max_tokens=4, deadline_ms=1e-3)[1].report.attained
    handle = caller.send(**LONG)
    wait_until(lambda: node.server.busy)
    get(handle.cancel_goal_async())
    get(handle.get_result_async())
    wait_until(lambda: not caller.call(caller.status).scheduler.requests)
    received.clear()
    caller.states.clear()
    wait_until(lambda: len(received) > 1 and len(caller.states) > 1)
    yield caller.call(caller.status), caller.states[-1], received[-1]
    spinning.close()
    listener.destroy_node()
    node.set_parameters([Parameter('status.window_s', value=60.0)])


def test_status_state_and_diagnostics_of_a_quiet_node_agree(node, quiet):
    status, state, diagnostics = quiet
    statuses = {s.name: s for s in diagnostics.status}
    assert list(statuses) == ['slice: engine', 'slice: scheduler', 'slice: class control',
                              'slice: class navigation', 'slice: class dialogue']
    assert ERROR not in {s.level for s in statuses.values()}
    engine = statuses['slice: engine']
    assert engine.level == OK and engine.message == status.state

    for scheduler in (status.scheduler, state):
        assert_has_figures(engine, status.engine)
        assert_has_figures(statuses['slice: scheduler'], scheduler)
        for of_class in scheduler.classes:
            assert_has_figures(statuses[f'slice: class {of_class.slo.name}'], of_class.slo,
                               of_class)
    assert figures(status.scheduler).keys() >= {
        'policy', 'capacity_ratio', 'rate_control', 'gate_open', 'gate_shut', 'queued', 'gated',
        'sessions', 'slots_used', 'steps', 'tokens', 'prediction_error', 'step_p50_ms'}

    settings, now = node.settings, status.scheduler
    assert (now.policy, now.rate_control) == (settings.server.policy, 'work_conserving')
    assert (now.gate_open, now.queued, now.gated, now.slots_used) == (True, 0, 0, 0)
    assert now.sessions == 1 and now.max_queued == settings.server.max_queued
    counted = {c.slo.name: (c.received, c.finished, c.cancelled, c.failed, c.rejected)
               for c in now.classes}
    assert counted == {'control': (1, 1, 0, 0, 0), 'navigation': (2, 2, 0, 0, 0),
                       'dialogue': (3, 2, 1, 0, 0)}
    for of_class in now.classes:
        assert of_class.window_requests == of_class.finished
        assert of_class.attainment == of_class.attained / of_class.finished
    assert now.classes[2].attained < 2
