# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The forward pass on a GPU: steps are recorded once for each size, and replayed.

A replay reads token ids, positions and pages from a buffer with a fixed address. So a step costs
one copy to the device and one launch, for any requests. Steps with long or several prefill chunks
launch the same kernels one by one. The device never waits for the host in either.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
import logging
import math

import numpy as np
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.models.architecture import Architecture
from slice_ros.engine.runners.cuda.failure import cuda_failure
from slice_ros.engine.runners.cuda.recorded import Recorded, Recorder
from slice_ros.engine.runners.fetch import fetch
from slice_ros.engine.runners.runner import adapters_of, flatten, Segment
from slice_ros.engine.runners.torch.batch import Batch
from slice_ros.engine.runners.torch.torch_runner import TorchRunner
from slice_ros.engine.runners.torch.weights import DecoderWeights
import torch
from torch.nn import functional as F

logger = logging.getLogger(__name__)

_PROGRAMS = 2         # of attention at least, for each processor of the GPU
_CHUNKS = (16, 64)    # recorded prefill tokens beside decodes: the end of a prompt, a chunk
_MOST_SPLITS = 32
_TOLERANCE = 0.1      # relative: rounding gives 0.01 to 0.03 in 16 bits, wrong logits above 1
_CHECKED = 150        # cached tokens of the steps that are checked: several tiles of keys


