# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What `ros/compat.py` does where rclpy lacks something: here it is hidden from it."""

from importlib.metadata import version

from conftest import Spinning, wait_until
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from slice_ros.ros import compat
from slice_ros.ros.isolation.executor import Awaited, Executor

RCLPY = f'rclpy {version("rclpy")}'


@pytest.fixture
def lonely(ros):
    node = Node('lonely')
    yield node
    node.destroy_node()


class Old:
    """A node as Humble's is: without some methods of the node that it is made of."""

    MISSING = ('add_pre_set_parameters_callback', 'add_post_set_parameters_callback',
               'count_clients')

    def __init__(self, node: Node) -> None:
        self._node = node

    def __getattr__(self, name: str):
        if name in self.MISSING:
            raise AttributeError(name)
        return getattr(self._node, name)


@pytest.mark.parametrize('old', [False, True])
def test_parameters_are_prepared_checked_and_applied(lonely, old):
    applied, checked = [], []

    def check(changes):
        checked.extend(each.value for each in changes)
        return compat.SetParametersResult(successful=checked[-1] != 13)
    lonely.declare_parameter('speed', 1.0)
    compat.on_parameters(Old(lonely) if old else lonely, list, check,
                         lambda changes: applied.extend(each.value for each in changes))
    spinning = Spinning(lonely)
    assert lonely.set_parameters([Parameter('speed', value=2.0)])[0].successful
    wait_until(lambda: applied == [2.0])
    assert not lonely.set_parameters([Parameter('speed', value=13.0)])[0].successful
    spinning.close()
    assert applied == [2.0] and checked == [2.0, 13.0]


@pytest.mark.parametrize('autostart', [False, compat._AUTOSTART])
def test_a_timer_runs_once_it_is_reset(lonely, monkeypatch, autostart):
    monkeypatch.setattr(compat, '_AUTOSTART', autostart)
    fired = []
    timer = compat.idle_timer(lonely, 0.01, lambda: fired.append(1))
    spinning = Spinning(lonely)
    assert timer.is_canceled() and not fired
    timer.reset()
    wait_until(lambda: fired)
    spinning.close()


def test_without_a_count_of_clients_there_is_one(lonely):
    assert compat.count_clients(lonely, '/nobody') == 0
    assert compat.count_clients(Old(lonely), '/nobody') == 1


@pytest.mark.parametrize('known', [True, False])
def test_a_coroutine_goes_on_when_what_it_awaits_is_done(lonely, monkeypatch, known):
    """Also where the executor's list of coroutines is not known: rclpy's own way."""
    left = []
    real = compat.leave_out
    monkeypatch.setattr('slice_ros.ros.isolation.executor.leave_out', lambda *args: (
        left.append(known and real(*args)) or left[-1]))
    awaited = Awaited()

    async def wait():
        return await awaited
    executor = Executor()
    executor.add_node(lonely)
    task = executor.create_task(wait)
    for _ in range(3):
        executor.spin_once(0.05)
    assert not task.done()
    assert left[0] is known, (
        f'{RCLPY} keeps its coroutines elsewhere than in `Executor._tasks`: waiting ones run in '
        'each round, unless its executor resumes them by itself')
    awaited.set_result('done')
    executor.spin_until_future_complete(task, 60.0)
    executor.shutdown()
    assert task.done() and task.result() == 'done'


def test_a_future_ends_although_its_executor_has():
    """As Jazzy's does then: the future is as asked, and its callbacks cannot be handed on."""
    class Ended:
        def create_task(self, *args):
            raise AttributeError("'NoneType' object has no attribute 'trigger'")
    executor = Ended()
    for end, outcome in (('cancel', ()), ('set_result', (1,)), ('set_exception', (OSError(),))):
        future = Future(executor=executor)
        future.add_done_callback(lambda _: None)
        compat.end_future(getattr(future, end), *outcome)
        assert future.cancelled() if end == 'cancel' else future.done()
