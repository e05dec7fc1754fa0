# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench ros``, ``reports``, ``abuse`` and ``soak``: what callers receive over topics.

Modules import rclpy in their functions, so that the help needs no ROS.
"""
