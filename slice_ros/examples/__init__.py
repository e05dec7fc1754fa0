# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Small nodes to copy, which use `slice_ros.client` and nothing else of this package.

`control` decides STOP, SLOW or GO before a deadline, `goal_planner` turns a sentence into a goal
pose, `talker` speaks an answer sentence by sentence; `patrol_tree` is a behaviour tree, with the
leaves of `slice_ros.behaviours`. Each has a launch file of its own; `ask_from_cpp.cpp` sends one
request from C++, and is built where rclcpp is found. Keep each in one file, short enough to copy.
"""
