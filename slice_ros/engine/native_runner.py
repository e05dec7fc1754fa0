"""The forward pass of the Llama family on the native kernels: one C call a step, no torch inside.

It stands for `FlatBatchRunner` where the library is there; tokens, slots and positions are the
same, and so is what comes out.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from slice_ros.engine.llama import head_dim, PARTS, rope_tables
from slice_ros.engine.native import KvPages, LayerWeights, Library, ModelShape, NativeModel, pack
from slice_ros.engine.native.library import PAGE_TOKENS
from slice_ros.engine.native.weights import interleaved
from slice_ros.engine.runner import Segment
import torch
from transformers import PreTrainedConfig

WEIGHTS = ('fp16', 'bf16')


def unsupported(config: PreTrainedConfig, tensors: Mapping[str, torch.Tensor],
                weights: str) -> str | None:
    """Return why the native kernels cannot run this model of the family, None if they can."""
    if weights not in WEIGHTS:
        return f'weights {weights}'
    if 'model.layers.0.mlp.up_proj.bias' in tensors:
        return 'bias in the feed-forward layers'
    if head_dim(config) % 2:
        return f'heads of {head_dim(config)}'
    return None


class NativeRunner:
    """Runs any subset of the live requests, decode rows and prefill chunks alike, in one call."""

    path = 'flat batch'

    def __init__(self, config: PreTrainedConfig, tensors: Mapping[str, torch.Tensor],
                 weights: str, library: Library, slots: int, pages: int, max_context: int,
                 progress: Callable[[float], None]) -> None:
        def floats(name: str):
            # A tensor that lived on in the mapped file would keep all of it in memory.
            weight = tensors[f'{name}.weight']
            return weight.to(torch.float32, copy=weight.dim() == 1).numpy()

        def linear(*names: str):
            bias = None
            if any(f'{n}.bias' in tensors for n in names):
                bias = torch.cat([
                    tensors[f'{n}.bias'].float() if f'{n}.bias' in tensors
                    else torch.zeros(tensors[f'{n}.weight'].shape[0]) for n in names]).numpy()
            return pack(library, weights, [floats(n) for n in names], bias)

        layers = []
        for i in range(config.num_hidden_layers):
            at = f'model.layers.{i}.'
            layers.append(LayerWeights(
                attention_norm=floats(at + 'input_layernorm'),
                qkv=linear(*(at + part for part in PARTS)),
                attention_out=linear(at + 'self_attn.o_proj'),
                mlp_norm=floats(at + 'post_attention_layernorm'),
                gate_up=pack(library, weights, [interleaved(
                    floats(at + 'mlp.gate_proj'), floats(at + 'mlp.up_proj'))]),
                down=linear(at + 'mlp.down_proj')))
            progress((i + 1) / (config.num_hidden_layers + 1))
        embedding = linear('model.embed_tokens')
        tied = config.tie_word_embeddings or 'lm_head.weight' not in tensors
        head = embedding if tied else linear('lm_head')
        dim = head_dim(config)
        shape = ModelShape(
            hidden=config.hidden_size, heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads, head_dim=dim,
            intermediate=config.intermediate_size, vocabulary=embedding.matrix.outputs,
            norm_eps=config.rms_norm_eps)
        cos, sin = (table[:, 0, dim // 2:].numpy() for table in rope_tables(config, max_context))
        self._pages = KvPages(shape, config.num_hidden_layers, slots, max_context,
                              pages)
        self.table = self._pages.table
        self._layers = config.num_hidden_layers
        self._model = NativeModel(
            library, shape, layers, floats('model.norm'), embedding, head, cos, sin, self._pages,
            torch.get_num_threads())
        self.kernels = f'native {library.isa}'
        self.weight_bytes = self._model.weight_bytes
        self.kv_bytes = self._pages.nbytes
        self.streamed_bytes = self.weight_bytes - (0 if tied else embedding.nbytes)

    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Feed all `segments`; return float32 logits [segments that want them, vocab].

        The next call writes over them.
        """
        ids, slots, positions, last = [], [], [], []
        for s in segments:
            ids += s.ids
            slots += [s.slot] * len(s.ids)
            positions += range(s.start, s.start + len(s.ids))
            if s.wants_logits:
                last.append(len(ids) - 1)
        return torch.from_numpy(self._model.step(ids, slots, positions, last)[0])

    def share(self, source: int, slot: int, tokens: int) -> None:
        """Have a slot hold the first `tokens` of another, whose whole pages it names already."""
        whole, rest = divmod(tokens, PAGE_TOKENS)
        if rest:
            self._copy(self._pages.table[source, whole:whole + 1],
                       self._pages.table[slot, whole:whole + 1])

    def forget(self, slot: int) -> None:
        """Release what a slot holds (nothing: its pages are used again)."""

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
