# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""From named weights to a ``NativeModel``."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from slice_ros.engine.adapters.low_rank import Adapter
from slice_ros.engine.checkpoints.stored_weights import Rows
from slice_ros.engine.models.architecture import (
    Architecture, CHOICE_BIAS, CONV, CONV_IN, CONV_OUT, DELTA_BIAS, DELTA_CONV, DELTA_DECAY,
    DELTA_IN, DELTA_NORM, DELTA_OUT, DELTA_RATES, DOWN, EMBEDDING, expert_part, FINAL_NORM,
    GATE_UP, GATES, HEAD, layer_name, MAMBA, MAMBA_CONV, MAMBA_IN, MAMBA_NORM, MAMBA_OUT,
    MAMBA_RATES, mlp_parts, NORMS, OUT, QK_NORMS, QKV, ROUTER, SHARED_GATE, shared_part, SINKS)
from slice_ros.engine.models.part_shapes import absent_parts
from slice_ros.engine.models.recurrences import Delta, Mamba, ShortConv
from slice_ros.engine.runners.native.adapter_packing import pack_adapters
from slice_ros.engine.runners.native.arena import Arena
from slice_ros.engine.runners.native.kv_pages import kv_bits_of, KvPages
from slice_ros.engine.runners.native.layers import (
    DeltaWeights, LayerWeights, MambaWeights, ShortConvWeights)
from slice_ros.engine.runners.native.library import BEST, Library
from slice_ros.engine.runners.native.model import MAX_ROWS, NativeModel
from slice_ros.engine.runners.native.packing import Interleaved, pack, Packed


class _Packer:
    """Packs tensors into matrices of one arena."""

    def __init__(self, library: Library, made: Architecture, tensors: Mapping[str, Rows],
                 weights: str, workers: ThreadPoolExecutor) -> None:
        self._library, self._made, self._tensors = library, made, tensors
        self._weights = weights
        self._arena, self._workers = Arena(), workers

    def layer(self, number: int) -> LayerWeights:
        """Return the weights of a layer."""
        made, tensors = self._made, self._tensors

        def at(part: str) -> str:
            return layer_name(number, part)
        kind, out, vectors = made.layers[number], OUT, {}
        absent = absent_parts(made, kind)
        mixer = {'recurrence': self._recurrence(number) if kind.recurrent else None, 'qkv': None,
                 'attention_out': None}
        if kind.attends:
            parts = (*QKV, GATES) if made.gated else QKV
            mixer['qkv'] = self._matrix(*map(at, parts))
            if made.qk_norm:
                vectors |= dict(zip(('query_norm', 'key_norm'), QK_NORMS))
            if made.sinks:
                vectors['sinks'] = SINKS
        elif kind.recurrent:
            out = {Delta: DELTA_OUT, ShortConv: CONV_OUT}.get(type(made.recurrence))
        if kind.mixes and out is not None:
            mixer['attention_out'] = self._matrix(at(out))
        return LayerWeights(
            **mixer,
            **self._mlp(number),
            **{norm: self.norm(at(norm)) for norm in NORMS
               if norm in made.norms and norm not in absent},
            **{name: tensors[f'{at(part)}.weight'] for name, part in vectors.items()})

    def norm(self, name: str, scale: float = 1.0) -> np.ndarray:
        """Return the weights of a norm times `scale`, and its biases behind them."""
        kinds = ('weight', 'bias') if self._made.norm == 'biased' else ('weight',)
        return np.concatenate([self._tensors[f'{name}.{kind}'] for kind in kinds]) * np.float32(
            scale)

    def _recurrence(self, number: int) -> DeltaWeights | ShortConvWeights | MambaWeights:
        def of(name: str) -> np.ndarray:
            return self._tensors[layer_name(number, name)]
        if isinstance(self._made.recurrence, Mamba):
            return self._mamba(number)
        if not isinstance(self._made.recurrence, Delta):
            conv = of(CONV)
            return ShortConvWeights(self._matrix(layer_name(number, CONV_IN)),
                                    conv.reshape(len(conv), -1).T)
        rates = [of(f'{part}.weight') for part in DELTA_RATES]
        conv, decay = of(DELTA_CONV), of(DELTA_DECAY)
        return DeltaWeights(
            in_=self._matrix(*(layer_name(number, part) for part in DELTA_IN)),
            rates=pack(self._library, 'fp32', rates, None, self._arena),
            conv=conv.reshape(len(conv), -1).T,
            decay=decay if self._made.recurrence.flat else -np.exp(decay), bias=of(DELTA_BIAS),
            norm=of(DELTA_NORM))

    def _mamba(self, number: int) -> MambaWeights:
        tensors, rule = self._tensors, self._made.recurrence

        def at(part: str) -> str:
            return layer_name(number, part)
        conv, decay = tensors[at(f'{MAMBA_CONV}.weight')], tensors[at(f'{MAMBA}.A_log')]
        return MambaWeights(
            in_=self._matrix(*map(at, MAMBA_IN)), out=self._matrix(at(MAMBA_OUT)),
            rates=pack(self._library, 'fp32', [tensors[at(f'{MAMBA_RATES}.weight')]],
                       tensors.get(at(f'{MAMBA_RATES}.bias')), self._arena),
            conv=conv.reshape(len(conv), -1).T,
            conv_bias=tensors.get(at(f'{MAMBA_CONV}.bias')),
            decay=decay if rule.flat else -np.exp(decay), bias=tensors[at(f'{MAMBA}.dt_bias')],
            skip=tensors[at(f'{MAMBA}.D')],
            norm=tensors[at(f'{MAMBA_NORM}.weight')] if rule.norm_parts else None)

    def _mlp(self, number: int) -> dict:
        """Return what `LayerWeights` has of MLP and experts."""
        made = self._made
        if not made.layers[number].mlp:
            return {'mlp': ()}
        if not made.layers[number].sparse:
            return {'mlp': (self._pair(lambda part: layer_name(number, part)),)}
        router = f'{layer_name(number, ROUTER)}'
        scores = [self._tensors[f'{router}.weight']]
        found = {'mlp': tuple(self._pair(lambda part, expert=expert: layer_name(
            number, expert_part(expert, part))) for expert in range(made.experts.count))}
        if made.experts.shared:
            found['shared'] = self._pair(lambda part: layer_name(number, shared_part(part)))
        if made.experts.shared_gate:
            gate = self._tensors[f'{layer_name(number, SHARED_GATE)}.weight']
            scores.append(gate.reshape(1, made.hidden))
        if made.experts.sigmoid:
            found['choice_bias'] = self._tensors[f'{router}.{CHOICE_BIAS}']
        return found | {'router': pack(self._library, 'fp32', scores,
                                       self._tensors.get(f'{router}.bias'), self._arena)}

    def _pair(self, at: Callable[[str], str]) -> tuple[Packed, Packed]:
        parts = mlp_parts(self._made)
        joined = self._gate_up if parts == GATE_UP else self._matrix
        return joined(*map(at, parts)), self._matrix(at(DOWN))

    def outer(self, name: str) -> Packed:
        """Return the embedding or the head."""
        rows = self._tensors[name]
        kept = getattr(rows, 'kind', None) == 'int4'
        kind = 'int8' if self._weights == 'int4' and not kept else self._weights
        return pack(self._library, kind, [rows], None, self._arena, self._workers)

    def _matrix(self, *names: str) -> Packed:
        biases = [self._tensors.get(f'{name}.bias') for name in names]
        parts = [self._tensors[f'{name}.weight'] for name in names]
        bias = None
        if any(b is not None for b in biases):
            bias = np.concatenate([np.zeros(part.shape[0], np.float32) if b is None else b
                                   for part, b in zip(parts, biases)])
        return pack(self._library, self._weights, parts, bias, self._arena, self._workers)

    def _gate_up(self, gate: str, up: str) -> Packed:
        tensors = self._tensors
        weight = Interleaved(tensors[f'{gate}.weight'], tensors[f'{up}.weight'])
        bias = None
        if f'{gate}.bias' in tensors:
            both = Interleaved(tensors[f'{gate}.bias'][:, None], tensors[f'{up}.bias'][:, None])
            bias = both.rows(slice(None))[:, 0]
        return pack(self._library, self._weights, [weight], bias, self._arena, self._workers)


