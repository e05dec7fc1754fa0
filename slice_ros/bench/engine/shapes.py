# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Models of known shapes with random weights, which are made on demand and not written.

The time of a step depends on the shape alone.
"""

from collections.abc import Mapping
import json
from pathlib import Path
import zlib

import numpy as np
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.checkpoints.stored_weights import Bfloats
from slice_ros.engine.models.architecture import HEAD, layer_name, QKV
from slice_ros.engine.models.families import describe
from slice_ros.engine.models.model_tensors import ModelTensors
import torch
from transformers import PreTrainedConfig

_LLAMA3 = {'rope_type': 'llama3', 'rope_theta': 500000.0, 'low_freq_factor': 1.0,
           'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192}
_GRANITE_ATTENTION = (10, 13, 17, 27)   # layers of Granite 4.0 H 350M
_SPREAD = 0.02   # standard deviation of weights, as before training


def _config(model_type: str, vocabulary: int, hidden: int, intermediate: int, layers: int,
            heads: int, kv_heads: int, context: int, rope: Mapping, tied: bool = True,
            **more: object) -> dict:
    return {'model_type': model_type, 'vocab_size': vocabulary, 'hidden_size': hidden,
            'intermediate_size': intermediate, 'num_hidden_layers': layers,
            'num_attention_heads': heads, 'num_key_value_heads': kv_heads,
            'max_position_embeddings': context, 'rope_parameters': dict(rope),
            'tie_word_embeddings': tied, 'rms_norm_eps': 1e-5, 'bos_token_id': None,
            'eos_token_id': None} | more


# config.json by name.
SHAPES = {
    'smollm2-135m': _config('llama', 49152, 576, 1536, 30, 9, 3, 8192,
                            {'rope_type': 'default', 'rope_theta': 100000.0}),
    'qwen2.5-0.5b': _config('qwen2', 151936, 896, 4864, 24, 14, 2, 32768,
                            {'rope_type': 'default', 'rope_theta': 1000000.0}),
    'qwen3-0.6b': _config('qwen3', 151936, 1024, 3072, 28, 16, 8, 40960,
                          {'rope_type': 'default', 'rope_theta': 1000000.0}, head_dim=128),
    'qwen3-1.7b': _config('qwen3', 151936, 2048, 6144, 28, 16, 8, 40960,
                          {'rope_type': 'default', 'rope_theta': 1000000.0}, head_dim=128),
    'gemma-3-1b': _config('gemma3_text', 262144, 1152, 6912, 26, 4, 1, 32768, {
        'full_attention': {'rope_type': 'default', 'rope_theta': 1000000.0},
        'sliding_attention': {'rope_type': 'default', 'rope_theta': 10000.0}},
        head_dim=256, sliding_window=512, query_pre_attn_scalar=256),
    'granite-3-1b-a400m': _config(
        'granitemoe', 49152, 1024, 512, 24, 16, 8, 4096,
        {'rope_type': 'default', 'rope_theta': 10000.0}, num_local_experts=32,
        num_experts_per_tok=8, embedding_multiplier=12.0, residual_multiplier=0.22,
        attention_multiplier=0.015625, logits_scaling=6.0),
    'granite-4.0-h-350m': _config(   # 340 332 224 parameters
        'granitemoehybrid', 100352, 768, 2048, 32, 12, 4, 32768,
        {'rope_type': 'default', 'rope_theta': 10000.0}, num_local_experts=0,
        shared_intermediate_size=2048, position_embedding_type='nope', mamba_n_heads=48,
        mamba_d_head=32, mamba_n_groups=1, mamba_d_state=128, mamba_d_conv=4, mamba_expand=2,
        embedding_multiplier=12.0, residual_multiplier=0.246, attention_multiplier=0.015625,
        logits_scaling=3.0, layer_types=[
            'full_attention' if i in _GRANITE_ATTENTION else 'linear_attention'
            for i in range(32)]),
    'llama-3.2-1b': _config('llama', 128256, 2048, 8192, 16, 32, 8, 131072,
                            _LLAMA3 | {'factor': 32.0}),
    'llama-3.1-8b': _config('llama', 128256, 4096, 14336, 32, 32, 8, 131072,
                            _LLAMA3 | {'factor': 8.0}, tied=False),
}


def write(shape: str, folder: Path) -> Path:
    """Make a model directory without weights below `folder`, with the embedded model's tokenizer.

    Raises ``ModelError`` when there is no embedded model.
    """
    path = folder / shape
    path.mkdir()
    GgufFile(find_model('')).tokenizer().save(path)
    (path / 'config.json').write_text(json.dumps(SHAPES[shape]))
    return path


class RandomTensors:
    """Random tensors for a `config` of a described family, in the place of `Tensors`.

    A tensor is made when it is asked for, and is the same each time on the same kind of device:
    bfloat16, norms of ones.
    """

    def __init__(self, config: PreTrainedConfig, device: str) -> None:
        self._device, self._last = torch.device(device), {}
        made = describe(config)
        self._sizes = {} if config.tie_word_embeddings else {
            f'{HEAD}.weight': (made.vocabulary, made.hidden)}
        self._sizes |= dict(ModelTensors(made, self).needed())
        if config.model_type == 'qwen2':
            queries, keys = made.heads * made.head_dim, made.kv_heads * made.head_dim
            self._sizes |= {f'{layer_name(layer, part)}.bias': (size,)
                            for layer in range(len(made.layers))
                            for part, size in zip(QKV, (queries, keys, keys))}

    nbytes = 0  # only the last two are kept

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def __getitem__(self, name: str) -> torch.Tensor:
        # Experts of a layer, which are read one by one, may be in two tensors.
        if name not in self._last:
            self._last = dict([*self._last.items()][-1:]) | {name: self._make(name)}
        return self._last[name]

    def _make(self, name: str) -> torch.Tensor:
        made = torch.empty(self._sizes[name], device=self._device)
        if name.endswith('norm.weight'):
            return made.fill_(1.0).bfloat16()
        seed = torch.Generator(self._device).manual_seed(zlib.crc32(name.encode()))
        return made.normal_(0.0, _SPREAD, generator=seed).bfloat16()

    def floats(self, name: str) -> np.ndarray:
        """As `Tensors.floats`."""
        return self[name].float().cpu().numpy()

    def rows(self, name: str) -> Bfloats:
        """Return a matrix in the form that the native runner packs."""
        bits = self[name].view(torch.int16).numpy().view(np.uint16)
        return Bfloats(bits.reshape(-1, bits.shape[-1]))
