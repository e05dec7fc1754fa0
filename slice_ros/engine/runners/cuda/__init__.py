# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The step on a GPU: Triton kernels and recorded graphs, on top of the `torch` runner.

Triton need not be installed: modules here import `kernels` and `group_linear` only when used.
"""
