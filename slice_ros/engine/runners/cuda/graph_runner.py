# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The forward pass on a GPU: decode steps are recorded once for each batch size, and replayed.

A replay reads token ids, positions and pages from a buffer with a fixed address. So a step costs
one copy to the device and one launch, for any requests. Steps with prefill chunks launch the same
kernels one by one. The device never waits for the host in either.
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
from slice_ros.engine.runners.fetch import fetch
from slice_ros.engine.runners.runner import flatten, Segment
from slice_ros.engine.runners.torch.batch import Batch
from slice_ros.engine.runners.torch.torch_runner import TorchRunner
from slice_ros.engine.runners.torch.weights import DecoderWeights
import torch
from torch.nn import functional as F

logger = logging.getLogger(__name__)

_PROGRAMS = 2         # of attention at least, for each processor of the GPU
_MOST_SPLITS = 32
_TOLERANCE = 0.1      # relative: rounding gives 0.01 to 0.03 in 16 bits, wrong logits above 1
_CHECKED = 150        # cached tokens of the steps that are checked: several tiles of keys


class _Recorded:
    """Buffer and graph of decode steps with up to `rows` requests."""

    def __init__(self, runner: 'GraphRunner', rows: int, warm: 'torch.cuda.Stream | None') -> None:
        self.rows = rows
        programs = runner.programs // (rows * runner.weights.made.kv_heads)
        self.splits = min(1 << max(programs - 1, 0).bit_length(), _MOST_SPLITS)
        # Unused rows feed token 0 to the first place of the scratch page.
        self._batch = Batch(runner.cache, rows, rows, runner.device, pinned=warm is not None)
        self._batch.set([], [], [], [], [])
        self._graph = self._copied = None
        if warm is not None:
            self._record(runner, warm)

    def _record(self, runner: 'GraphRunner', warm: 'torch.cuda.Stream') -> None:
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            for _ in range(2):  # compiles the kernels; libraries allocate their work space
                runner.decode(self._batch, self.splits).argmax(-1)
        torch.cuda.current_stream().wait_stream(warm)
        self._copied = torch.cuda.Event(blocking=True)  # sleeps: else a core spins
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: work of other threads on the device is not recorded.
        with torch.cuda.graph(self._graph, pool=runner.pool, capture_error_mode='thread_local'):
            self._compute(runner)

    def _compute(self, runner: 'GraphRunner') -> None:
        self.logits = runner.decode(self._batch, self.splits)
        self.tokens = self.logits.argmax(-1)

    def run(self, runner: 'GraphRunner', segments: Sequence[Segment]) -> None:
        """Feed one token of each segment; results are in the first rows of `logits`, `tokens`."""
        if self._copied is not None:
            self._copied.synchronize()  # the last copy may still read the buffer
        slots = [s.slot for s in segments]
        self._batch.set([s.ids[0] for s in segments], slots, [s.start for s in segments], [],
                        slots)
        if self._graph is None:  # no GPU, as in tests: the same step, kernel by kernel
            self._compute(runner)
        else:
            self._copied.record()
            self._graph.replay()


class GraphRunner(TorchRunner):
    """A `Runner` that replays a recorded graph for a step of decodes alone.

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
        self.programs = _PROGRAMS * (
            torch.cuda.get_device_properties(self.device).multi_processor_count if cuda else 1)
        self.pool = torch.cuda.graph_pool_handle() if cuda else None
        # One stream for all sizes: libraries allocate a work space for each stream.
        warm = torch.cuda.Stream() if cuda else None
        sizes = [1 << n for n in range(max_batch.bit_length()) if 1 << n < max_batch]
        with torch.inference_mode():
            # The largest first: the smaller ones reuse its memory.
            self._recorded = [_Recorded(self, rows, warm)
                              for rows in [max_batch, *reversed(sizes)]]
        self._recorded.reverse()
        self._check()
        self.info = replace(self.info, kernels=f'{weights.linears} linears, Triton attention, '
                                               'CUDA graphs')

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Return logits, which the next call overwrites; as `Runner.forward`."""
        recorded = self._replayed(segments)
        return self._launched(segments) if recorded is None else recorded.logits[:len(segments)]

    @torch.inference_mode()
    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """As `Runner.greedy`."""
        recorded = self._replayed(segments)
        return fetch(self._launched(segments).argmax(-1) if recorded is None
                     else recorded.tokens[:len(segments)])

    def _replayed(self, segments: Sequence[Segment]) -> _Recorded | None:
        """Replay a step of decodes; None if there are chunks or too many segments."""
        recorded = self._fitting(len(segments))
        if recorded.rows < len(segments) or not all(
                len(s.ids) == 1 and s.wants_logits for s in segments):
            return None
        recorded.run(self, segments)
        return recorded

    def _fitting(self, rows: int) -> _Recorded:
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

    def decode(self, batch: Batch, splits: int) -> torch.Tensor:
        """Feed one token of each request; return float32 logits [requests, vocab].

        Nothing in it depends on the numbers in `batch`, so that it can be recorded.
        """
        kernels, cache = self._kernels, self.cache.data
        return self.weights.head(self._layers(
            batch, lambda layer, queries: kernels.attend(
                queries, cache[layer], batch.positions, batch.pages, splits))).float()

    def _layers(self, batch: Batch, attend: Callable[[int, torch.Tensor], torch.Tensor]
                ) -> torch.Tensor:
        """Return the input of the head, [tokens, hidden]."""
        w, cache, kernels = self.weights, self.cache.data, self._kernels
        (cos, sin), eps = w.ropes[0], w.made.norm_eps
        h = F.embedding(batch.ids, w.embedding).to(w.norm.dtype)
        x = F.rms_norm(h, h.shape[1:], w.layers[0].attention_norm, eps)
        for i, layer in enumerate(w.layers):
            queries = kernels.rope_and_store(
                layer.qkv(x), cos, sin, batch.positions, batch.places, cache[i], w.made.heads)
            x = layer.output(attend(i, queries))
            x = layer.gate_up(kernels.add_and_norm(h, x, layer.mlp_norm, eps))
            x = layer.down(kernels.silu_and_mul(x))
            after = w.layers[i + 1].attention_norm if i + 1 < len(w.layers) else w.norm
            x = kernels.add_and_norm(h, x, after, eps)
        return x

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
        _compare(self.forward(chunk[1:]), wanted[1], 'a prefill')
        for recorded in self._recorded:  # copies of one row write the same to the cache
            _compare(self.forward([row] * recorded.rows), wanted[2], 'a recorded step')


def _compare(found: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    if not float((found - wanted).norm(dim=-1).max() / wanted.norm()) <= _TOLERANCE:
        raise ValueError(f'{what} gives other logits than the plain pass')


def _lacking(made: Architecture) -> str | None:
    """Return what the kernels of this room do not compute of a decoder, None if all."""
    needs = {
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
        failure = cuda_failure(cache.data.device)
        if failure is not None:
            raise RuntimeError(failure) from error
        logger.warning('decode steps are not recorded (%s): they run kernel by kernel', error)
        return TorchRunner(weights, cache)
