# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters (arXiv 2106.09685): what they add to the matrices of a model, read from files.

Knows architectures and checkpoints, and nothing of the runners, which add it.
"""
