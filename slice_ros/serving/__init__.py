# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The serving loop and its server: admit -> plan -> run -> deliver. No ROS.

Other rooms use the names below only. `server` is the front, `intake` accepts requests, `loop` is
the thread that owns the engine and every live request, and all threads meet in `shared_state`:
whatever else they share is a race.
"""

from slice_ros.serving.delivery import Delivery
from slice_ros.serving.rate_control import Gate, RateControl
from slice_ros.serving.server import Server
from slice_ros.serving.server_config import DEFAULT_POLICY, ServerConfig
from slice_ros.serving.sessions import SessionLimits
from slice_ros.serving.snapshot import ClassSnapshot, Snapshot

__all__ = ['ClassSnapshot', 'DEFAULT_POLICY', 'Delivery', 'Gate', 'RateControl', 'Server',
           'ServerConfig', 'SessionLimits', 'Snapshot']
