# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The first request of each class is as quick as its tenth, in a fresh process."""

from contextlib import ExitStack
import json
from statistics import median
import threading

from conftest import serving, wait_until
from first_requests import measure, PREAMBLES
import pytest
from rclpy.parameter import Parameter
from slice_ros.engine import Sampling
from slice_ros.errors import ErrorCode
from slice_ros.ros import lifecycle
from slice_ros.ros.node import SliceNode
from slice_ros.ros.parameters import ParameterError
from slice_ros.serving.warm.preambles import prefix_of
from slice_ros.serving.warm.warm_up import warm_up

PROCESSES = 5   # at most: the quickest first request counts, the machine may do something else
LAST = 3        # requests of each process whose median stands for the tenth
# Of the tenth: 1.0 on a quiet machine, which `first_requests.py` shows; 4 without the preamble.
WITHIN = 2.0
CLOCK_MS = 4.0  # two requests of a few milliseconds differ by a tick of the kernel
SYSTEM = ('Decide for a robot: STOP where something blocks the way or there is danger, SLOW where '
          'people are near or the floor is slippery, or GO where the way is free.')
LATER = ('You guide visitors through a museum of trains. Name the hall, the floor and one thing '
         'to see there, in two short sentences. Never send anyone through a closed door.')
COUNT = 'Count from one to one thousand.'


@pytest.mark.timeout(600)
def test_the_first_is_as_quick_as_the_tenth():
    runs, slow = [], None
    while slow != {} and len(runs) < PROCESSES:
        runs.append(measure())
        slow = slow_kinds(runs)
    assert not slow


def slow_kinds(runs):
    """Return the first and the tenth time of each kind of request whose first is slower."""
    slow = {}
    for kind in runs[0]:
        first = min(run[kind][0] for run in runs)
        tenth = median(time for run in runs for time in run[kind][-LAST:])
        if first > WITHIN * tenth + CLOCK_MS:
            slow[kind] = first, tenth
    return slow


@pytest.fixture
def warm(ros, engine, latency):
    """Return a function that makes a node that serves, with preambles."""
    with ExitStack() as stack:
        yield lambda **preambles: stack.enter_context(serving(
            engine, latency, namespace='warm', parameter_overrides=[
                Parameter(f'slo.{name}.preamble', value=text)
                for name, text in preambles.items()]))
    engine.unpin()


def first_report(node, messages, slo_class='control'):
    """Serve one request and return its report."""
    ended = []
    request = node.server.submit(
        node.settings.classes[slo_class], node.engine.encode_chat(messages), 2, Sampling(),
        lambda delivery: ended.append(delivery) if delivery.finish_reason else None)
    node.gate_timer.gate.open(1.0)
    node.executor.create_task(node.gate_timer.wake)
    node.wake()
    wait_until(lambda: ended)
    return request.report()


@pytest.mark.parametrize('preamble, messages', [
    (SYSTEM, [('system', SYSTEM)]),
    (json.dumps(PREAMBLES['control']), [(m['role'], m['content']) for m in PREAMBLES['control']])])
def test_a_preamble_is_computed_before_the_node_is_ready(warm, preamble, messages):
    node = warm(control=preamble)
    tokens = len(node.engine.encode_chat(messages))
    report = first_report(node, [*messages, ('user', 'A wall is near.')])
    assert report.reused_tokens > 0.7 * tokens


def test_the_warm_up_is_in_no_figure(warm):
    node = warm(control=SYSTEM)
    snapshot = node.server.snapshot()
    assert snapshot.steps == snapshot.tokens == 0 and not snapshot.requests
    assert all(c.received == 0 for c in snapshot.classes.values())
    assert node.state == 'ready'


def test_a_preamble_that_lost_its_room_is_computed_anew(warm):
    """Live requests get every slot and page, and then the prefix is there again."""
    node = warm(control=SYSTEM)
    engine, ended = node.engine, []
    node.executor.create_task(node.gate_timer.wake)
    node.wake()
    while engine._slots._kept:   # as if the pages were needed
        engine._slots._drop()
    for number in range(engine.info.slots + 4):
        node.server.submit(
            node.settings.classes['dialogue'], engine.encode_chat([('user', f'{number} ' * 40)]),
            60, Sampling(),
            lambda delivery: ended.append(delivery) if delivery.finish_reason else None)
    wait_until(lambda: len(ended) == engine.info.slots + 4, timeout=120)
    assert all(delivery.error is ErrorCode.NONE for delivery in ended)
    wait_until(lambda: any(kept.pin for kept in engine._slots._kept.values()),
               what='the prefix is not kept again')
    report = first_report(node, [('system', SYSTEM), ('user', 'A wall is near.')])
    assert report.reused_tokens > 30


