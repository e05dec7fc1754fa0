# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The worker threads: bounded, useful work first, a session in order, a way past heavy work."""

import threading

from conftest import wait_until
import pytest
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.ros.isolation.workers import HEAVY_THREADS, THREADS, Work, Workers

MANY = 1000


class Log:
    """Workers, what they have done, and a gate that keeps some of their work from ending."""

    def __init__(self):
        self.workers = Workers(lambda: None)
        self.done, self.refused, self.gate = [], {}, threading.Event()

    def work(self, name, *, blocks=False, **marks):
        def run():
            if blocks:
                self.gate.wait(100)
            self.done.append(name)
        return Work(run, lambda error: self.refused.update({name: error}), **marks)

    def submit(self, name, most=MANY, **marks):
        work = self.work(name, **marks)
        self.workers.submit(work, most)
        return work

    def block(self, threads=THREADS):
        """Occupy threads until the gate opens."""
        for number in range(threads):
            self.submit(f'blocking {number}', blocks=True)
        wait_until(lambda: len(self.workers._running) == threads)


@pytest.fixture
def log():
    log = Log()
    yield log
    log.gate.set()
    log.workers.close()
    assert log.workers.wait(10)


def finished(log, *names):
    log.gate.set()
    wait_until(lambda: set(names) <= set(log.done))
    return [name for name in log.done if name in names]


def test_the_most_useful_work_is_done_first_and_the_rest_in_order(log):
    log.block(THREADS)
    for name, utility in (('a', 1), ('b', 1), ('urgent', 100), ('c', 1)):
        log.submit(name, utility=utility, session='one at a time' if name != 'urgent' else '')
    assert finished(log, 'a', 'b', 'c', 'urgent')
    order = [name for name in log.done if len(name) == 1]
    assert order == ['a', 'b', 'c'] and log.done.index('urgent') < log.done.index('b')


def test_work_of_one_session_stays_in_order_also_while_threads_are_free(log):
    log.submit('first', blocks=True, session='s')
    for number in range(20):
        log.submit(number, session='s')
    log.submit('other', session='t')
    wait_until(lambda: log.done == ['other'])
    assert finished(log, *range(20)) == list(range(20))


def test_a_full_queue_refuses_at_once_unless_the_new_work_is_more_useful(log):
    log.block()
    for number in range(3):
        log.submit(number, most=3)
    with pytest.raises(RequestError) as full:   # while every thread is busy
        log.submit('too much', most=3)
    assert full.value.code is ErrorCode.QUEUE_FULL
    log.submit('urgent', most=3, utility=100)
    assert list(log.refused) == [2] and log.refused[2].code is ErrorCode.QUEUE_FULL
    assert finished(log, 0, 1, 'urgent') and 'too much' not in log.done and 2 not in log.done


def test_heavy_work_leaves_a_thread_to_the_rest(log):
    for number in range(THREADS + 2):
        log.submit(f'heavy {number}', blocks=True, heavy=True, utility=100)
    wait_until(lambda: len(log.workers._running) == HEAVY_THREADS)
    log.submit('light')
    wait_until(lambda: log.done == ['light'])
    assert len(finished(log, *(f'heavy {n}' for n in range(THREADS + 2)))) == THREADS + 2


@pytest.mark.parametrize('error', [ValueError('x'), RecursionError(), MemoryError(),
                                   type('Panic', (BaseException,), {})('native')])
def test_what_raises_is_refused_and_the_threads_go_on(log, error):
    def run():
        raise error
    for number in range(2 * THREADS):
        log.workers.submit(Work(run, lambda e, n=number: log.refused.update({n: e})), MANY)
    wait_until(lambda: len(log.refused) == 2 * THREADS)
    memory = isinstance(error, MemoryError)
    code = ErrorCode.OUT_OF_MEMORY if memory else ErrorCode.ENGINE_FAILURE
    assert {e.code for e in log.refused.values()} == {code}
    log.submit('after')
    assert finished(log, 'after')


def test_withdrawn_work_is_not_done_and_closing_refuses_what_waits(log):
    log.block()
    withdrawn = log.submit('withdrawn')
    log.submit('waiting')
    log.workers.withdraw(withdrawn)
    log.workers.close()
    assert list(log.refused) == ['waiting']
    assert log.refused['waiting'].code is ErrorCode.SHUTTING_DOWN
    with pytest.raises(RequestError, match='ends'):
        log.submit('late')
    log.gate.set()
    assert log.workers.wait(10) and 'withdrawn' not in log.done


def test_no_thread_keeps_what_it_has_done(log):
    import gc
    import weakref

    class Text(str):
        pass
    text = Text('a long text')
    kept = weakref.ref(text)
    log.workers.submit(Work(lambda text=text: log.done.append('read'), lambda error: None), MANY)
    wait_until(lambda: log.done)
    del text
    wait_until(lambda: gc.collect() >= 0 and kept() is None)


def test_work_with_images_waits_for_its_like_alone_and_keeps_nobody(log):
    log.submit('image 0', blocks=True, images=True, heavy=True)
    wait_until(lambda: len(log.workers._running) == 1)
    for number in (1, 2):
        log.submit(f'image {number}', images=True, heavy=True, utility=number)
    for number in range(HEAVY_THREADS):
        log.submit(f'heavy {number}', blocks=True, heavy=True)
    wait_until(lambda: len(log.workers._running) == THREADS - 1)
    log.submit('short')
    wait_until(lambda: log.done == ['short'])
    assert finished(log, 'image 1', 'image 2') == ['image 2', 'image 1']
