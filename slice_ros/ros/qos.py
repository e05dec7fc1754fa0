# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The quality of service of the node's topics and services. Clients use the same profiles."""

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from slice_ros.ros.compat import PublisherEventCallbacks

# A slow subscriber still needs every token: keep many, and never block on it.
TOKENS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                    durability=DurabilityPolicy.VOLATILE)
REPORTS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
PROMPTS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
# Every client of a service receives the answers to all its clients, and each history drops the
# oldest message when it is full: at the default depth of 10, or at 256, many callers at once lose
# requests and answers without a warning.
SERVICES = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
# The newest state, also for late subscribers. The middleware renews the lease by itself while the
# process runs, so that clients notice within the lease that the process is gone.
STATE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                   durability=DurabilityPolicy.TRANSIENT_LOCAL,
                   liveliness=LivelinessPolicy.AUTOMATIC,
                   liveliness_lease_duration=Duration(seconds=4))
# The executor checks every event handler of every topic in each of its rounds: make none. A
# subscriber with an incompatible quality of service is warned by its own node as well.
NO_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
