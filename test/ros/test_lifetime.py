# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Before the model is loaded, and when the node is asked to stop."""

from pathlib import Path

from action_msgs.msg import GoalStatus
from conftest import Caller, get, LONG, slowed, Spinning, wait_until
import pytest
from rclpy.parameter import Parameter
from slice_ros import srv
from slice_ros.action import Generate
from slice_ros.ros.node import SliceNode
from slice_ros.ros.parameters import ParameterError
from slice_ros.ros.parameters.parameter_specs import class_specs, CLASSES, SPECS
import yaml


@pytest.fixture
def pair(ros):
    node, caller = SliceNode(), Caller()
    spinning = [Spinning(node), Spinning(caller)]
    assert caller.generate.wait_for_server(20) and caller.status.wait_for_service(20)
    assert caller.text.wait_for_service(20)
    yield node, caller
    node.close()
    for each in spinning:
        each.close()
    caller.destroy_node()
    node.destroy_node()


def test_while_loading_every_request_is_refused_and_then_served(pair, engine, latency):
    node, caller = pair
    assert caller.call(caller.status).state == 'loading'
    status, result = caller.ask(prompt='Hello')
    assert status == GoalStatus.STATUS_ABORTED
    assert result.error_code == Generate.Result.NOT_READY
    answer = caller.call(caller.text, slo_class='control', prompt='x')
    assert answer.error_code == result.error_code
    node.serve(engine, latency)
    assert caller.call(caller.status).state == 'ready'
    assert caller.ask(prompt='Hello')[0] == GoalStatus.STATUS_SUCCEEDED


def test_stopping_answers_what_is_live(pair, engine, latency):
    node, caller = pair
    node.serve(engine, latency)
    with slowed(engine):
        goal = caller.send(**LONG)
        service = caller.text.call_async(srv.GenerateText.Request(slo_class='dialogue', **LONG))
        wait_until(lambda: node.server.snapshot().slots_used == 2)
        assert node.close()
    code = Generate.Result.SHUTTING_DOWN
    response = get(goal.get_result_async())
    assert (response.status, response.result.error_code) == (GoalStatus.STATUS_ABORTED, code)
    assert get(service).error_code == code
    assert caller.ask(prompt='Hello')[1].error_code == code


@pytest.mark.parametrize('name, value, word', [
    ('limits.max_queued', 0, 'limits.max_queued'),
    ('slo.control.tpot_ms', -1.0, 'slo.control.tpot_ms'),
    ('slo.control.utility', float('nan'), 'utility'),
    ('slo.classes', ['no spaces please'], 'letter'),
    ('slo.classes', ['a', 'a'], 'slo.classes'),
    ('scheduler.policy', 'magic', 'slice_static'),
    ('scheduler.capacity_ratio', 7.0, 'capacity_ratio'),
    ('limits.on_miss', 'shrug', 'drop'),
    ('engine.device', 'tpu', 'cuda'),
    ('limits.max_tokens', 'many', 'limits.max_tokens'),
    ('slo.control.tpot_ms', 'fast', 'slo.control.tpot_ms must be a double'),
    ('slo.classes', 'control', 'slo.classes')])
def test_parameters_that_cannot_be_used_are_named(ros, name, value, word):
    with pytest.raises(ParameterError, match=word.replace('.', r'\.')):
        SliceNode(parameter_overrides=[Parameter(name, value=value)])


def test_classes_are_those_of_the_parameters(ros):
    node = SliceNode(namespace='left', parameter_overrides=[
        Parameter('slo.classes', value=['arm']), Parameter('slo.arm.deadline_ms', value=200)])
    topics = {name for name, _ in node.get_topic_names_and_types()}
    assert {'/left/slice/arm/tokens', '/left/slice/arm/prompt'} <= topics
    assert node.settings.classes['arm'].deadline == 0.2
    assert node.get_parameter('slo.arm.deadline_ms').value == 200.0
    node.destroy_node()


def test_the_parameter_file_names_every_parameter_with_its_default():
    """ROS reports no misspelt name in a file."""
    path = Path(__file__).parents[2] / 'config' / 'slice.yaml'
    found = {}

    def flatten(tree, prefix=''):
        for name, value in tree.items():
            if isinstance(value, dict):
                flatten(value, f'{prefix}{name}.')
            else:
                found[prefix + name] = value
    flatten(yaml.safe_load(path.read_text())['/**']['ros__parameters'])
    specs = [CLASSES, *SPECS, *(s for name in CLASSES.default for s in class_specs(name))]
    assert found == {spec.name: spec.default for spec in specs}
    assert all(type(found[spec.name]) is type(spec.default) for spec in specs)
