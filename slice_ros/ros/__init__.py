# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The ROS node `slice`: messages in, requests to `slice_ros.serving`, messages out.

`main` runs the process and `node` composes the node of its parts: `lifecycle` (with `background`),
`requests` (with `preparation`, `class_topics`, `calls`), `status` (with `diagnostics`) and
`gate_timer`. They share `host`, `parameters/`, `isolation/` and `callers/`, convert messages
with `conversions`, and take their quality of service from `qos`; `compat` has what differs between
releases of rclpy. Imports go one way, in this order.

To change an interface, touch its part and `conversions`; to add a parameter, `parameters/`. A part
imports no other part: connect them in `node`. Nothing here schedules or computes tokens; that
belongs to `slice_ros.serving`.
"""
