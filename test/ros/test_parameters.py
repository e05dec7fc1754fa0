# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters while the node serves: whole sets, refused with a sentence or in force at once."""

from pathlib import Path
import time

from conftest import get, LONG, subscribers, wait_until
from diagnostic_msgs.msg import DiagnosticArray
import pytest
from rcl_interfaces.srv import DescribeParameters, SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.ros.parameters.parameter_specs import markdown
from slice_ros.ros.qos import TOKENS

NEVER = 3600.0   # seconds between two states


@pytest.fixture
def put(node, caller):
    """Return a function that sets parameters as a client would; all are set back afterwards."""
    client = caller.create_client(SetParametersAtomically, '/slice/set_parameters_atomically')
    assert client.wait_for_service(20)
    before = {}

    def put(**values):
        values = {name.replace('__', '.'): value for name, value in values.items()}
        now = {name: node.get_parameter(name).value for name in values}
        result = send(values)
        if result.successful:
            before.update({name: value for name, value in now.items() if name not in before})
        return result

    def send(values):
        return get(client.call_async(SetParametersAtomically.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg()
            for name, value in values.items()]))).result
    yield put
    kept = {name: value for name, value in before.items() if node.has_parameter(name)}
    assert not kept or send(kept).successful
    caller.destroy_client(client)


@pytest.mark.parametrize('values, words', [
    ({'slo__control__tpot_ms': -1.0}, ('slo.control.tpot_ms', '1000000000')),
    ({'slo__control__utility': float('nan')}, ('slo.control.utility', '1e-09')),
    ({'scheduler__policy': 'magic'}, ('scheduler.policy', 'slice_static')),
    ({'limits__on_miss': 'shrug'}, ('limits.on_miss', 'drop')),
    ({'rate_control__mode': 'hasty'}, ('rate_control.mode', 'paced')),
    ({'rate_control__stall_s': 0.1, 'rate_control__period_s': 0.05},
     ('rate_control.stall_s', '4 times')),
    ({'limits__max_queued': 0}, ('limits.max_queued', '65536')),
    ({'slo__classes': ['control', 'control']}, ('slo.classes',)),
    ({'slo__classes': ['no spaces please']}, ('slo.classes', 'letter')),
    ({'scheduler__policy': 'orca', 'limits__on_miss': 'drop'}, ('limits.on_miss', 'orca')),
    ({'slo__control__tpot_ms': 40.0, 'scheduler__policy': 'magic'}, ('scheduler.policy',)),
    ({'slo__control__tpot_ms': 'fast'}, ('slo.control.tpot_ms', 'double')),
    ({'limits__max_queued': 2.5}, ('limits.max_queued', 'integer')),
    ({'limits__max_queued': True}, ('limits.max_queued', 'integer')),
    ({'slo__control__ttft_ms': None}, ('slo.control.ttft_ms', 'deleted', '500')),
    ({'slo__classes': 'control'}, ('slo.classes', 'string[]')),
    ({'slo__classes': [1, 2]}, ('slo.classes', 'string[]')),
    ({'slo__classes': None}, ('slo.classes', 'deleted', 'dialogue')),
    ({'slo__control__deadline_ms': -1}, ('slo.control.deadline_ms', '1000000000')),
    ({'engine__kv': 8}, ('engine.kv', 'unconfigured')),
    ({'engine__kv': 4}, ('engine.kv', 'auto, 16, 8')),
    ({'engine__slots': 3}, ('engine.slots', 'unconfigured')),
    ({'engine__template_arguments': '[1]'}, ('engine.template_arguments', 'JSON object')),
    ({'autostart': False}, ('read-only',))])
def test_a_set_that_cannot_be_used_is_refused_and_changes_nothing(node, put, values, words):
    before = node.settings
    result = put(**values)
    assert not result.successful
    for word in words:
        assert word.replace('_', '').lower() in result.reason.replace('_', '').lower()
    assert node.settings == before
    assert node.get_parameter('slo.control.tpot_ms').value == 50.0


def test_a_whole_number_is_read_as_the_double_that_is_meant(node, put):
    assert put(slo__control__tpot_ms=40).successful
    assert type(node.get_parameter('slo.control.tpot_ms').value) is float
    assert node.settings.classes['control'].tpot_ms == 40.0


def test_a_parameter_that_does_not_exist_is_named(node, caller):
    client = caller.create_client(SetParameters, '/slice/set_parameters')
    assert client.wait_for_service(20)
    wrong, = get(client.call_async(SetParameters.Request(parameters=[
        Parameter('slo.contrl.tpot_ms', value=40.0).to_parameter_msg()]))).results
    assert not wrong.successful and 'slo.contrl.tpot_ms' in wrong.reason
    caller.destroy_client(client)


