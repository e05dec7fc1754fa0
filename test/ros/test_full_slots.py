# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""While every slot is used: the executor answers, and waiting requests are served in the end."""

import math

from action_msgs.msg import GoalStatus
from conftest import get, LONG, serving, wait_until
import pytest
from rclpy.parameter import Parameter
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.engine import EngineConfig, load_engine

SLOTS = 2
# More useful than the waiting requests, never late, and paced: they run until cancelled.
HOLDER = {**LONG, 'slo_class': 'control', 'ttft_ms': math.inf, 'tpot_ms': 250.0,
          'deadline_ms': math.inf}


@pytest.fixture(scope='module')
def node(ros, latency):
    """A node with two slots, in place of the one with sixteen."""
    engine = load_engine(EngineConfig(max_context=512, slots=SLOTS, max_batch=SLOTS, threads=2))
    with serving(engine, latency, parameter_overrides=[
            Parameter('rate_control.mode', value='paced'),
            Parameter('status.period_s', value=0.2)]) as node:
        yield node


@pytest.fixture
def holders(caller):
    """Goals that use all slots."""
    handles = [caller.send(**HOLDER) for _ in range(SLOTS)]
    wait_until(lambda: caller.call(caller.status).scheduler.slots_used == SLOTS)
    yield handles
    for handle in handles:
        get(handle.cancel_goal_async())
    wait_until(lambda: not caller.call(caller.status).scheduler.requests)


def test_status_and_cancel_are_answered_while_a_goal_waits_that_is_served_in_the_end(
        caller, holders):
    waiting = caller.send(prompt='What is a wheel?', max_tokens=4).get_result_async()
    unwanted = caller.send(prompt='What is a wing?', max_tokens=4)
    by_service = caller.text.call_async(caller.text.srv_type.Request(
        slo_class='dialogue', prompt='What is a rope?', max_tokens=4))
    for _ in range(20):
        state = caller.call(caller.status).scheduler
        assert state.slots_used == SLOTS and not waiting.done() and not by_service.done()
    assert (state.queued, state.classes[2].waiting) == (3, 3)
    assert caller.call(caller.admission, slo_class='dialogue', prompt='Hi', max_tokens=4).ttft_ms

    assert len(get(unwanted.cancel_goal_async()).goals_canceling) == 1
    response = get(unwanted.get_result_async())
    assert response.status == GoalStatus.STATUS_CANCELED and not response.result.text
    assert not waiting.done()

    get(holders[0].cancel_goal_async())
    assert get(holders[0].get_result_async()).status == GoalStatus.STATUS_CANCELED
    assert get(waiting).status == GoalStatus.STATUS_SUCCEEDED and get(waiting).result.text
    assert get(by_service).error_code == Generate.Result.NONE
    state = caller.call(caller.status).scheduler
    assert [r.slo_class for r in state.requests] == ['control']  # the other holder goes on


def test_empty_prompts_hold_nothing_and_hang_nobody(caller, holders):
    for prompt in ('', ' \n'):
        status, result = caller.ask(prompt=prompt)
        assert status == GoalStatus.STATUS_ABORTED
        assert result.error_code == Generate.Result.INVALID_REQUEST
        answer = caller.call(caller.text, slo_class='dialogue', prompt=prompt, max_tokens=4)
        assert answer.error_code == Generate.Result.INVALID_REQUEST
        caller.prompts['dialogue'].publish(msg.Prompt(prompt=prompt, max_tokens=4))
    state = caller.call(caller.status).scheduler
    assert (state.slots_used, state.queued) == (SLOTS, 0)
    get(holders[0].cancel_goal_async())
    assert caller.ask(prompt='Hello', max_tokens=4)[0] == GoalStatus.STATUS_SUCCEEDED
