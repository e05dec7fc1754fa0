# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench ros`` and ``reports``: what callers get over topics. rclpy is imported late."""
