# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Programs for the terminal: `ask` (slice_client), `demo` (slice_demo), `monitor` (slice_monitor).

They reach the node through `slice_ros.client` and its interfaces, never through its objects.
`connection` is the ROS node of `ask` and `demo`; `robots_minute` and `demo_requests` belong to the
demo; `dashboard` and `figures` belong to the monitor. Scripts rely on options
and JSON output: add to them, never rename or remove.
"""
