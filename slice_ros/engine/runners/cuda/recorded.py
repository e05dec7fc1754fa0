# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Steps of a size that are recorded once, and replayed for any requests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.runners.runner import flatten, Segment
from slice_ros.engine.runners.torch.batch import Batch
import torch


@dataclass(frozen=True, slots=True)
class Recorder:
    """What all recorded steps of a runner share."""

    # Computes a step from its buffer: float32 logits [rows, vocab], and one more of its chunk.
    compute: Callable[['Recorded'], torch.Tensor]
    pool: object                        # memory of the graphs
    warm: 'torch.cuda.Stream | None'    # None: no GPU


class Recorded:
    """Buffer and graph of steps with up to `rows` decodes and, unless 0, `chunk` prefill tokens.

    These are of one request. `splits` is for attention of the decodes. Without a GPU, as in tests,
    the same step runs kernel by kernel.
    """

    def __init__(self, recorder: Recorder, cache: KvCache, rows: int, chunk: int, splits: int
                 ) -> None:
        self.rows, self.chunk, self.splits = rows, chunk, splits
        self.batch = Batch(cache, rows + chunk, rows + bool(chunk), cache.data.device,
                           pinned=recorder.warm is not None)
        # Unused rows feed token 0 to the first place of the scratch page.
        self.batch.set([], [], [], self._last(0), [])
        self._graph = self._copied = None
        # Not kept with a graph: the runner, which computes, would refer to itself.
        self._compute = recorder.compute if recorder.warm is None else None
        if recorder.warm is not None:
            self._record(recorder, recorder.warm)

    def _record(self, recorder: Recorder, warm: 'torch.cuda.Stream') -> None:
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            for _ in range(2):  # compiles the kernels; libraries allocate their work space
                recorder.compute(self).argmax(-1)
        torch.cuda.current_stream().wait_stream(warm)
        self._copied = torch.cuda.Event(blocking=True)  # sleeps: else a core spins
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: work of other threads on the device is not recorded.
        with torch.cuda.graph(self._graph, pool=recorder.pool, capture_error_mode='thread_local'):
            self._keep(recorder.compute(self))

    def _keep(self, logits: torch.Tensor) -> None:
        self._logits, self._tokens = logits, logits.argmax(-1)

    def fits(self, decodes: Sequence[Segment], chunks: Sequence[Segment]) -> bool:
        """Return whether a step is of this size; a chunk has several tokens."""
        return len(decodes) <= self.rows and len(chunks) == bool(self.chunk) and all(
            len(s.ids) <= self.chunk for s in chunks) and all(s.wants_logits for s in decodes)

    def run(self, segments: Sequence[Segment]) -> None:
        """Compute a step that fits."""
        if self._copied is not None:
            self._copied.synchronize()  # the last copy may still read the buffer
        decodes = [s for s in segments if len(s.ids) == 1]
        chunks = [s for s in segments if len(s.ids) > 1]
        ids, slots, positions, _ = flatten([*decodes, *chunks])
        at = np.arange(len(ids))
        at[len(decodes):] += self.rows - len(decodes)
        owners = [s.slot for s in decodes]
        if chunks:  # unused rows read the first key of its request
            owners += [chunks[0].slot] * (self.rows + 1 - len(decodes))
        self.batch.set(ids, slots, positions, self._last(len(ids) - len(decodes)), owners, at)
        if self._graph is None:
            self._keep(self._compute(self))
        else:
            self._copied.record()
            self._graph.replay()

    def _last(self, tokens: int) -> list[int]:
        """Return the indices of the tokens whose logits are computed: rows, and end of a chunk."""
        return [*range(self.rows), self.rows + max(tokens - 1, 0)] if self.chunk else []

    def logits(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Return the logits of the segments of the last step that want them, in their order."""
        return self._in_order(self._logits, segments)

    def tokens(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Return the token of the largest logit of each, as `logits`."""
        return self._in_order(self._tokens, segments)

    def _in_order(self, found: torch.Tensor, segments: Sequence[Segment]) -> torch.Tensor:
        chunk = next((i for i, s in enumerate(segments) if len(s.ids) > 1), None)
        if chunk is None:
            return found[:len(segments)]
        decodes = found[:len(segments) - 1]
        if not segments[chunk].wants_logits:
            return decodes
        return torch.cat((decodes[:chunk], found[self.rows:], decodes[chunk:]))
