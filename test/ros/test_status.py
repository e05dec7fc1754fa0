# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""~/check_admission, ~/get_status and ~/scheduler_state, with the real model."""

from conftest import CLASSES, get, LONG, wait_until
from rclpy.node import Node
from rclpy.parameter import Parameter
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.ros import status
from slice_ros.ros.qos import STATE

Result = Generate.Result
NEVER = 3600.0   # seconds between two states


def test_check_admission_answers_without_reserving(node, caller):
    easy = caller.call(caller.admission, slo_class='dialogue', prompt='Hello', max_tokens=5)
    assert easy.feasible and easy.error_code == 0 and 0 < easy.ttft_ms < easy.completion_ms
    hard = caller.call(caller.admission, slo_class='control', prompt_tokens=100, max_tokens=50,
                       deadline_ms=1.0)
    assert not hard.feasible and 'completion' in hard.reason and hard.prompt_tokens == 100
    unknown = caller.call(caller.admission, slo_class='x', prompt='Hello', max_tokens=5)
    assert unknown.error_code == Result.UNKNOWN_SLO_CLASS and not unknown.feasible
    empty = caller.call(caller.admission, slo_class='control', max_tokens=5)
    assert empty.error_code == Result.INVALID_REQUEST
    assert not node.server.snapshot().requests


def test_status_and_scheduler_state_agree_with_what_happened(caller, slow_steps):
    before = {c.slo.name: c for c in caller.call(caller.status).scheduler.classes}
    caller.ask(slo_class='navigation', prompt='Left or right?', max_tokens=5)
    handle = caller.send(**LONG)
    wait_until(lambda: caller.call(caller.status).scheduler.slots_used == 1)
    answer = caller.call(caller.status)
    assert answer.state == 'ready' and 'SmolLM2' in answer.engine.model
    assert answer.engine.device == 'cpu' and answer.engine.weight_bytes > 5e7
    assert answer.engine.resident_bytes > answer.engine.weight_bytes
    state = answer.scheduler
    assert [c.slo.name for c in state.classes] == list(CLASSES)
    request, = state.requests
    assert (request.slo_class, request.max_tokens) == ('dialogue', 400)
    after = {c.slo.name: c for c in state.classes}
    assert after['navigation'].finished == before['navigation'].finished + 1
    assert after['dialogue'].live == 1 and state.tokens > 0 and 0 < state.load <= 1
    caller.states.clear()
    wait_until(lambda: caller.states)
    assert caller.states[-1].policy == state.policy
    get(handle.cancel_goal_async())
    get(handle.get_result_async())


def test_whoever_asks_soon_after_another_receives_the_same_unless_it_has_changed(
        caller, slow_steps, monkeypatch):
    monkeypatch.setattr(status, 'FRESH', 60.0)
    caller.ask(prompt='Hello', max_tokens=1)
    first, second = (caller.call(caller.status) for _ in range(2))
    assert first.scheduler.stamp == second.scheduler.stamp and first.state == 'ready'
    caller.ask(prompt='Hello', max_tokens=1)
    third = caller.call(caller.status).scheduler
    assert third.stamp != first.scheduler.stamp and not third.requests
    assert third.classes[2].finished == first.scheduler.classes[2].finished + 1
    handle = caller.send(**LONG)
    wait_until(lambda: caller.call(caller.status).scheduler.requests)
    get(handle.cancel_goal_async())
    get(handle.get_result_async())
    assert not caller.call(caller.status).scheduler.requests


def test_a_second_node_receives_the_latest_state_at_once(node, caller, spin):
    node.set_parameters([Parameter('status.period_s', value=NEVER)])
    late, received = Node('late'), []
    late.create_subscription(msg.SchedulerState, '/slice/scheduler_state', received.append, STATE)
    spinning = spin(late)
    wait_until(lambda: received)
    assert received[0].stamp == caller.states[-1].stamp   # sent before it came
    spinning.close()
    late.destroy_node()
    node.set_parameters([Parameter('status.period_s', value=0.2)])
