# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The runner on the native kernels: one C call for each step.

It replaces `TorchRunner` where the library is available.
"""

from collections.abc import Callable, Sequence

import numpy as np
from slice_ros.engine.adapters.low_rank import Adapter
from slice_ros.engine.checkpoints.stored_weights import Rows
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.models.architecture import (
    Architecture, CHOICE_BIAS, CONV, DELTA_BIAS, DELTA_CONV, DELTA_DECAY, kept_layers, MAMBA,
    MAMBA_CONV, SHARED_GATE, SINKS)
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.models.recurrences import Delta, Mamba
from slice_ros.engine.models.rope import rope_tables
from slice_ros.engine.runners.native import ISAS, Library
from slice_ros.engine.runners.native.build import build_model
from slice_ros.engine.runners.native.model import MAX_ROWS
from slice_ros.engine.runners.native.packing import KEPT, KINDS
from slice_ros.engine.runners.runner import (
    adapters_of, flatten, inputs_of, last_seen_of, rope_positions_of, RunnerInfo, Segment)

WEIGHTS = (*KINDS, KEPT)
MAX_HEAD_DIM = 512   # kMaxHeadWidth and kMaxDeltaDim of src/
_MOST_SPACE = 1024   # kMaxMambaDim
_SPACE_STEP = 16     # SliceMamba
_DELTA_STEP = 32     # SliceDelta
_MOST_TAPS = 16      # kMaxTaps
_FLOATS = ('norm.weight', '.bias', CHOICE_BIAS, CONV, DELTA_CONV, DELTA_BIAS, DELTA_DECAY,
           f'{SHARED_GATE}.weight', f'{SINKS}.weight', f'{MAMBA_CONV}.weight',
           *(f'{MAMBA}.{name}' for name in ('A_log', 'D', 'dt_bias')))   # ends of names


def unsupported(made: Architecture, weights: str) -> str | None:
    """Return what the native kernels cannot run of a decoder, None if they can run it."""
    if weights not in WEIGHTS:
        return f'weights {weights}'
    if made.head_dim % 2 or made.head_dim > MAX_HEAD_DIM:
        return f'heads of {made.head_dim}'
    delta = made.recurrence
    if isinstance(delta, Delta) and not all(
            dim % _DELTA_STEP == 0 and dim <= MAX_HEAD_DIM
            for dim in (delta.key_dim, delta.value_dim)):
        return f'heads of {delta.key_dim} and {delta.value_dim} of a delta rule'
    if isinstance(delta, Mamba) and not all(
            dim % _SPACE_STEP == 0 and dim <= _MOST_SPACE
            for dim in (delta.head_dim, delta.state)):
        return f'heads of {delta.head_dim} and {delta.state} of a state space'
    if delta is not None and not 1 < delta.taps <= _MOST_TAPS:
        return f'a convolution over {delta.taps} tokens'
    return None


class StoredWeights:
    """Tensors of a checkpoint as `build_model` takes them."""

    def __init__(self, tensors: ModelTensors) -> None:
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Rows:
        if name.endswith(_FLOATS):
            return self._tensors.floats(name)
        return self._tensors.rows(name)

    def get(self, name: str) -> Rows | None:
        return self[name] if name in self else None


class NativeRunner:
    """A `Runner` that computes all segments, decodes and prefill chunks alike, in one C call.

    `progress` is called with the share of the weights that is packed, from 0 to 1; `isa` is one
    of `ISAS`; `kv_bits` are as in `build_model`. Raises ``KeyError`` for a missing tensor,
    ``ValueError`` for one that does not fit, or an instruction set that is not there.
    """

    def __init__(self, made: Architecture, tensors: ModelTensors, weights: str,
                 library: Library, table: np.ndarray, pages: int, max_context: int,
                 threads: int, progress: Callable[[float], None], isa: str = 'auto',
                 adapters: Sequence[Adapter] = (), kv_bits: int | None = None) -> None:
        if not library.has(ISAS[isa]):
            raise ValueError(f'isa {isa} is not in this processor or build, which has up to '
                             f"{library.isa_name()}: use 'auto'")
        # Behind the positions of texts, those of a pass that have three numbers.
        cos, sin = rope_tables(made, max_context + (MAX_ROWS if made.ropes[0].axes else 0))
        self._layers = kept_layers(made)
        self._model = build_model(
            library, made, StoredWeights(tensors), weights, cos, sin, table=table, pages=pages,
            threads=threads, isa=ISAS[isa], progress=progress, adapters=adapters,
            kv_bits=kv_bits)
        self._pages = self._model.cache
        self.memory = self._pages.memory(f'native {library.digest()}')
        self.info = RunnerInfo(
            path='flat batch', kernels=f'native {library.isa_name(ISAS[isa])}', pages=pages,
            weight_bytes=self._model.weight_bytes, streamed_bytes=self._model.streamed_bytes,
            kv_bytes=self._pages.nbytes, kv_bits=self._pages.bits, asynchronous=False,
            shares_prefixes=True, whole_prefixes=made.recurrence is not None,
            verifies=made.recurrence is None, hidden=made.hidden,
            adapters=tuple(a.name for a in adapters),
            weights='+'.join(kind for kind, _ in self._model.layer_bytes.most_common()))

    def forward(self, segments: Sequence[Segment], states: np.ndarray | None = None
                ) -> np.ndarray:
        """Return logits, which the next call overwrites; as `Runner.forward`."""
        return self._step(segments, states)[0]

    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """As `Runner.greedy`; the step is computed before this returns."""
        return self._step(segments, None)[1].tolist

    def _step(self, segments: Sequence[Segment], states: np.ndarray | None
              ) -> tuple[np.ndarray, np.ndarray]:
        return self._model.step(
            *flatten(segments), states, adapters_of(segments), inputs_of(segments),
            rope_positions_of(segments), last_seen_of(segments))

    def share(self, source: int, slot: int, tokens: int) -> None:
        """As `Runner.share`."""
        self._pages.states[:, slot] = self._pages.states[:, source]
        whole, rest = divmod(tokens, PAGE_TOKENS)
        if rest:
            self._copy(self._pages.table[source, whole:whole + 1],
                       self._pages.table[slot, whole:whole + 1])

    def forget(self, slot: int) -> None:
        """As `Runner.forget`: memory goes back to the system when no slot has a page."""
        if (self._pages.table < 0).all():
            self._pages.give_back()

    def fill(self, slots: Sequence[int], ids: Sequence[int]) -> None:
        """As `Runner.fill`: `ids` are fed to the first slot, and its pages copied."""
        self.forward([Segment(slots[0], 0, ids, False)])
        used = -(-len(ids) // PAGE_TOKENS)
        for slot in slots[1:]:
            self._copy(self._pages.table[slots[0], :used], self._pages.table[slot, :used])

    def _copy(self, source: np.ndarray, target: np.ndarray) -> None:
        for data in (self._pages.keys, self._pages.values):
            pages = data.reshape(self._layers, self._pages.pages, -1)
            pages[:, target] = pages[:, source]