def test_deleting_a_parameter_is_refused_plainly_and_those_of_a_removed_class_go(
        node, caller, put):
    client = caller.create_client(SetParameters, '/slice/set_parameters')   # `ros2 param delete`
    assert client.wait_for_service(20)

    def delete(name):
        result, = get(client.call_async(SetParameters.Request(parameters=[
            Parameter(name, Parameter.Type.NOT_SET).to_parameter_msg()]))).results
        return result
    assert put(slo__classes=['control', 'navigation', 'dialogue', 'wheel']).successful
    for name in ('limits.max_queued', 'slo.wheel.tpot_ms'):
        refused = delete(name)
        assert not refused.successful and f'{name} cannot be deleted' in refused.reason
        assert node.has_parameter(name)
    assert put(slo__classes=['control', 'navigation', 'dialogue']).successful
    assert not [name for name in node._parameters if name.startswith('slo.wheel.')]
    gone = delete('slo.wheel.tpot_ms')
    assert not gone.successful and 'slo.wheel.tpot_ms' in gone.reason
    caller.destroy_client(client)


def test_objectives_act_on_requests_that_run(node, caller, slow_steps, put):
    own = caller.send(tpot_ms=77.0, **LONG)
    plain = caller.send(**LONG)
    wait_until(lambda: len(node.server.snapshot().requests) == 2)
    assert put(slo__dialogue__tpot_ms=123.0, slo__dialogue__utility=7.0).successful
    wait_until(lambda: sorted(r.slo.tpot_ms for r in node.server.snapshot().requests)
               == [77.0, 123.0])
    assert {r.slo.utility for r in node.server.snapshot().requests} == {7.0}
    for handle in (own, plain):
        get(handle.cancel_goal_async())
    report = get(plain.get_result_async()).result.report
    assert report.slo.tpot_ms == 123.0 and report.slo.utility == 7.0
    assert get(own.get_result_async()).result.report.slo.tpot_ms == 77.0


@pytest.mark.parametrize('policy', ['orca', 'slice', 'fastserve'])
def test_the_policy_is_changed_under_a_running_request(node, caller, slow_steps, put, policy):
    handle = caller.send(**LONG)
    wait_until(lambda: any(r.generated for r in node.server.snapshot().requests))
    assert put(scheduler__policy=policy).successful
    wait_until(lambda: node.server._loop.planner.policy.name == policy)
    assert caller.call(caller.status).scheduler.policy == policy
    assert caller.ask(prompt='Hello', max_tokens=3)[1].error_code == Generate.Result.NONE
    get(handle.cancel_goal_async())
    chunks = caller.chunks_of(get(handle.get_result_async()).result.request_id)
    assert [c.sequence for c in chunks] == list(range(len(chunks)))


def test_limits_act_at_once(node, caller, put):
    assert put(limits__max_tokens=10).successful
    answer = caller.ask(prompt='Hello', max_tokens=11)[1]
    assert answer.error_code == Generate.Result.INVALID_REQUEST and '10' in answer.error_msg


def test_a_class_added_at_run_time_has_topics_and_is_served(node, caller, put):
    arm = Parameter('slo.classes', value=['control', 'navigation', 'dialogue', 'arm'])
    assert put(slo__classes=arm.value).successful
    assert put(slo__arm__deadline_ms=9000.0).successful
    chunks = []
    caller.create_subscription(msg.TokenChunk, '/slice/arm/tokens', chunks.append, TOKENS)
    prompts = caller.create_publisher(msg.Prompt, '/slice/arm/prompt', 10)
    wait_until(lambda: prompts.get_subscription_count())
    wait_until(lambda: subscribers(node, '/slice/arm/tokens'))
    assert any(p.topic_name == '/slice/arm/sentences' for p in node.publishers)
    prompts.publish(msg.Prompt(prompt='Grasp or wait?', max_tokens=3))
    wait_until(lambda: chunks and chunks[-1].finished)
    result = caller.ask(slo_class='arm', prompt='Grasp or wait?', max_tokens=3)[1]
    assert result.report.slo.deadline_ms == 9000.0
    status = {c.slo.name for c in caller.call(caller.status).scheduler.classes}
    assert 'arm' in status
    assert put(slo__classes=['control', 'navigation', 'dialogue']).successful
    gone = caller.ask(slo_class='arm', prompt='Grasp or wait?')[1]
    assert gone.error_code == Generate.Result.UNKNOWN_SLO_CLASS


