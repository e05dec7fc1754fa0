"""The forward pass on a GPU: decode steps are recorded once a batch size, and replayed.

A replay reads token ids, slots and positions from buffers that never move, so a step costs one
copy to the device and one launch, whoever takes part. Prefill chunks run as in `FlatBatchRunner`.
"""

from collections.abc import Sequence
import logging

from slice_ros.engine.kv_cache import KvCache
from slice_ros.engine.runner import FlatBatchRunner, LlamaWeights, Segment
import torch
from torch.nn import functional as F

logger = logging.getLogger(__name__)

_PROGRAMS = 264       # that keep a large GPU busy: two for each of an H100's processors
_MOST_SPLITS = 32
_TOLERANCE = 0.05     # of the largest logit, between a replay and the plain pass


class _Recorded:
    """Buffers and graph of decode steps with up to `rows` requests."""

    def __init__(self, runner: 'GraphRunner', rows: int) -> None:
        device = runner.device
        cuda = device.type == 'cuda'
        self.rows = rows
        # Rows that nobody uses feed token 0 to position 0 of the slot beyond the last.
        self._host = torch.zeros(3, rows, dtype=torch.int64, pin_memory=cuda)
        self._host[1] = runner.scratch
        self._numbers = self._host.numpy()
        self._inputs = self._host.to(device)
        splits = _PROGRAMS // (rows * runner.weights.kv_heads)
        self._splits = min(1 << max(splits - 1, 0).bit_length(), _MOST_SPLITS)
        self._runner = runner
        self._graph = None
        if cuda:
            warm = torch.cuda.Stream()
            warm.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(warm):
                for _ in range(2):  # compiles the kernels; libraries take their work space
                    self.logits = runner.decode(*self._inputs, self._splits)
            torch.cuda.current_stream().wait_stream(warm)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=runner.pool):
                self.logits = runner.decode(*self._inputs, self._splits)

    def run(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Feed one token of each segment; return float32 logits [segments, vocab]."""
        numbers, used = self._numbers, len(segments)
        for row, s in enumerate(segments):
            numbers[:, row] = s.ids[0], s.slot, s.start
        numbers[0, used:], numbers[1, used:], numbers[2, used:] = 0, self._runner.scratch, 0
        self._inputs.copy_(self._host, non_blocking=True)
        if self._graph is None:  # no GPU: the same step, one kernel after the other
            self.logits = self._runner.decode(*self._inputs, self._splits)
        else:
            self._graph.replay()
        return self.logits[:used]


class GraphRunner(FlatBatchRunner):
    """Runs any subset of the live requests; steps of decode rows alone are replayed graphs.

    `cache` has one slot more than requests may use. The logits of a step are written over by the
    next. Raises ``ValueError`` when a replay does not give what the plain pass gives, and lets
    errors of the device through: the caller then has `FlatBatchRunner`.
    """

    def __init__(self, weights: LlamaWeights, cache: KvCache, max_batch: int) -> None:
        super().__init__(weights, cache)
        from slice_ros.engine import gpu_kernels  # here, since Triton need not be installed
        self._kernels = gpu_kernels
        self.scratch = cache.data.shape[1] - 1
        self.pool = torch.cuda.graph_pool_handle() if self.device.type == 'cuda' else None
        sizes = [1 << n for n in range(max_batch.bit_length()) if 1 << n < max_batch]
        with torch.inference_mode():
            # The largest first: the smaller ones fit into its memory.
            self._recorded = [_Recorded(self, rows) for rows in [max_batch, *reversed(sizes)]]
        self._recorded.reverse()
        self._check()
        self.kernels = f'{weights.linears} linears, Triton attention, CUDA graphs'

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Feed all `segments`; return float32 logits [segments that want them, vocab].

        The next call writes over them.
        """
        if all(len(s.ids) == 1 and s.wants_logits for s in segments):
            for recorded in self._recorded:
                if recorded.rows >= len(segments):
                    return recorded.run(segments)
        return super().forward(segments)

    def decode(self, ids: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor,
               splits: int) -> torch.Tensor:
        """Feed token `ids` [rows] to `positions` of `slots`; return float32 logits [rows, vocab].

        Nothing in it depends on the values of its arguments, so that it can be recorded.
        """
        w, cache, kernels = self.weights, self.cache.data, self._kernels
        h = w.embedding[ids].to(w.norm.dtype)
        x = F.rms_norm(h, h.shape[1:], w.layers[0].input_norm, w.norm_eps)
        for i, layer in enumerate(w.layers):
            queries = kernels.rope_and_store(
                layer.qkv(x), w.cos, w.sin, slots, positions, cache[i], w.heads)
            x = kernels.attend(queries, cache[i], slots, positions, splits).to(h.dtype)
            x = kernels.add_and_norm(h, layer.output(x), layer.post_norm, w.norm_eps)
            x = layer.down(kernels.silu_and_mul(layer.gate_up(x)))
            after = w.layers[i + 1].input_norm if i + 1 < len(w.layers) else w.norm
            x = kernels.add_and_norm(h, x, after, w.norm_eps)
        return w.head(x).float()

    def _check(self) -> None:
        """Raise ``ValueError`` when a replay says other than the plain pass."""
        segments = [Segment(self.scratch, position, [1], True) for position in range(3)]
        for segment in segments:
            wanted = super().forward([segment]).clone()
            got = self.forward([segment])
            limit = _TOLERANCE * float(wanted.abs().max())
            if not float((got - wanted).abs().max()) <= limit:
                raise ValueError('a recorded step gives other logits than the plain one')


def gpu_runner(weights: LlamaWeights, layers: int, slots: int, kv_heads: int, max_context: int,
               dtype: torch.dtype, max_batch: int) -> FlatBatchRunner:
    """Return what runs `weights` where they are: with recorded steps if that works, else without.

    The cache holds `slots` requests of `max_context` tokens in `dtype`.
    """
    cache = KvCache(layers, slots + 1, kv_heads, max_context, weights.head_dim, dtype,
                    weights.embedding.device)
    try:
        return GraphRunner(weights, cache, max_batch)
    except Exception as error:  # no Triton, an unknown GPU, too little memory, other logits
        logger.warning('decode steps are not recorded (%s): they run kernel by kernel', error)
        return FlatBatchRunner(weights, cache)
