# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Small nodes to copy: what a planner author does with `slice_ros.client`.

`control` decides STOP, SLOW or GO in time or stops, `planner` turns a sentence into a goal pose,
`talker` speaks an answer sentence by sentence. Each has a launch file of its own.
"""
