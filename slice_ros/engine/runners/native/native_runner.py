# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The forward pass of the Llama family on the native kernels: one C call a step, no torch inside.

It stands for `TorchRunner` where the library is there; tokens, slots and positions are the
same, and so is what comes out.
"""

from collections.abc import Callable, Sequence

import numpy as np
from slice_ros.engine.checkpoints.stored_weights import Rows
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.models.llama import head_dim, rope_tables
from slice_ros.engine.runners.native import Library, ModelShape
from slice_ros.engine.runners.native.build import build_model
from slice_ros.engine.runners.runner import flatten, Segment
import torch
from transformers import PreTrainedConfig

WEIGHTS = ('fp16', 'bf16', 'fp32', 'int8', 'int4')


def unsupported(config: PreTrainedConfig, weights: str) -> str | None:
    """Return why the native kernels cannot run this model of the family, None if they can."""
    if weights not in WEIGHTS:
        return f'weights {weights}'
    if head_dim(config) % 2:
        return f'heads of {head_dim(config)}'
    return None


class StoredWeights:
    """Tensors of a checkpoint as the kernels' builder takes them.

    A head that is tied to the embedding is none of its own.
    """

    def __init__(self, tensors: Tensors, tied: bool) -> None:
        self._tensors, self._tied = tensors, tied

    def __contains__(self, name: str) -> bool:
        return name in self._tensors and not (self._tied and name == 'lm_head.weight')

    def __getitem__(self, name: str) -> Rows:
        if name.endswith(('norm.weight', '.bias')):
            return self._tensors[name].to(torch.float32).numpy()
        return self._tensors.rows(name)

    def get(self, name: str) -> Rows | None:
        return self[name] if name in self else None


class NativeRunner:
    """Runs any subset of the live requests, decode rows and prefill chunks alike, in one call."""

    path = 'flat batch'

    def __init__(self, config: PreTrainedConfig, tensors: Tensors,
                 weights: str, library: Library, slots: int, pages: int, max_context: int,
                 progress: Callable[[float], None]) -> None:
        dim = head_dim(config)
        shape = ModelShape(
            hidden=config.hidden_size, heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads, head_dim=dim,
            intermediate=config.intermediate_size, vocabulary=config.vocab_size,
            norm_eps=config.rms_norm_eps)
        cos, sin = (table[:, 0, dim // 2:].numpy() for table in rope_tables(config, max_context))
        self._layers = config.num_hidden_layers
        self._model = build_model(
            library, shape, self._layers,
            StoredWeights(tensors, config.tie_word_embeddings), weights, cos, sin, slots=slots,
            max_context=max_context, threads=torch.get_num_threads(), pages=pages,
            progress=progress)
        self._pages = self._model.cache
        self.table = self._pages.table
        self.kernels = f'native {library.isa}'
        self.weight_bytes = self._model.weight_bytes
        self.kv_bytes = self._pages.nbytes
        self.streamed_bytes = self._model.streamed_bytes

    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Feed all `segments`; return float32 logits [segments that want them, vocab].

        The next call writes over them.
        """
        return torch.from_numpy(self._step(segments)[0])

    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """Feed all `segments`; return what gives the likeliest token of each that wants it."""
        return self._step(segments)[1].tolist

    def _step(self, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
        return self._model.step(*flatten(segments))

    def share(self, source: int, slot: int, tokens: int) -> None:
        """Have a slot hold the first `tokens` of another, whose whole pages it names already."""
        whole, rest = divmod(tokens, PAGE_TOKENS)
        if rest:
            self._copy(self._pages.table[source, whole:whole + 1],
                       self._pages.table[slot, whole:whole + 1])

    def forget(self, slot: int) -> None:
        """Release what a slot holds: its pages are used again, or given back with the last."""
        if (self.table < 0).all():
            self._pages.give_back()

    def fill(self, slots: Sequence[int], ids: Sequence[int]) -> None:
        """Put something into the first `len(ids)` positions of slots, to measure steps on."""
        self.forward([Segment(slots[0], 0, ids, False)])
        used = -(-len(ids) // PAGE_TOKENS)
        for slot in slots[1:]:
            self._copy(self._pages.table[slots[0], :used], self._pages.table[slot, :used])

    def _copy(self, source: np.ndarray, target: np.ndarray) -> None:
        for data in (self._pages.keys, self._pages.values):
            pages = data.reshape(self._layers, self._pages.pages, -1)
            pages[:, target] = pages[:, source]
