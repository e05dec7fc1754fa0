# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench simulate``, ``serve``, ``plan``, ``admission``: policies against workloads.

Simulating needs no torch and no ROS; only `serve` loads an engine.
"""
