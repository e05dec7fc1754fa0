# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face names of tensors that more than one runner fuses. Imports nothing."""

QKV = ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj')  # joined in this order
