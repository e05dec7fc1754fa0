"""What /diagnostics says, beside what the status says."""

from types import SimpleNamespace

from conftest import wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import pytest
from rclpy.node import Node
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
        statuses = diagnostics.statuses(clock.now, 'ready', msg.EngineStatus(), state, 0.0)
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


def test_a_model_that_cannot_be_loaded_is_red_and_says_why():
    status, = Diagnostics('slice').lone('failed', 'there is no such file')
    assert status.level == ERROR and 'there is no such file' in status.message
    status, = Diagnostics('slice').lone('loading')
    assert status.level == OK


def test_diagnostics_agree_with_the_status(node, caller, spin):
    listener, heard = Node('aggregator'), []
    listener.create_subscription(DiagnosticArray, '/diagnostics', heard.append, 10)
    spinning = spin(listener)
    caller.ask(slo_class='navigation', prompt='Left or right?', max_tokens=4)
    wait_until(lambda: heard)
    heard.clear()
    wait_until(lambda: len(heard) > 1)
    status = caller.call(caller.status)
    statuses = {s.name: s for s in heard[-1].status}
    assert list(statuses) == ['slice: engine', 'slice: scheduler', 'slice: class control',
                              'slice: class navigation', 'slice: class dialogue']
    values = {name: {v.key: v.value for v in s.values} for name, s in statuses.items()}
    assert values['slice: engine']['model'] == status.engine.model
    assert values['slice: scheduler']['policy'] == status.scheduler.policy
    assert values['slice: scheduler']['tokens'] == str(status.scheduler.tokens)
    navigation = values['slice: class navigation']
    assert navigation['finished'] == str(status.scheduler.classes[1].finished) != '0'
    assert navigation['tpot_ms'] == '100'
    assert statuses['slice: engine'].level == OK
    spinning.close()
    listener.destroy_node()