class GraphRunner(TorchRunner):
    """A `Runner` that replays a recorded graph for decodes, alone or beside one short chunk.

    Raises ``ValueError`` when the logits differ from those of `TorchRunner`, and lets errors of
    the device through; `gpu_runner` falls back to `TorchRunner` then.
    """

    def __init__(self, weights: DecoderWeights, cache: KvCache, max_batch: int) -> None:
        super().__init__(weights, cache)
        lacking = _lacking(weights.made)
        if lacking:
            raise ValueError(f'the GPU kernels have no {lacking}')
        from slice_ros.engine.runners.cuda import kernels  # Triton need not be installed
        self._kernels = kernels
        cuda = self.device.type == 'cuda'
        programs = _PROGRAMS * (
            torch.cuda.get_device_properties(self.device).multi_processor_count if cuda else 1)
        # One stream for all sizes: libraries allocate a work space for each stream.
        recorder = Recorder(self.compute, torch.cuda.graph_pool_handle() if cuda else None,
                            torch.cuda.Stream() if cuda else None)

        def recorded(rows: int, chunk: int = 0) -> Recorded:
            each = programs // (rows * weights.made.kv_heads)
            return Recorded(recorder, cache, rows, chunk,
                            min(1 << max(each - 1, 0).bit_length(), _MOST_SPLITS))
        sizes = [1 << n for n in range(max_batch.bit_length()) if 1 << n < max_batch]
        with torch.inference_mode():
            # The largest first: the smaller ones reuse its memory.
            self._mixed = [recorded(max_batch, chunk) for chunk in reversed(_CHUNKS)]
            self._recorded = [recorded(rows) for rows in (max_batch, *reversed(sizes))]
        self._mixed.reverse()
        self._recorded.reverse()
        self._check()
        self.info = replace(self.info, kernels=f'{weights.linears} linears, Triton attention, '
                                               'CUDA graphs')

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment], states: np.ndarray | None = None
                ) -> torch.Tensor:
        """Return logits, which the next call overwrites; as `Runner.forward`."""
        # Embeddings, adapters and images: no graph is recorded for them.
        if states is not None or _needs_plain(segments):
            return super().forward(segments, states)
        recorded = self._replayed(segments)
        return self._launched(segments) if recorded is None else recorded.logits(segments)

    @torch.inference_mode()
    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """As `Runner.greedy`."""
        if _needs_plain(segments):
            return super().greedy(segments)
        recorded = self._replayed(segments)
        return fetch(self._launched(segments).argmax(-1) if recorded is None
                     else recorded.tokens(segments))

    def _replayed(self, segments: Sequence[Segment]) -> Recorded | None:
        """Replay a step, and return what was recorded; None if nothing of its size was."""
        decodes = [s for s in segments if len(s.ids) == 1]
        chunks = [s for s in segments if len(s.ids) > 1]
        found = next((r for r in (self._mixed if chunks else self._recorded)
                      if r.fits(decodes, chunks)), None)
        if found is not None:
            found.run(segments)
        return found

    def _fitting(self, rows: int) -> Recorded:
        return next((r for r in self._recorded if r.rows >= rows), self._recorded[-1])

    def _launched(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Feed prefill chunks and decodes in one pass that is not recorded.

        Attention of all decodes is one call of the kernel of recorded steps; that of each chunk
        is torch's.
        """
        order = sorted(range(len(segments)), key=lambda i: len(segments[i].ids) > 1)
        decodes = [segments[i] for i in order if len(segments[i].ids) == 1]
        chunks = [segments[i] for i in order[len(decodes):]]
        *numbers, last = flatten(decodes + chunks)
        last = [at for _, at in sorted(zip((i for i in order if segments[i].wants_logits), last))]
        # One copy to the device: a later one would wait for the layers in between.
        batch = Batch(self.cache, len(numbers[0]), len(segments), self.device)
        batch.set(*numbers, last, [s.slot for s in decodes + chunks])
        first, kernels, cache = len(decodes), self._kernels, self.cache.data
        # The splits of recorded steps: other numbers would have to be compiled now.
        splits = self._fitting(first).splits
        attend_chunks = self.attention.prepare(chunks, batch.pages[first:])

        def attend(layer: int, queries: torch.Tensor) -> torch.Tensor:
            out = []
            if decodes:
                out.append(kernels.attend(queries[:first], cache[layer], batch.positions[:first],
                                          batch.pages[:first], splits))
            if chunks:
                out.append(attend_chunks(layer, queries[first:]))
            return out[0] if len(out) == 1 else torch.cat(out)

        x = self._layers(batch, attend)
        return self.weights.head(x[batch.last]).float() if last else x.new_empty(0, 0)

    def compute(self, step: Recorded) -> torch.Tensor:
        """Compute a step; return float32 logits [rows, vocab], and one more of its chunk.

        Nothing in it depends on the numbers in its batch, so that it can be recorded.
        """
        kernels, cache, batch, rows = self._kernels, self.cache.data, step.batch, step.rows

        def attend(layer: int, queries: torch.Tensor) -> torch.Tensor:
            out = kernels.attend(queries[:rows], cache[layer], batch.positions[:rows],
                                 batch.pages[:rows], step.splits)
            if not step.chunk:
                return out
            return torch.cat((out, kernels.attend_chunk(
                queries[rows:], cache[layer], batch.positions[rows:], batch.pages[rows])))
        x = self._layers(batch, attend)
        return self.weights.head(x[batch.last] if step.chunk else x).float()

    def _layers(self, batch: Batch, attend: Callable[[int, torch.Tensor], torch.Tensor]
                ) -> torch.Tensor:
        """Return the input of the head, [tokens, hidden]."""
        w, cache, kernels = self.weights, self.cache.data, self._kernels
        (cos, sin), eps = w.ropes[0], w.made.norm_eps
        h = w.embedding[batch.ids].to(w.norm.dtype)
        x = F.rms_norm(h, h.shape[1:], w.layers[0].attention_norm, eps)
        for i, layer in enumerate(w.layers):
            queries = kernels.rope_and_store(
                layer.qkv(x), cos, sin, batch.positions, batch.places, cache[i], w.made.heads)
            x = layer.output(attend(i, queries))
            (gate_up, down), = layer.mlp
            x = gate_up(kernels.add_and_norm(h, x, layer.mlp_norm, eps))
            x = down(kernels.silu_and_mul(x))
            after = w.layers[i + 1].attention_norm if i + 1 < len(w.layers) else w.norm
            x = kernels.add_and_norm(h, x, after, eps)
        return x

    @torch.inference_mode()
    def _check(self) -> None:
        """Raise ``ValueError`` when logits of a prefill or a step differ from `TorchRunner`'s."""
        behind = min(_CHECKED, len(self.weights.ropes[0][0]) - 2)
        # The first slot has the first pages, in reverse order.
        pages = np.arange(behind // PAGE_TOKENS, -1, -1)
        self.cache.table[0, :len(pages)] = pages
        ids = [1 + n % 7 for n in range(behind)]
        chunk = Segment(0, 0, ids[:-1], False), Segment(0, behind - 2, ids[-2:], True)
        row = Segment(0, behind, [1], True)
        wanted = [super(GraphRunner, self).forward([s]).clone() for s in (*chunk, row)]
        self.forward(chunk[:1])
        for recorded in self._mixed:
            recorded.run([row, chunk[1]])
            _compare(recorded.logits([row, chunk[1]]), torch.cat((wanted[2], wanted[1])),
                     'a recorded step with a prefill')
        for recorded in self._recorded:  # copies of one row write the same to the cache
            _compare(self.forward([row] * recorded.rows), wanted[2], 'a recorded step')


def _needs_plain(segments: Sequence[Segment]) -> bool:
    return adapters_of(segments) is not None or any(
        [s.inputs or s.rope_positions is not None for s in segments])


def _compare(found: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    if not float((found - wanted).norm(dim=-1).max() / wanted.norm()) <= _TOLERANCE:
        raise ValueError(f'{what} gives other logits than the plain pass')


def _lacking(made: Architecture) -> str | None:
    """Return what the kernels of this room do not compute of a decoder, None if all."""
    needs = {
        'experts': made.experts is not None,
        'layer norms': made.norm != 'rms',
        'attention and MLP side by side': made.parallel,
        'attention sinks': made.sinks,
        'queries that grow with their position': bool(made.query_growth),
        'norms behind attention and MLP': set(made.norms) != {'attention_norm', 'mlp_norm'},
        'norms of queries and keys': bool(made.qk_norm),
        'sliding windows': any(layer.window for layer in made.layers),
        'layers without rope, or with several ropes':
            any(layer.rope is None for layer in made.layers) or len(made.ropes) > 1,
        'rope of a part of a head': 2 * len(made.ropes[0].frequencies) != made.head_dim,
        f'activation {made.activation}': made.activation != 'silu',
        'scaled attention': not math.isclose(made.attention_scale, made.head_dim ** -0.5),
        'scaled embeddings, residuals or logits':
            (made.embedding_scale, made.residual_scale, made.logit_scale) != (1, 1, 1),
        'limited logits': made.logit_softcap or made.attention_softcap}
    return next((what for what, needed in needs.items() if needed), None)


def gpu_runner(weights: DecoderWeights, cache: KvCache, max_batch: int) -> TorchRunner:
    """Return a `GraphRunner` if that works on this GPU, else a `TorchRunner`.

    `cache` must be empty: the check writes to it. Raises ``RuntimeError`` when CUDA has failed for
    good.
    """
    # cuDNN plans each new length of a prompt, which takes much longer than running it.
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        return GraphRunner(weights, cache, max_batch)
    except Exception as error:  # no Triton, an unknown GPU, too little memory, other logits
        failure = cuda_failure(cache.data.device.type)
        if failure is not None:
            raise RuntimeError(failure) from error
        logger.warning('decode steps are not recorded (%s): they run kernel by kernel', error)
        return TorchRunner(weights, cache)
