# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which requests take part in the next step. Pure Python: no torch, no ROS, no clock.

`policy` is the contract and `contract` checks it, `registry` makes policies by name, `slice` is
the default policy, `baselines` are its rivals. Nothing here may import torch, rclpy or a room
above; rooms above use `registry`, `admission`, `contract` and `latency`.
"""
