# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What is expected of a running node, each written once.

The launch tests and the process tests run the same checks; each leaves the node as it found it:
ready and idle.
"""

from contextlib import contextmanager, nullcontext
import time
import uuid

from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from robot import MANY_WORDS, READY_WITHIN, Robot
from slice_ros.action import Generate
from slice_ros.client import SliceClient, Unavailable

RESULT = Generate.Result
STORY = 'Tell me a long story about a robot in a warehouse.'


def id_of(handle) -> str:
    """Return the request id of a goal: its UUID as people write it."""
    return str(uuid.UUID(bytes=bytes(handle.goal_id.uuid)))


@contextmanager
def streaming(robot: Robot, count: int, paced: bool = True):
    """Keep `count` dialogues streaming; yields (handle, future of the result), ends them after.

    Paced, each takes minutes; else as long as its 900 tokens take.
    """
    robot.listen('dialogue')
    with robot.paced() if paced else nullcontext():
        goals = [robot.send('dialogue', f'{STORY} It is called number {i}.', 900,
                            response_format=MANY_WORDS) for i in range(count)]
        try:
            robot.wait_for_tokens('dialogue', [id_of(handle) for handle, _ in goals])
            yield goals
        finally:
            for handle, _ in goals:
                handle.cancel_goal_async()
            for _, result in goals:
                robot.result_of(result)


def check_ready(robot: Robot):
    """It configures and activates by itself, and reports what it serves."""
    status = robot.wait_until_ready()
    assert robot.state() == 'active'
    assert status.engine.model and status.version
    assert [c.slo.name for c in status.scheduler.classes][:3] == [
        'control', 'navigation', 'dialogue']


def check_one_answer(robot: Robot):
    """One control request: the answer of the action equals the tokens of the topic."""
    robot.listen('control')
    handle, future = robot.send(
        'control', 'An obstacle is two metres ahead. Answer with one word: stop or go?', 8)
    answer = robot.result_of(future)
    result = answer.result
    assert answer.status == GoalStatus.STATUS_SUCCEEDED
    assert result.error_code == RESULT.NONE, result.error_msg
    assert result.text and result.finish_reason in ('stop', 'length')
    assert result.request_id == id_of(handle)
    chunks = robot.chunks_of('control', result.request_id)
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.finished for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert ''.join(chunk.text for chunk in chunks) == result.text


def check_twenty_goals(robot: Robot):
    """Twenty goals of three classes at once: each has its own answer, whole on its topic."""
    classes = ('control', 'navigation', 'dialogue')
    for name in classes:
        robot.listen(name)
    before = {c.slo.name: c.finished for c in robot.status().scheduler.classes}
    sent = [(classes[i % 3], *robot.send(classes[i % 3], f'Say the number {i}.', 6))
            for i in range(20)]
    for name, handle, future in sent:
        answer = robot.result_of(future)
        assert answer.status == GoalStatus.STATUS_SUCCEEDED, answer.result.error_msg
        report = answer.result.report
        assert report.served and report.slo.name == name
        assert 1 <= report.output_tokens <= 6
        chunks = robot.chunks_of(name, id_of(handle))
        assert ''.join(chunk.text for chunk in chunks) == answer.result.text
    after = {c.slo.name: c.finished for c in robot.status().scheduler.classes}
    assert [after[name] - before[name] for name in classes] == [7, 7, 6]


def check_cancel_in_mid_stream(robot: Robot):
    """A cancelled goal ends at once, is reported on its topic, and frees its slot."""
    with streaming(robot, 1) as [(handle, future)]:
        robot.result_of(handle.cancel_goal_async())
        answer = robot.result_of(future)
        assert answer.status == GoalStatus.STATUS_CANCELED
        assert answer.result.error_code == RESULT.CANCELLED
        last = robot.chunks_of('dialogue', id_of(handle))[-1]
        assert last.finish_reason == 'cancelled' and last.tokens < 900
        steps = robot.status().scheduler
        assert steps.slots_used == 0 and not steps.requests
        assert robot.status().scheduler.steps == steps.steps  # nothing is computed for it


def check_control_preempts_dialogue(robot: Robot):
    """A control goal that comes last is over while every dialogue still streams."""
    with streaming(robot, 6, paced=False) as dialogues:
        answer = robot.result_of(robot.send('control', 'Stop or go? One word.', 6)[1])
        assert answer.status == GoalStatus.STATUS_SUCCEEDED, answer.result.error_msg
        assert not any(future.done() for _, future in dialogues)
        live = robot.status().scheduler.classes[2].live
        assert live == 6


def check_live_parameter(robot: Robot):
    """An objective set while a request runs is that request's; a bad set changes nothing."""
    try:
        with streaming(robot, 1) as [(handle, future)]:
            refused = robot.put(slo__dialogue__tpot_ms=-1.0)
            assert not refused.successful and 'slo.dialogue.tpot_ms' in refused.reason
            accepted = robot.put(slo__dialogue__tpot_ms=123.0)
            assert accepted.successful, accepted.reason
            assert robot.status().scheduler.classes[2].slo.tpot_ms == 123.0
            robot.result_of(handle.cancel_goal_async())
            assert robot.result_of(future).result.report.slo.tpot_ms == 123.0
    finally:
        assert robot.put(slo__dialogue__tpot_ms=250.0).successful


