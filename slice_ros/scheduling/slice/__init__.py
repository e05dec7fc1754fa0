# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The default policy, SLICE with its loop closed; start at `slice_policy`.

Other rooms import `slice_policy` alone. A part stays only if a measurement shows its gain
(docs/scheduling.md).
"""
