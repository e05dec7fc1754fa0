# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A model on the native kernels: weights, pages of keys and values, and steps."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
import ctypes

import numpy as np
from slice_ros.engine.models.architecture import Architecture
from slice_ros.engine.models.rope import query_scales
from slice_ros.engine.runners.native.adapter_packing import NO_ADAPTERS, PackedAdapters
from slice_ros.engine.runners.native.axis_rows import AxisRows
from slice_ros.engine.runners.native.kv_pages import KvPages
from slice_ros.engine.runners.native.layers import CLayers, experts_of, LayerWeights
from slice_ros.engine.runners.native.library import BEST, Cache, ERRORS, Layer, Library, Model
from slice_ros.engine.runners.native.packing import Packed
from slice_ros.engine.runners.runner import Inputs

# Rows of a pass: a chunk of 256 tokens beside 32 decodes takes one, of 512 two. With 256 rows the
# decodes, which come first, would push the end of a chunk into a pass of its own.
MAX_ROWS = 288
# Those of src/slice_kernels.h
ACTIVATIONS = {'silu': 0, 'gelu': 1, 'relu2': 2, 'clamped': 3}
_NORM_KINDS = {'rms': 0, 'layer': 1, 'biased': 2}


class NativeModel:
    """Runs any batch of tokens of any slots in one call. Not thread-safe.

    `cos` and `sin` [ropes, positions, rotary_dim / 2] are the rotary tables, scaled.
    `embedding` and `head` may be the same object. Raises ``ValueError`` when the parts do not fit
    each other.
    """

    def __init__(self, library: Library, made: Architecture, layers: Sequence[LayerWeights],
                 final_norm: np.ndarray, embedding: Packed, head: Packed, cos: np.ndarray,
                 sin: np.ndarray, cache: KvPages, threads: int, max_rows: int = MAX_ROWS,
                 isa: int = BEST, adapters: PackedAdapters = NO_ADAPTERS) -> None:
        self._runner = None
        self._library = library
        self.made = made
        self.cache = cache
        self.max_rows = max_rows
        self._alive = []  # objects that the C structures point to
        # Results of every step; a row takes memory from the system when it is first written.
        self._logits = np.empty((max_rows, made.vocabulary), np.float32)
        self._best = np.empty(max_rows, np.int32)
        self._logits_at, self._best_at = self._logits.ctypes.data, self._best.ctypes.data
        cos, sin = (np.ascontiguousarray(table, np.float32) for table in (cos, sin))
        if cos.ndim != 3 or cos.shape != sin.shape or len(cos) != len(made.ropes):
            raise ValueError(f'rotary tables of shapes {cos.shape} and {sin.shape}')
        made_layers = CLayers(made, self._alive)
        self._layers = (Layer * len(layers))(*map(made_layers.layer, layers, made.layers))
        self._alive += [layers, embedding, head, cos, sin, adapters]
        ropes, positions, half = cos.shape
        self._axes = AxisRows(cos[0], sin[0], made.ropes[0].axes, max_rows)
        model = Model(
            self._layers, made_layers.norm(final_norm), cos.ctypes.data,
            sin.ctypes.data, made_layers.vector(query_scales(made, positions), positions),
            embedding.matrix, head.matrix, adapters.low_rank, len(layers),
            made.hidden,
            made.heads, made.kv_heads, made.head_dim, 2 * half, made.intermediate,
            made.vocabulary, positions, ropes, ACTIVATIONS[made.activation], adapters.count,
            *experts_of(made), made.gated, made.qk_norm == 'all', made.qk_norm == 'own',
            made.qk_norm_last, _NORM_KINDS[made.norm], made.parallel, made.input_levels,
            made.norm_eps, made.attention_scale, made.attention_softcap, made.logit_softcap,
            made.embedding_scale, made.residual_scale, *made.clamp,
            made.experts.scale if made.experts else 1.0)
        slots, per_slot = cache.table.shape
        pages = Cache(cache.keys.ctypes.data, cache.values.ctypes.data, cache.table.ctypes.data,
                      slots, per_slot, cache.pages, cache.bits,
                      cache.states.ctypes.data if cache.states.size else None)
        self._runner = library.slice_runner_create(
            ctypes.byref(model), ctypes.byref(pages), threads, max_rows, isa)
        if not self._runner:
            raise ValueError('the native runner refused the model: its matrices do not fit its '
                             'shape, or memory or threads ran out')
        self.layer_bytes = Counter()  # of the matrices of the layers, by kind
        unread = 0   # by a step of one token: the other experts
        for layer in layers:
            pairs = {id(p): p for pair in layer.mlp for p in pair}.values()
            for packed in (*layer.mixer(), *(layer.shared or ()), *pairs):
                self.layer_bytes[packed.kind] += packed.nbytes
            if layer.router:
                share = 1 - made.experts.chosen / made.experts.count
                unread += int(share * sum(packed.nbytes for packed in pairs))
        self.weight_bytes = self.layer_bytes.total()
        # Of the embedding, only few rows are read.
        self.streamed_bytes = self.weight_bytes - unread + head.nbytes
        self.weight_bytes += adapters.nbytes
        self.weight_bytes += sum({id(p): p.nbytes for p in (embedding, head)}.values())

    def step(self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int],
             outputs: Sequence[int], states: np.ndarray | None = None,
             adapters: Sequence[int] | None = None, inputs: Inputs | None = None,
             rope_positions: np.ndarray | None = None, last_seen: np.ndarray | None = None
             ) -> tuple[np.ndarray, np.ndarray]:
        """Feed tokens[i] of slot slots[i] at positions[i]; return logits at indices `outputs`.

        Tokens of one slot must be neighbours, in order. Returns float32 logits [outputs,
        vocabulary], and the token of the largest, int32 [outputs]; the next step overwrites both.
        The inputs of the head are written to `states`, float32 [tokens, hidden] in one piece.
        Token i is computed with adapter adapters[i]; -1: with none; `inputs` has what some begin
        with instead of their embeddings, `rope_positions`, int32 [tokens, 3], what turns them, and
        `last_seen`, int32 [tokens], the position up to which each attends, of a token of its slot
        in this step; None: its own. More than `max_rows` tokens are run in several passes. Raises
        ``ValueError`` for tokens, slots, positions or pages that do not exist; that pass computes
        nothing.
        """
        if len(tokens) <= self.max_rows:
            count = self._pass(tokens, slots, positions, outputs, states, adapters,
                               inputs, rope_positions, last_seen)
            return self._logits[:count], self._best[:count]
        rows = len(tokens)
        if not rows == len(slots) == len(positions) or not all(
                0 <= row < rows for row in outputs):
            raise ValueError(f'{rows} tokens with {len(slots)} slots, {len(positions)} positions '
                             f'and the outputs {list(outputs)!r:.80}')
        logits = np.empty((len(outputs), self.made.vocabulary), np.float32)
        best = np.empty(len(outputs), np.int32)
        for first, end in passes(positions, last_seen, self.max_rows):
            part = slice(first, end)
            inside = [n for n, row in enumerate(outputs) if part.start <= row < part.stop]
            count = self._pass(tokens[part], slots[part], positions[part],
                               [outputs[n] - first for n in inside],
                               None if states is None else states[part],
                               None if adapters is None else adapters[part],
                               None if inputs is None else inputs._replace(row=inputs.row[part]),
                               None if rope_positions is None else rope_positions[part],
                               None if last_seen is None else last_seen[part])
            logits[inside], best[inside] = self._logits[:count], self._best[:count]
        return logits, best

    def close(self) -> None:
        """End the threads and release the work space; idempotent."""
        if self._runner:
            self._library.slice_runner_destroy(self._runner)
            self._runner = None

    def __del__(self) -> None:
        self.close()

    def _pass(self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int],
              outputs: Sequence[int], states: np.ndarray | None,
              adapters: Sequence[int] | None, inputs: Inputs | None,
              rope_positions: np.ndarray | None, last_seen: np.ndarray | None) -> int:
        """Run one pass into `_logits` and `_best`; return how many of their rows it wrote."""
        if not self._runner:
            raise ValueError('the model is closed')
        rows, count = len(tokens), len(outputs)
        if not rows == len(slots) == len(positions) or count > self.max_rows:
            raise ValueError(f'{rows} tokens with {len(slots)} slots, {len(positions)} positions '
                             f'and {count} outputs')
        if adapters is not None and len(adapters) != rows:
            raise ValueError(f'{rows} tokens with {len(adapters)} adapters')
        row, values = self._inputs(inputs, rows)
        turned = None if rope_positions is None else self._axes.rows(rope_positions, rows)
        if last_seen is not None:
            last_seen = np.ascontiguousarray(last_seen, np.int32)
            if last_seen.shape != (rows,):
                raise ValueError(f'{rows} tokens that attend up to {len(last_seen)} positions')
        # 32 bits everywhere
        numbers = array('i', [*tokens, *slots, *positions, *outputs, *(adapters or ())])
        at, size = numbers.buffer_info()[0], numbers.itemsize * rows
        error = self._library.slice_step(
            self._runner, rows, at, at + size, at + 2 * size, count, at + 3 * size,
            self._logits_at, self._best_at, None if states is None else states.ctypes.data,
            None if adapters is None else at + 3 * size + numbers.itemsize * count,
            None if row is None else row.ctypes.data, 0 if row is None else len(values),
            None if row is None else values.ctypes.data,
            None if turned is None else turned.ctypes.data,
            None if last_seen is None else last_seen.ctypes.data)
        if error:
            raise ValueError(f'the step was refused: {ERRORS.get(error, error)}')
        return count

    def _inputs(self, inputs: Inputs | None, rows: int
                ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Return inputs as the library reads them."""
        if inputs is None:
            return None, None
        row = np.ascontiguousarray(inputs.row, np.int32)
        values = np.ascontiguousarray(inputs.values, np.float32)
        width = self.made.hidden * (1 + self.made.input_levels)
        if row.shape != (rows,) or values.ndim != 2 or values.shape[1] != width:
            raise ValueError(f'{rows} tokens with inputs of shapes {row.shape} and {values.shape}')
        return row, values


def passes(positions: Sequence[int], last_seen: np.ndarray | None, most: int
           ) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of the rows of each pass, `most` at most.

    A row and all that it attends to, up to `last_seen`, are in one. Raises ``ValueError`` where
    they are too many.
    """
    rows, first = len(positions), 0
    reach = np.arange(rows)
    if last_seen is not None:
        reach += last_seen - np.asarray(positions)
    while first < rows:
        end = min(first + most, rows)
        ends, = np.nonzero(np.maximum.accumulate(reach[first:end]) <= np.arange(first, end))
        if not len(ends):
            raise ValueError(f'tokens that attend to each other do not fit a pass of {most}')
        yield first, first + int(ends[-1]) + 1
        first += int(ends[-1]) + 1
