# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Structured answers as robots ask for them, and the time that they take."""
