# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A model on the native kernels: weights, pages of keys and values, and steps."""

from array import array
from collections import Counter
from collections.abc import Sequence
import ctypes
from dataclasses import dataclass
import mmap

import numpy as np
from slice_ros.engine.models.architecture import Architecture, Layer as DecoderLayer, NORMS
from slice_ros.engine.runners.native.library import BEST, Cache, ERRORS, Layer, Library, Model
from slice_ros.engine.runners.native.packing import Packed

# Rows of a pass: a chunk of 256 tokens beside 32 decodes takes one, of 512 two. With 256 rows the
# decodes, which come first, would push the end of a chunk into a pass of its own.
MAX_ROWS = 288
ACTIVATIONS = {'silu': 0, 'gelu': 1}   # those of src/slice_kernels.h


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer; norms are float32, None where there is none."""

    qkv: Packed                          # query heads, then key heads, then value heads
    attention_out: Packed
    gate_up: Packed                      # packed from packing.Interleaved
    down: Packed
    attention_norm: np.ndarray | None = None      # [hidden]
    attention_out_norm: np.ndarray | None = None  # [hidden]
    mlp_norm: np.ndarray | None = None            # [hidden]
    mlp_out_norm: np.ndarray | None = None        # [hidden]
    query_norm: np.ndarray | None = None          # [head_dim], or of all heads together
    key_norm: np.ndarray | None = None


class KvPages:
    """Keys and values of all slots in 16 bit floats, 32 if `wide`, in pages of 32 tokens.

    `table` is the page table [slots, pages of a slot], int32, which `Slots` changes in place: the
    page of each 32 positions of a slot, -1 for none. Two slots may name the same page for a
    prefix that they share, as long as neither writes to it. Memory is taken from the system when
    it is first written.
    """

    def __init__(self, library: Library, made: Architecture, table: np.ndarray, pages: int,
                 wide: bool = False) -> None:
        self.pages, self.table = pages, table
        self.wide = wide
        nbytes = len(made.layers) * self.pages * library.slice_page_bytes(
            wide, made.kv_heads, made.head_dim)
        self._memory = [mmap.mmap(-1, nbytes) for _ in range(2)]
        self.keys, self.values = (np.frombuffer(memory, np.uint8) for memory in self._memory)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def give_back(self) -> None:
        """Return the memory of all pages to the system; their contents are lost."""
        if hasattr(mmap, 'MADV_REMOVE'):
            for memory in self._memory:
                try:
                    memory.madvise(mmap.MADV_REMOVE)
                except OSError:
                    pass  # not supported by this kernel: the memory is kept for later requests


class NativeModel:
    """Runs any batch of tokens of any slots in one call. Not thread-safe.

    `cos` and `sin` [ropes, positions, rotary_dim / 2] are the rotary tables, scaled.
    `embedding` and `head` may be the same object. Raises ``ValueError`` when the parts do not fit
    each other.
    """

    def __init__(self, library: Library, made: Architecture, layers: Sequence[LayerWeights],
                 final_norm: np.ndarray, embedding: Packed, head: Packed, cos: np.ndarray,
                 sin: np.ndarray, cache: KvPages, threads: int, max_rows: int = MAX_ROWS,
                 isa: int = BEST) -> None:
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
        cos, sin = self._floats(cos), self._floats(sin)
        if cos.ndim != 3 or cos.shape != sin.shape or len(cos) != len(made.ropes):
            raise ValueError(f'rotary tables of shapes {cos.shape} and {sin.shape}')
        self._layers = (Layer * len(layers))(*map(self._layer, layers, made.layers))
        self._alive += [layers, embedding, head, cos, sin]
        ropes, positions, half = cos.shape
        model = Model(
            self._layers, self._vector(final_norm, made.hidden), cos.ctypes.data,
            sin.ctypes.data, embedding.matrix, head.matrix, len(layers), made.hidden,
            made.heads, made.kv_heads, made.head_dim, 2 * half, made.intermediate,
            made.vocabulary, positions, ropes, ACTIVATIONS[made.activation],
            made.qk_norm == 'all', made.norm_eps, made.attention_scale, made.attention_softcap,
            made.logit_softcap, made.embedding_scale, made.residual_scale)
        slots, per_slot = cache.table.shape
        pages = Cache(cache.keys.ctypes.data, cache.values.ctypes.data, cache.table.ctypes.data,
                      slots, per_slot, cache.pages, cache.wide)
        self._runner = library.slice_runner_create(
            ctypes.byref(model), ctypes.byref(pages), threads, max_rows, isa)
        if not self._runner:
            raise ValueError('the native runner refused the model: its matrices do not fit its '
                             'shape, or memory or threads ran out')
        self.layer_bytes = Counter()  # of the matrices of the layers, by kind
        for packed in {id(p): p for layer in layers for p in (
                layer.qkv, layer.attention_out, layer.gate_up, layer.down)}.values():
            self.layer_bytes[packed.kind] += packed.nbytes
        self.weight_bytes = self.layer_bytes.total()
        self.streamed_bytes = self.weight_bytes + head.nbytes  # of the embedding only few rows
        self.weight_bytes += sum({id(p): p.nbytes for p in (embedding, head)}.values())

    def step(self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int],
             outputs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Feed tokens[i] of slot slots[i] at positions[i]; return logits at indices `outputs`.

        Tokens of one slot must be neighbours, in order. Returns float32 logits [outputs,
        vocabulary], and the token of the largest, int32 [outputs]; the next step overwrites both.
        More than `max_rows` tokens are run in several passes. Raises ``ValueError`` for tokens,
        slots, positions or pages that do not exist; that pass computes nothing.
        """
        if len(tokens) <= self.max_rows:
            count = self._pass(tokens, slots, positions, outputs)
            return self._logits[:count], self._best[:count]
        rows = len(tokens)
        if not rows == len(slots) == len(positions) or not all(
                0 <= row < rows for row in outputs):
            raise ValueError(f'{rows} tokens with {len(slots)} slots, {len(positions)} positions '
                             f'and the outputs {list(outputs)!r:.80}')
        logits = np.empty((len(outputs), self.made.vocabulary), np.float32)
        best = np.empty(len(outputs), np.int32)
        for first in range(0, len(tokens), self.max_rows):
            part = slice(first, first + self.max_rows)
            inside = [n for n, row in enumerate(outputs) if part.start <= row < part.stop]
            count = self._pass(tokens[part], slots[part], positions[part],
                               [outputs[n] - first for n in inside])
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
              outputs: Sequence[int]) -> int:
        """Run one pass into `_logits` and `_best`; return how many of their rows it wrote."""
        if not self._runner:
            raise ValueError('the model is closed')
        rows, count = len(tokens), len(outputs)
        if not rows == len(slots) == len(positions) or count > self.max_rows:
            raise ValueError(f'{rows} tokens with {len(slots)} slots, {len(positions)} positions '
                             f'and {count} outputs')
        numbers = array('i', [*tokens, *slots, *positions, *outputs])  # 32 bits everywhere
        at, size = numbers.buffer_info()[0], numbers.itemsize * rows
        error = self._library.slice_step(
            self._runner, rows, at, at + size, at + 2 * size, count, at + 3 * size,
            self._logits_at, self._best_at)
        if error:
            raise ValueError(f'the step was refused: {ERRORS.get(error, error)}')
        return count

    def _layer(self, layer: LayerWeights, kind: DecoderLayer) -> Layer:
        made = self.made
        queries, keys = (made.head_dim * (n if made.qk_norm == 'all' else 1)
                         for n in (made.heads, made.kv_heads))
        return Layer(
            *(self._vector(getattr(layer, norm), made.hidden) for norm in NORMS),
            self._vector(layer.query_norm, queries), self._vector(layer.key_norm, keys),
            -1 if kind.rope is None else kind.rope, kind.window or 0, layer.qkv.matrix,
            layer.attention_out.matrix, layer.gate_up.matrix, layer.down.matrix)

    def _floats(self, array: np.ndarray) -> np.ndarray:
        array = np.ascontiguousarray(array, np.float32)
        self._alive.append(array)
        return array

    def _vector(self, array: np.ndarray | None, size: int) -> int | None:
        if array is None:
            return None
        if np.shape(array) != (size,):
            raise ValueError(f'a norm of shape {np.shape(array)} where {size} are wanted')
        return self._floats(array).ctypes.data
