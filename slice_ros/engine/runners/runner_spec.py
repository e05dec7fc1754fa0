# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a runner is built from."""

from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.adapters.low_rank import Adapter
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.config import EngineConfig
from slice_ros.engine.kv import memory
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.models.architecture import Architecture, kept_layers, state_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSpec:
    """What a runner is built from."""

    path: Path                # of the model, for error sentences
    model: 'PreTrainedConfig'
    made: Architecture | str  # or why the flat batch cannot run the model
    tensors: Tensors
    weights: str              # fp16 | bf16 | fp32 | int8 | int4
    device: str               # 'cpu' | 'cuda'
    max_context: int          # tokens of one request
    table: np.ndarray         # page table, int32 [slots, pages of a slot]
    config: EngineConfig      # slots, max_batch, memory_fraction
    keep: bool = False        # codes of the file instead of `weights`, which floats have
    adapters: Sequence[Adapter] = ()
    reserved: int = 0         # bytes of free memory that another model will take


def float_page_bytes(made: Architecture, itemsize: int) -> int:
    """Return the bytes of the keys of a page in one layer, in floats of `itemsize` bytes."""
    return made.kv_heads * made.head_dim * itemsize * PAGE_TOKENS


def kv_pages(spec: RunnerSpec, layer_bytes: int) -> int:
    """Return how many pages the free memory holds.

    `layer_bytes` are those of the keys of a page in one layer; its values have as many.
    """
    made = spec.made
    states = math.prod(state_shape(made, len(spec.table))) * np.float32().itemsize
    return memory.kv_pages(spec.path, spec.tensors.nbytes + states + spec.reserved, spec.device,
                           2 * kept_layers(made) * layer_bytes, spec.max_context, spec.config)
