# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Model families: which can run, and which configs and tensors they need.

Descriptions and checks only: nothing here computes a step, that is for `runners`. May import
`checkpoints`.
"""
