# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench regimes``: the default policy against every other one, in many regimes.

A regime is a workload or a trace; it is simulated on several profiles at several loads. Each
section of the command returns lines that hold or fail.
"""
