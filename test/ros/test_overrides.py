# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Names in parameter files that no parameter has: a warning with the nearest one there is."""

from conftest import wait_until
import pytest
from rclpy.parameter import Parameter
from slice_ros.ros.node import SliceNode
from slice_ros.ros.parameters.overrides import unknown_overrides

KNOWN = ('control', 'navigation', 'dialogue')


@pytest.mark.parametrize('name, words', [
    ('slo.contrl.tpot_ms', ('slo.contrl.tpot_ms', 'slo.control.tpot_ms?')),
    ('slo.control.tpot', ('slo.control.tpot_ms?',)),
    ('limits.max_queue', ('limits.max_queued?',)),
    ('engine.modle', ('engine.model?',)),
    ('autostrat', ('autostart?',)),
    ('slo.gripper.ttft_ms', ('slo.classes', 'gripper')),
    ('qwertz', ('unknown', 'config/slice.yaml')),
    ('x' * 10_000, ('unknown',))])
def test_an_unknown_name_is_warned_of(ros, capfd, name, words):
    node = SliceNode(parameter_overrides=[Parameter(name, value=1), Parameter(
        'limits.max_tokens', value=99)])
    try:
        sentence, = unknown_overrides(node, KNOWN)
        assert all(word in sentence for word in words) and len(sentence) < 300
        assert node.settings.server.max_tokens == 99
        logged = ''

        def found():
            nonlocal logged
            logged += ''.join(capfd.readouterr())
            return sentence in logged
        wait_until(found, 10)
    finally:
        node.destroy_node()


def test_known_names_and_those_of_ros_give_no_warning(ros):
    node = SliceNode(parameter_overrides=[
        Parameter('slo.classes', value=['arm']), Parameter('slo.arm.tpot_ms', value=7.0),
        Parameter('use_sim_time', value=False),
        Parameter('qos_overrides./clock.subscription.depth', value=3)])
    assert not unknown_overrides(node, ['arm'])
    node.destroy_node()


@pytest.mark.parametrize('value', [8, '8'])
def test_a_text_that_is_a_number_needs_no_quotes(ros, value):
    node = SliceNode(parameter_overrides=[Parameter('engine.kv', value=value)])
    assert node.settings.engine.kv == node.get_parameter('engine.kv').value == '8'
    node.destroy_node()


def test_very_many_unknown_names_give_a_few_sentences(ros):
    node = SliceNode(parameter_overrides=[
        Parameter(f'unknown_{number}', value=1) for number in range(500)])
    sentences = unknown_overrides(node, KNOWN)
    assert len(sentences) < 30 and '480 more' in sentences[-1]
    node.destroy_node()