def test_a_class_taken_out_vanishes_with_its_last_request_and_comes_back_afresh(
        node, caller, slow_steps, put):
    names = ['control', 'navigation', 'dialogue']
    health = []
    listening = caller.create_subscription(DiagnosticArray, '/diagnostics', health.append, 10)

    def status():
        return {c.slo.name: c for c in caller.call(caller.status).scheduler.classes}
    assert put(slo__classes=['gripper', *names]).successful
    caller.ask(slo_class='gripper', prompt='Grasp or wait?', max_tokens=3)
    handle = caller.send(slo_class='gripper', **LONG)
    wait_until(lambda: node.server.snapshot().requests)
    assert put(slo__classes=names).successful
    caller.states.clear()
    wait_until(lambda: len(caller.states) > 3)   # its topics outlive a few looks for unused ones
    assert status()['gripper'].live == 1 and status()['gripper'].received == 2
    assert caller.get_publishers_info_by_topic('/slice/gripper/tokens')
    get(handle.cancel_goal_async())
    assert get(handle.get_result_async()).result.error_code == Generate.Result.CANCELLED
    wait_until(lambda: list(status()) == names)
    wait_until(lambda: [c.slo.name for c in caller.states[-1].classes] == names)
    wait_until(lambda: health and not any('gripper' in s.name for s in health[-1].status))
    for what in ('tokens', 'sentences'):
        wait_until(lambda: not caller.get_publishers_info_by_topic(f'/slice/gripper/{what}'))
    wait_until(lambda: not caller.get_subscriptions_info_by_topic('/slice/gripper/prompt'))
    assert put(slo__classes=[*names, 'gripper']).successful
    assert status()['gripper'].received == 0
    caller.ask(slo_class='gripper', prompt='Grasp or wait?', max_tokens=3)
    assert status()['gripper'].received == 1
    assert any(p.topic_name == '/slice/gripper/tokens' for p in node.publishers)
    caller.destroy_subscription(listening)


def test_a_new_period_of_the_status_is_in_force_at_once(node, caller, put):
    """A tick left from a short period would put the next one at the end of a long one."""
    assert put(status__period_s=0.5).successful
    wait_until(lambda: len(caller.states) >= 2)
    assert put(status__period_s=NEVER).successful
    time.sleep(1.0)
    assert put(status__period_s=0.05).successful
    caller.states.clear()
    wait_until(lambda: len(caller.states) >= 10, 20)


def test_descriptors_say_range_and_meaning(node, caller):
    client = caller.create_client(DescribeParameters, '/slice/describe_parameters')
    assert client.wait_for_service(20)
    tpot, miss, start, policy = get(client.call_async(DescribeParameters.Request(
        names=['slo.control.tpot_ms', 'limits.on_miss', 'autostart',
               'scheduler.policy']))).descriptors
    assert 'milliseconds' in tpot.description and tpot.floating_point_range[0].from_value == 0
    assert not tpot.read_only and 'drop' in miss.additional_constraints
    assert 'fastserve' in policy.additional_constraints
    assert start.read_only


@pytest.mark.parametrize('changes', [
    {'slo__control__tpot_ms': 'quick'}, {'limits__max_queued': 1.5}, {'limits__on_miss': 3},
    {'slo__control__tpot_ms': [1.0], 'autostart': False}])   # refused before the node is asked
def test_a_refused_value_leaves_no_type_behind(node, caller, put, changes):
    """What `ros2 param describe` shows afterwards, and the value."""
    client = caller.create_client(DescribeParameters, '/slice/describe_parameters')
    assert client.wait_for_service(20)
    names = [name.replace('__', '.') for name in changes]

    def described():
        request = DescribeParameters.Request(names=names)
        return [each.type for each in get(client.call_async(request)).descriptors]
    before, values = described(), [node.get_parameter(name).value for name in names]
    assert not put(**changes).successful
    assert described() == before
    assert [node.get_parameter(name).value for name in names] == values
    caller.destroy_client(client)


def test_the_docs_have_the_table_of_all_parameters():
    """What `parameter_specs.markdown()` returns stands between the marks."""
    page = (Path(__file__).parents[2] / 'docs' / 'parameters.md').read_text()
    table = page.partition('<!-- parameters: begin -->\n')[2]
    assert table.partition('<!-- parameters: end -->')[0] == markdown(), f'put:\n{markdown()}'
