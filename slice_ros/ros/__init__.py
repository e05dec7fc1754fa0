# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node, and everything else that imports rclpy.

`main` is the process, `node` the node, `parameters` what can be set, `conversions` messages to
core and back, `calls` one request on its way through the node.
"""
