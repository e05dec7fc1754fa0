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
from slice_ros.engine.models.families import head_dim
import torch
from transformers import PreTrainedConfig

_LLAMA3 = {'rope_type': 'llama3', 'rope_theta': 500000.0, 'low_freq_factor': 1.0,
           'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192}
_SPREAD = 0.02   # standard deviation of weights, as before training


def _config(model_type: str, vocabulary: int, hidden: int, intermediate: int, layers: int,
            heads: int, kv_heads: int, context: int, rope: Mapping, tied: bool = True) -> dict:
    return {'model_type': model_type, 'vocab_size': vocabulary, 'hidden_size': hidden,
            'intermediate_size': intermediate, 'num_hidden_layers': layers,
            'num_attention_heads': heads, 'num_key_value_heads': kv_heads,
            'max_position_embeddings': context, 'rope_parameters': dict(rope),
            'tie_word_embeddings': tied, 'rms_norm_eps': 1e-5, 'bos_token_id': None,
            'eos_token_id': None}


# config.json by name.
SHAPES = {
    'smollm2-135m': _config('llama', 49152, 576, 1536, 30, 9, 3, 8192,
                            {'rope_type': 'default', 'rope_theta': 100000.0}),
    'qwen2.5-0.5b': _config('qwen2', 151936, 896, 4864, 24, 14, 2, 32768,
                            {'rope_type': 'default', 'rope_theta': 1000000.0}),
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
    GgufFile(find_model('')).tokenizer().save_pretrained(path)
    (path / 'config.json').write_text(json.dumps(SHAPES[shape]))
    return path


class RandomTensors:
    """Random tensors for a `config` of the Llama family, in the place of `Tensors`.

    A tensor is made when it is asked for, and is the same each time on the same kind of device:
    bfloat16, norms of ones.
    """

    def __init__(self, config: PreTrainedConfig, device: torch.device) -> None:
        self._device = device
        dim, hidden = head_dim(config), config.hidden_size
        queries, keys = (n * dim for n in (config.num_attention_heads, config.num_key_value_heads))
        inner = config.intermediate_size
        self._sizes = {
            'q_proj.weight': (queries, hidden), 'k_proj.weight': (keys, hidden),
            'v_proj.weight': (keys, hidden), 'o_proj.weight': (hidden, queries),
            'gate_proj.weight': (inner, hidden), 'up_proj.weight': (inner, hidden),
            'down_proj.weight': (hidden, inner), 'input_layernorm.weight': (hidden,),
            'post_attention_layernorm.weight': (hidden,), 'norm.weight': (hidden,),
            'embed_tokens.weight': (config.vocab_size, hidden)}
        if not config.tie_word_embeddings:
            self._sizes['lm_head.weight'] = (config.vocab_size, hidden)
        if config.model_type == 'qwen2':
            self._sizes |= {'q_proj.bias': (queries,), 'k_proj.bias': (keys,),
                            'v_proj.bias': (keys,)}

    nbytes = 0  # none is kept

    def __contains__(self, name: str) -> bool:
        return _part(name) in self._sizes

    def __getitem__(self, name: str) -> torch.Tensor:
        made = torch.empty(self._sizes[_part(name)], device=self._device)
        if name.endswith('norm.weight'):
            return made.fill_(1.0).bfloat16()
        seed = torch.Generator(self._device).manual_seed(zlib.crc32(name.encode()))
        return made.normal_(0.0, _SPREAD, generator=seed).bfloat16()

    def rows(self, name: str) -> Bfloats:
        """Return a matrix in the form that the native runner packs."""
        return Bfloats(self[name].view(torch.int16).numpy().view(np.uint16))


def _part(name: str) -> str:
    return '.'.join(name.split('.')[-2:])
