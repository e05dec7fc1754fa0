# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What keeps the faults, the size and the work of one caller away from all others.

`boundary` turns whatever is raised into an answer for this caller, `bounds` refuses by length
before anything else is done, `contents` takes a message apart that rclpy keeps, `workers` do what
grows with a caller's input, and `background` runs the slow part of a transition; `placement` is
where and how urgently threads run. The parts of the node use these; nothing here knows a part.
"""
