# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny model with random weights and the embedded model's tokenizer, as a model directory.

Its answers mean nothing, and its steps take next to no time: what is left is the work of the
server. Nothing is downloaded.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.model_path import find_model

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, CONTEXT = 64, 96, 2, 4, 2, 512
HEAD = HIDDEN // HEADS
SPREAD = 0.1   # standard deviation of the weights
SEED = 7


def write_tiny(folder: Path) -> Path:
    """Write the model below `folder` and return its directory.

    Raises ``ModelError`` when there is no embedded model to take the tokenizer from.
    """
    path = folder / 'tiny'
    source = GgufFile(find_model(''))
    path.mkdir()
    source.tokenizer().save(path)
    vocabulary = source.config()['vocab_size']
    # No end-of-sequence token: an answer ends with max_tokens, mostly.
    (path / 'config.json').write_text(json.dumps({
        'model_type': 'llama', 'architectures': ['LlamaForCausalLM'], 'vocab_size': vocabulary,
        'hidden_size': HIDDEN, 'intermediate_size': INNER, 'num_hidden_layers': LAYERS,
        'num_attention_heads': HEADS, 'num_key_value_heads': KV_HEADS, 'head_dim': HEAD,
        'max_position_embeddings': CONTEXT, 'rms_norm_eps': 1e-5, 'tie_word_embeddings': True,
        'rope_parameters': {'rope_type': 'default', 'rope_theta': 10000.0},
        'bos_token_id': None, 'eos_token_id': None}))
    save_file(_tensors(vocabulary), path / 'model.safetensors', {'format': 'pt'})
    return path


def _tensors(vocabulary: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(SEED)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * SPREAD).astype(np.float16)

    def norm() -> np.ndarray:
        return np.ones(HIDDEN, np.float16)
    tensors = {'model.embed_tokens.weight': matrix(vocabulary, HIDDEN),
               'model.norm.weight': norm()}
    for layer in range(LAYERS):
        tensors |= {f'model.layers.{layer}.{name}.weight': tensor for name, tensor in (
            ('self_attn.q_proj', matrix(HEADS * HEAD, HIDDEN)),
            ('self_attn.k_proj', matrix(KV_HEADS * HEAD, HIDDEN)),
            ('self_attn.v_proj', matrix(KV_HEADS * HEAD, HIDDEN)),
            ('self_attn.o_proj', matrix(HIDDEN, HEADS * HEAD)),
            ('mlp.gate_proj', matrix(INNER, HIDDEN)), ('mlp.up_proj', matrix(INNER, HIDDEN)),
            ('mlp.down_proj', matrix(HIDDEN, INNER)),
            ('input_layernorm', norm()), ('post_attention_layernorm', norm()))}
    return tensors