def build_model(library: Library, made: Architecture, tensors: Mapping[str, Rows], weights: str,
                cos: np.ndarray, sin: np.ndarray, *, table: np.ndarray, pages: int,
                threads: int, max_rows: int = MAX_ROWS, isa: int = BEST,
                adapters: Sequence[Adapter] = (), kv_bits: int | None = None,
                progress: Callable[[float], None] = lambda share: None) -> NativeModel:
    """Pack `tensors` (names of `architecture`; arrays, codes or stored rows); return the model.

    `weights` is 'fp32', 'fp16', 'bf16', 'int8', 'int4' or `packing.KEPT`. With 'int4' the
    embedding and the head have 8 bits, because each token depends on them directly, unless the
    file has them in 4. Codes of a GGUF file are copied unchanged where `weights` is their format.
    Keys and values have `kv_bits`, by default those of `kv_bits_of`; `table` is the page table
    [slots, pages of a slot], int32, over `pages` pages. The head is the embedding where
    'lm_head.weight' is missing. `cos` and `sin` are as `rope.rope_tables` returns them. Adapters
    have 16 bits, 32 with 'fp32'.
    Raises ``KeyError`` for a missing tensor, ``ValueError`` for one that does not fit.
    """
    built = []
    with ThreadPoolExecutor(max(threads, 1)) as workers:
        packer = _Packer(library, made, tensors, weights, workers)
        for number in range(len(made.layers)):
            built.append(packer.layer(number))
            progress((number + 1) / (len(made.layers) + 1))
        embedding = packer.outer(f'{EMBEDDING}.weight')
        head = packer.outer(f'{HEAD}.weight') if f'{HEAD}.weight' in tensors else embedding
    cache = KvPages(library, made, table, pages, kv_bits or kv_bits_of('auto', weights))
    # What scales the logits scales the input of the head, and is exact there.
    final_norm = packer.norm(FINAL_NORM, made.logit_scale)
    added = pack_adapters(library, made, adapters, 'fp32' if weights == 'fp32' else 'fp16')
    return NativeModel(library, made, built, final_norm, embedding, head, cos, sin, cache, threads,
                       max_rows, isa, added)
