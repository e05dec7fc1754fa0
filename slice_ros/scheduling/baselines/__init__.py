# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Policies to compare with, one file a rival, each as published and cited.

Do not improve one beyond its paper: it would no longer be the rival. None imports another room's
policy.
"""
