# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What this package expects of rclpy beyond its documented interface, one sentence for each."""

from importlib.metadata import version

from conftest import get, Spinning
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter
from slice_ros.action import Generate
from slice_ros.client.generate_client import GoalClient
from slice_ros.ros.compat import change_state_service
from slice_ros.ros.isolation.contents import taken

RCLPY = f'rclpy {version("rclpy")}'


def test_the_callback_of_the_change_state_service_can_be_replaced_by_a_coroutine(ros):
    node, caller = LifecycleNode('managed'), Node('manager')
    called = []

    async def change_state(request, response):
        called.append(request)
        response.success = True
        return response
    try:
        service = change_state_service(node)
    except RuntimeError as error:
        raise AssertionError(
            f'{RCLPY}: {error}, so that transitions cannot wait as coroutines') from error
    service.callback = change_state
    client = caller.create_client(ChangeState, 'managed/change_state')
    spinning = [Spinning(node), Spinning(caller)]
    assert client.wait_for_service(20)
    response = get(client.call_async(ChangeState.Request()))
    for each in spinning:
        each.close()
    node.destroy_node()
    caller.destroy_node()
    assert called and response.success, (
        f'{RCLPY} does not await a replaced `Service.callback`, so that transitions cannot wait')


def test_a_node_knows_what_was_given_for_its_parameters(ros):
    node = Node('given', parameter_overrides=[Parameter('nobody.declares', value=1)])
    given = getattr(node, '_parameter_overrides', None)
    node.destroy_node()
    assert given is not None and 'nobody.declares' in given, (
        f'{RCLPY} has no `Node._parameter_overrides`, so that typos cannot be warned of')


def test_a_message_can_be_copied_and_emptied(ros):
    goal = Generate.Goal(prompt='Hi', stop=['x'], max_tokens=3)
    content = taken(goal)
    assert goal == Generate.Goal() and content.prompt == 'Hi' and content.stop == ['x'], (
        f'{RCLPY}: a message is not as `copy` and `get_fields_and_field_types` expect')


def test_a_goal_leaves_one_future_in_the_action_client(ros):
    node = Node('planner')
    client = GoalClient(node, Generate, 'nobody/generate')
    future = client.send_goal_async(Generate.Goal())
    kept = list(client.futures)
    client.destroy()
    node.destroy_node()
    assert len(kept) == 1 and kept[0] is future, (
        f'{RCLPY} keeps {len(kept)} futures of one goal in its `Waitable`, which `GoalClient` '
        'should reduce to the one that is returned')
