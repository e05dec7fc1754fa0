# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The step in plain torch operators: the reference, and the fallback of the other runners.

Knows neither `cuda` nor `native`, and needs neither Triton nor a GPU.
"""