def prefix(node, text):
    return prefix_of(node.engine, [('system', text)])


def kept(node):
    """Return the prefixes that the server of a node is to keep."""
    return [prefix.tokens for prefix in node.server._loop.pin.__self__._prefixes]


def put(node, **values):
    assert node.set_parameters([Parameter(name.replace('__', '.'), value=value)
                                for name, value in values.items()])[0].successful


def reused(node, slo_class, text):
    report = first_report(node, [('system', text), ('user', 'A wall is near.')], slo_class)
    return report.reused_tokens >= len(prefix(node, text)) > 30


def test_a_preamble_that_is_set_later_is_there_for_the_first_request(warm, monkeypatch):
    node = warm(control=SYSTEM)
    encode, threads = node.engine.encode_chat, set()

    def encoded(*asked):
        threads.add(threading.current_thread().name)
        return encode(*asked)
    monkeypatch.setattr(node.engine, 'encode_chat', encoded)
    put(node, slo__control__preamble=LATER)
    put(node, slo__navigation__preamble=SYSTEM)
    wait_until(lambda: threads == {'worker'})
    monkeypatch.undo()
    for text in (LATER, SYSTEM):
        wait_until(lambda: node.engine.pinned(prefix(node, text)))
    assert reused(node, 'control', LATER) and reused(node, 'navigation', SYSTEM)
    assert node.server.snapshot().classes['control'].received == 1
    put(node, slo__control__preamble='')
    wait_until(lambda: not node.engine.pinned(prefix(node, LATER)))
    wait_until(lambda: node.engine.pinned(prefix(node, SYSTEM)))


def test_the_preamble_of_a_class_that_is_added_is_there_for_its_first_request(warm):
    node = warm(guide=LATER)   # an override of a class that does not exist yet
    assert not node.engine.pinned(prefix(node, LATER))
    put(node, slo__classes=['control', 'navigation', 'dialogue', 'guide'])
    wait_until(lambda: node.engine.pinned(prefix(node, LATER)))
    assert reused(node, 'guide', LATER)


def test_a_preamble_that_is_set_while_requests_live_waits_for_their_end(warm):
    node, ended = warm(), []
    node.server.submit(
        node.settings.classes['dialogue'], node.engine.encode_chat([('user', COUNT)]), 300,
        Sampling(), lambda delivery: ended.append(delivery) if delivery.finish_reason else None)
    node.executor.create_task(node.gate_timer.wake)
    node.wake()
    put(node, slo__control__preamble=LATER)
    wait_until(lambda: kept(node) == [prefix(node, LATER)])
    assert not ended and not node.engine.pinned(prefix(node, LATER)) and not ended
    wait_until(lambda: ended)
    wait_until(lambda: node.engine.pinned(prefix(node, LATER)))


def test_a_preamble_that_changes_during_the_warm_up_is_kept(warm, monkeypatch):
    node = warm(control=SYSTEM)

    def changed(*arguments):
        pinned = warm_up(*arguments)
        put(node, slo__control__preamble=LATER)
        wait_until(lambda: kept(node) == [prefix(node, LATER)])
        return pinned
    monkeypatch.setattr(lifecycle, 'warm_up', changed)
    node.trigger_deactivate()
    node.lifecycle._warm_up()
    node.trigger_activate()
    wait_until(lambda: node.engine.pinned(prefix(node, LATER)))
    assert not node.engine.pinned(prefix(node, SYSTEM))


@pytest.mark.parametrize('text', [
    '[{"role": "system"}]', '[{"role": "cat", "content": ""}]', '[1]', '["a"', '[' * 5000,
    'x' * 70000])
def test_a_preamble_that_is_none_is_named(ros, text):
    with pytest.raises(ParameterError, match=r'slo\.control\.preamble'):
        SliceNode(parameter_overrides=[Parameter('slo.control.preamble', value=text)])


def test_a_preamble_that_the_model_cannot_take_does_not_stop_it(warm):
    node = warm(control='A very long story. ' * 400)
    assert node.state == 'ready'
    assert first_report(node, [('user', 'Hello')]).output_tokens == 2
