# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The step on a GPU: Triton kernels and recorded graphs. Imports Triton only when used."""
