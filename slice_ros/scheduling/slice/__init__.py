# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The default policy, SLICE with its loop closed; start at `slice_policy`.

Each part must be worth its lines in a measurement (docs/scheduling.md). Other rooms import
`slice_policy` alone.
"""
