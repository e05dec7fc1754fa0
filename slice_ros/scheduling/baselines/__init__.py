# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Policies to compare with, one file each, as published and cited.

Do not improve one beyond its paper: it would no longer be the rival. None imports the policy of
another room. `seen_lengths` and `time_left` are what several of them share.
"""
