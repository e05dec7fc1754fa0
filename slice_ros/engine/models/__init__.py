# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Model families: which can run, and what their configs and tensors must be.

Descriptions only: what computes with them are the `runners`.
"""
