# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which requests take part in the next step. Pure Python: no torch, no ROS, no clock.

`policy` is the contract, `slice` the default policy, `baselines` its rivals. A policy reads
requests and never changes them; nothing here may import torch, rclpy or a room above.
"""
