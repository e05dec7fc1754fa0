# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The executor of the node: what waits is not run, and goes on when it may."""

import threading

from conftest import get, live, LONG, wait_until
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future
from slice_ros.ros.isolation.executor import Awaited, Executor

ROUNDS = 50


class Counted(Awaited):
    """Counts how often whoever awaits it has looked."""

    looks = 0

    def done(self):
        self.looks += 1
        return super().done()


@pytest.fixture(params=[Executor, SingleThreadedExecutor])
def executor(ros, request):
    executor = request.param()
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield executor
    executor.shutdown()
    thread.join(10)
    assert not thread.is_alive()


def awaiting(executor, future):
    async def wait():
        try:
            return await future
        except ValueError as error:   # beyond the coroutine it would end `spin`
            return str(error)
    return executor.create_task(wait)


def test_a_coroutine_that_waits_is_run_at_its_start_and_at_its_end_only(ros):
    executor, future = Executor(), Counted()
    task = awaiting(executor, future)
    for _ in range(ROUNDS):
        executor.create_task(lambda: None)
        executor.spin_once(0)
    assert future.looks == 1 and not task.done()
    future.set_result('answer')
    while not task.done():
        executor.spin_once(1)
    assert future.looks == 2 and task.result() == 'answer'
    executor.shutdown()


def test_results_and_exceptions_of_other_threads_come_through(executor):
    futures = [Awaited() for _ in range(100)]
    tasks = [awaiting(executor, future) for future in futures]
    for number, future in enumerate(futures[:-1]):
        threading.Thread(target=future.set_result, args=(number,)).start()
    futures[-1].set_exception(ValueError('no'))
    executor.wake()
    wait_until(lambda: all(future.done() for future in futures))
    executor.wake()   # rclpy's own executor does not notice by itself
    assert [get(task) for task in tasks] == [*range(99), 'no']


def test_a_coroutine_awaits_one_future_after_another_and_some_that_are_complete(executor):
    first, second = Awaited(), Awaited()
    second.set_result(2)

    async def wait():
        return await first + await second + await second
    task = executor.create_task(wait)
    first.set_result(1)
    executor.wake()
    assert get(task) == 5


def test_a_future_of_another_executor_within_a_callback_is_spun_for_as_usual(ros):
    outer, inner, future = Executor(), SingleThreadedExecutor(), Awaited()

    def callback():
        task = awaiting(inner, future)
        inner.create_task(future.set_result, 1)
        inner.spin_until_future_complete(task, 10)
        return task.result()
    task = outer.create_task(callback)
    while not task.done():
        outer.spin_once(1)
    assert task.result() == 1
    inner.shutdown()
    outer.shutdown()


def test_requests_of_the_node_are_not_run_again_before_they_end(
        node, caller, slow_steps, monkeypatch):
    looks = []

    def done(future):
        looks.append(future)
        return Future.done(future)
    monkeypatch.setattr(Awaited, 'done', done)
    handles = [caller.send(**LONG) for _ in range(3)]
    caller.text.call_async(caller.text.srv_type.Request(slo_class='dialogue', **LONG))
    wait_until(lambda: len(live(node)) == 4)
    for _ in range(20):
        caller.call(caller.status)
    assert len(live(node)) == len(looks) == len(set(map(id, looks))) == 4
    caller.call(caller.canceller, slo_class='dialogue')
    for handle in handles:
        assert get(handle.get_result_async()).result.error_code
