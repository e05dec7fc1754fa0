# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Where requests meet the engine: plan, run, deliver. No ROS.

`server.Server` is what the rest of the node talks to, `server_config` how it is to schedule,
`loop.Loop` the one thread that owns the engine, `job` a live request as it has it, `planner` the
policy in use, `delivery` the thread that tells callers, `rate_control` the timer's gate,
`stats` what has been measured, `sessions` the conversations that go on, `sentences` what of an
answer can be spoken.
"""

from slice_ros.serving.delivery import Delivery
from slice_ros.serving.rate_control import Gate, RateControl
from slice_ros.serving.server import Server
from slice_ros.serving.server_config import DEFAULT_POLICY, ServerConfig
from slice_ros.serving.sessions import SessionLimits
from slice_ros.serving.stats import ClassSnapshot, Snapshot

__all__ = ['ClassSnapshot', 'DEFAULT_POLICY', 'Delivery', 'Gate', 'RateControl', 'Server',
           'ServerConfig', 'SessionLimits', 'Snapshot']
