# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which requests take part in the next step. Pure Python: no torch, no ROS, no clock."""
