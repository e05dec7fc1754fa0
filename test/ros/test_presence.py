# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How a client tells its node from the next one, with publishers in place of the node."""

from conftest import wait_until
import pytest
from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.node import Node
from slice_ros import msg
from slice_ros.client.callbacks import Callbacks
from slice_ros.client.presence import Presence
from slice_ros.ros.qos import STATE


def without_leases(**events):
    """Behave like a middleware without liveliness."""
    if 'liveliness' in events:
        raise UnsupportedEventTypeError('no such event')
    return SubscriptionEventCallbacks(**events)


@pytest.mark.parametrize('leases', [True, False])
def test_a_node_that_comes_and_goes(ros, spin, monkeypatch, leases):
    if not leases:
        monkeypatch.setattr('slice_ros.client.presence.SubscriptionEventCallbacks',
                            without_leases)
    looker, slices, changes = Node('looker'), [Node('one'), Node('two')], []
    presence = Presence(Callbacks(looker), 'there', lambda: changes.append(presence.runs))
    spinning = spin(looker)
    assert not presence.gone and not presence.runs  # never seen is not gone
    publishers = []
    for one in slices:
        publishers.append(one.create_publisher(msg.SchedulerState, 'there/scheduler_state', STATE))
        publishers[-1].publish(msg.SchedulerState())
        wait_until(lambda: len(presence.runs) == len(publishers))
    slices[0].destroy_publisher(publishers[0])
    wait_until(lambda: presence.runs == {1})
    assert not presence.gone
    slices[1].destroy_publisher(publishers[1])
    wait_until(lambda: presence.gone)
    assert changes == [{0}, {0, 1}, {1}, set()]
    presence.close()
    spinning.close()
    for one in (looker, *slices):
        one.destroy_node()


@pytest.mark.parametrize('events, runs', [
    ([(1, 0), (-1, 1)], set()),              # killed
    ([(1, 0), (-1, 1), (1, 0)], {1}),        # killed, started again
    ([(1, 0), (0, 1)], {1}),                 # the same, seen at once
    ([(1, 0), (-1, 1), (1, -1)], {1}),       # out of reach for a while: asked anew
    ([(1, 0), (-1, 1), (1, 0), (0, -1)], {1}),  # the graph has forgotten the first
    ([(2, 0), (-1, 0)], {1}),
])
def test_counts_of_events(ros, events, runs):
    looker = Node('counting')
    presence = Presence(Callbacks(looker), 'nowhere', lambda: None)
    for event in events:
        presence._count(*event)
    assert presence.runs == runs and presence.gone == (not runs)
    looker.destroy_node()
