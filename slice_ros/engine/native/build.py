"""From named weights to a ``NativeModel``."""

from collections.abc import Callable, Mapping

import numpy as np
from slice_ros.engine.native.arena import Arena
from slice_ros.engine.native.library import BEST, Library
from slice_ros.engine.native.model import KvPages, LayerWeights, ModelShape, NativeModel
from slice_ros.engine.native.weights import Codes, interleaved, pack, Packed, Rows

_PARTS = ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj')


def build_model(library: Library, shape: ModelShape, layers: int, tensors: Mapping[str, Rows],
                weights: str, cos: np.ndarray, sin: np.ndarray, *, slots: int, max_context: int,
                threads: int, pages: int | None = None, max_rows: int = 256, isa: int = BEST,
                progress: Callable[[float], None] = lambda share: None) -> NativeModel:
    """Pack `tensors` (Hugging Face names; float32 arrays or ``Codes``) and return the model.

    `weights` is 'fp32', 'fp16', 'bf16', 'int8', or 'int4', which keeps the embedding and the
    head in 8 bits: every token's choice hangs on them. Codes of a GGUF file stay as they are
    where the kind is theirs. The head is the embedding where 'lm_head.weight' is missing. Raises
    ``KeyError`` for a missing tensor, ``ValueError`` for one that does not fit.
    """
    arena = Arena()

    def matrix(*names: str) -> Packed:
        biases = [tensors.get(f'{name}.bias') for name in names]
        parts = [tensors[f'{name}.weight'] for name in names]
        bias = None
        if any(b is not None for b in biases):
            bias = np.concatenate([np.zeros(part.shape[0], np.float32) if b is None else b
                                   for part, b in zip(parts, biases)])
        return pack(library, weights, parts, bias, arena)

    def gate_up(gate: str, up: str) -> Packed:
        weight = interleaved(tensors[f'{gate}.weight'], tensors[f'{up}.weight'])
        bias = None
        if f'{gate}.bias' in tensors:
            bias = interleaved(tensors[f'{gate}.bias'][:, None], tensors[f'{up}.bias'][:, None])
            bias = bias[:, 0]
        return pack(library, weights, [weight], bias, arena)

    built = []
    for i in range(layers):
        at = f'model.layers.{i}.'
        built.append(LayerWeights(
            attention_norm=tensors[at + 'input_layernorm.weight'],
            qkv=matrix(*(at + part for part in _PARTS)),
            attention_out=matrix(at + 'self_attn.o_proj'),
            mlp_norm=tensors[at + 'post_attention_layernorm.weight'],
            gate_up=gate_up(at + 'mlp.gate_proj', at + 'mlp.up_proj'),
            down=matrix(at + 'mlp.down_proj'),
            query_norm=tensors.get(at + 'self_attn.q_norm.weight'),
            key_norm=tensors.get(at + 'self_attn.k_norm.weight')))
        progress((i + 1) / (layers + 1))
    outer = 'int8' if weights == 'int4' else weights
    embedding = pack(library, outer, [tensors['model.embed_tokens.weight']], arena=arena)
    head = embedding
    if 'lm_head.weight' in tensors:
        head = pack(library, outer, [tensors['lm_head.weight']], arena=arena)
    cache = KvPages(shape, layers, slots, max_context, pages)
    return NativeModel(library, shape, built, tensors['model.norm.weight'], embedding, head, cos,
                       sin, cache, threads, max_rows, isa)


def half_split(rows: Rows, heads: int) -> Rows:
    """Return query or key rows in the order in which rotary pairs are half a head apart.

    GGUF files of the Llama architecture pair neighbours.
    """
    head_dim = rows.shape[0] // heads
    order = np.arange(rows.shape[0]).reshape(heads, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)
    return rows.rows(order) if isinstance(rows, Codes) else rows[order]
