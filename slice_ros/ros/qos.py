# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The quality of service that the node and its callers agree on."""

from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

# A token is not worth less because a listener was slow: keep plenty, and never block on it.
TOKENS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                    durability=DurabilityPolicy.VOLATILE)
# The default of 10 loses requests without a word when many callers ask at once.
SERVICES = QoSProfile(depth=256, reliability=ReliabilityPolicy.RELIABLE)
# The newest state, also for who comes late. The middleware keeps the lease up by itself, whatever
# the node's threads do: within it, clients know that the node's process is gone, however it ended.
STATE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                   durability=DurabilityPolicy.TRANSIENT_LOCAL,
                   liveliness=LivelinessPolicy.AUTOMATIC,
                   liveliness_lease_duration=Duration(seconds=4))
# The executor looks at every event of every topic in each of its rounds. Who asks for a quality of
# service that a publisher does not offer is told so by its own node as well.
NO_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