def check_deactivate_and_activate_under_load(robot: Robot):
    """Deactivating answers what is live with SHUTTING_DOWN; activating serves again."""
    with streaming(robot, 4) as goals:
        assert robot.change(Transition.TRANSITION_DEACTIVATE)
        assert robot.state() == robot.status().state == 'inactive'
        codes = [robot.result_of(future).result.error_code for _, future in goals]
        assert codes == [RESULT.SHUTTING_DOWN] * 4
    refused = robot.result_of(robot.send('control', 'Stop or go?', 4)[1]).result
    assert refused.error_code == RESULT.NOT_READY and 'activate' in refused.error_msg
    assert robot.change(Transition.TRANSITION_ACTIVATE) and robot.state() == 'active'
    check_one_answer(robot)


CHECKS = (check_ready, check_one_answer, check_twenty_goals, check_cancel_in_mid_stream,
          check_control_preempts_dialogue, check_live_parameter,
          check_deactivate_and_activate_under_load)


def check_side_by_side(left: Robot, right: Robot):
    """Two nodes in namespaces of their own: what is done to one is not done to the other."""
    left.wait_until_ready()
    right.wait_until_ready()
    received = right.status().scheduler.classes[2].received
    with streaming(left, 2) as goals:
        check_one_answer(right)
        assert left.change(Transition.TRANSITION_DEACTIVATE)
        for _, future in goals:
            assert left.result_of(future).result.error_code == RESULT.SHUTTING_DOWN
        check_one_answer(right)
    assert left.change(Transition.TRANSITION_ACTIVATE)
    assert right.status().scheduler.classes[2].received == received
    check_one_answer(left)


def check_respawn_while_a_client_waits(robot: Robot, kill):
    """A client in the middle of a goal outlives the node: the next node serves it.

    `kill` ends the node's process at once; something starts it again. Meanwhile the client
    library reports within a few seconds that the node is gone, and can wait for the next one.
    """
    robot.wait_until_ready()
    robot.listen('dialogue')
    client = SliceClient(robot.node, robot.server)
    robot.result_of(robot.executor.create_task(client.wait_until_ready, 60.0))
    assert robot.put(rate_control__mode='paced').successful   # until it is killed
    handle, lost = robot.send('dialogue', STORY, 900, response_format=MANY_WORDS)
    stream = client.generate(STORY, max_tokens=900, regex=MANY_WORDS.grammar)
    robot.wait_for_tokens('dialogue', [id_of(handle), stream.request_id])
    kill()
    killed = time.monotonic()
    robot.wait_for(lambda: stream.done, 'the client does not see that the node is gone')
    assert isinstance(stream.error, Unavailable) and stream.text
    assert time.monotonic() - killed < 15.0  # the graph alone takes 20 s
    again = robot.executor.create_task(client.wait_until_ready, READY_WITHIN)
    robot.wait_until_ready()
    assert not lost.done()
    robot.result_of(again, READY_WITHIN)
    check_one_answer(robot)   # by the same clients as before
    answer = robot.result_of(client.ask_future('Hi', 'navigation', max_tokens=3))
    assert answer.report.served and robot.status().scheduler.classes[2].received == 0
    client.close()
