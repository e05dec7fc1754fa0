# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of rotary position embeddings."""

from slice_ros.engine.models.architecture import Architecture
import torch


def rope_tables(architecture: Architecture, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines of positions, float32 [ropes, length, rotary_dim / 2]."""
    angles = torch.arange(length).float()[:, None] * torch.tensor(
        [rope.frequencies for rope in architecture.ropes])[:, None]
    scale = torch.tensor([rope.scale for rope in architecture.ropes])[:, None, None]
    return angles.cos() * scale, angles.sin() * scale
