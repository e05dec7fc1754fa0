# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""GGUF files of known families: config and tokenizer as Hugging Face has them, and tensors."""

from collections.abc import Callable, Iterator
import math
from pathlib import Path
import re

import numpy as np
from slice_ros.engine.checkpoints.gguf_families import ARCHITECTURES
from slice_ros.engine.checkpoints.gguf_header import read_header, StoredTensor
from slice_ros.engine.checkpoints.gguf_tokenizer import ARRAYS, build_tokenizer, GgufTokenizer
from slice_ros.engine.checkpoints.hf_directory import MOST_LAYERS
from slice_ros.engine.checkpoints.regroup import GgufDecoder
from slice_ros.errors import ModelError, one_line

# What follows from the metadata: the frequencies of the rope.
_DERIVED = ('rope_freqs.', 'rope_factors_')
_BLOCK = re.compile(r'blk\.(\d+)\.')


class GgufFile:
    """A GGUF file. Raises ``ModelError`` when it is no GGUF, damaged, or of another family."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._metadata, tensors = read_header(path)
        except (OSError, ValueError) as error:
            raise ModelError(f'{path} is not a readable GGUF file ({error}): '
                             'copy or download it again') from error
        architecture = self._get('general.architecture')
        if architecture not in ARCHITECTURES:
            raise ModelError(
                f'{path} holds a model of architecture {architecture!r:.80}; GGUF files of '
                f'{", ".join(ARCHITECTURES)} can be loaded, others as a Hugging Face directory')
        self._arch, self._family = architecture, ARCHITECTURES[architecture]
        self._tensors = {tensor.name: tensor for tensor in tensors}

    def config(self) -> dict:
        """Return the model's ``config.json``."""
        heads = self._count('attention.head_count')
        hidden = self._count('embedding_length')
        layers = self._count('block_count')
        if layers > MOST_LAYERS:
            raise ModelError(f'{self.path}: {self._arch}.block_count is {layers}, which must be '
                             f'at most {MOST_LAYERS}: the file is damaged')
        embedding = self._tensors.get('token_embd.weight')
        if embedding is None:
            raise ModelError(f'{self.path} holds no token embedding: the file is incomplete')
        model_type = self._family.model_type
        try:
            more = self._family.more(self._value)
        except (TypeError, ArithmeticError) as error:
            raise ModelError(f'{self.path}: numbers of {self._arch} are missing or of another '
                             f'kind ({one_line(error)}): the file is incomplete') from error
        return {
            'model_type': model_type,
            'architectures': [f'{model_type.capitalize()}ForCausalLM'],
            '_name_or_path': self._get('general.name') or self.path.stem,
            'hidden_size': hidden,
            # A family whose layers all have experts may not speak of other MLPs.
            'intermediate_size': self._value('feed_forward_length')
            or self._value('expert_feed_forward_length') or self._need('feed_forward_length'),
            'num_hidden_layers': layers,
            'num_attention_heads': heads,
            'num_key_value_heads': self._count('attention.head_count_kv', heads),
            'head_dim': self._head_dim(hidden // heads),
            'rms_norm_eps': self._value('attention.layer_norm_epsilon')
            or self._need('attention.layer_norm_rms_epsilon'),
            'max_position_embeddings': self._need('context_length'),
            'sliding_window': self._value('attention.sliding_window'),
            'vocab_size': embedding.shape[0],
            'hidden_act': 'silu',
            'mamba_rms_norm': 'blk.0.ssm_norm.weight' in self._tensors,
            'use_qk_norm': 'blk.0.attn_q_norm.weight' in self._tensors,
            'attention_bias': False,
            'tie_word_embeddings': 'output.weight' not in self._tensors,
            'rope_parameters': self._rope() | more.pop('more_of_rope', {}),
            'bos_token_id': self._get('tokenizer.ggml.bos_token_id'),
            'eos_token_id': self._ends() or None,
        } | more

    def _ends(self) -> list[int]:
        """Return the tokens that end a text, a turn and a message, where the file names them."""
        ends = [self._get(f'tokenizer.ggml.{end}_token_id') for end in ('eos', 'eot', 'eom')]
        return [end for end in ends if end is not None]

    def types(self) -> dict[str, str]:
        """Return the GGUF types of the matrices, by their Hugging Face names."""
        return {name: tensor.type.name for name, tensor in self.named() if len(tensor.shape) > 1}

    def named(self) -> Iterator[tuple[str, StoredTensor]]:
        """Yield the tensors of the model, with their Hugging Face names."""
        layers = self._count('block_count') if self._guessing() else math.inf
        for tensor in self._tensors.values():
            block = _BLOCK.match(tensor.name)
            if block is not None and int(block[1]) >= layers:
                continue
            name = self._family.name(tensor.name)
            if name is not None:
                yield name, tensor
            elif not tensor.name.startswith(_DERIVED):
                raise ModelError(f'{self.path}: tensor {tensor.name} is in no model of '
                                 f'architecture {self._arch} that is known: convert it again, or '
                                 'load it as a Hugging Face directory')

    def order(self, tensor: StoredTensor) -> np.ndarray | None:
        """Return which row of a tensor each row of Hugging Face's is; None where it is the same.

        llama.cpp interleaves the two halves of a head that rotary embedding pairs, and the value
        heads of the key heads of a delta rule.
        """
        if not self._family.paired or not re.search(r'attn_[qk]\.', tensor.name):
            return self._of_family(self._family.rows, tensor, tensor.shape[0])
        key = 'head_count' if 'attn_q' in tensor.name else 'head_count_kv'
        heads = self._count(f'attention.{key}', self._count('attention.head_count'))
        if tensor.shape[0] % (2 * heads):
            raise ModelError(f'{self.path}: tensor {tensor.name} has {tensor.shape[0]} rows, '
                             f'which is not of {heads} heads')
        return np.arange(tensor.shape[0]).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)

    def order_of_inputs(self, tensor: StoredTensor) -> np.ndarray | None:
        """As `order`, of the columns."""
        return self._of_family(self._family.inputs, tensor, tensor.shape[-1])

    def _of_family(self, order: Callable[..., np.ndarray | None], tensor: StoredTensor, count: int
                   ) -> np.ndarray | None:
        try:
            return order(self._value, tensor.name.split('.', 2)[-1], count)
        except ValueError as error:
            raise ModelError(f'{self.path}: tensor {tensor.name} has the shape '
                             f'{list(tensor.shape)}, which is not of the heads of the file'
                             ) from error

    def read(self, tensor: StoredTensor, first: int, count: int) -> np.ndarray:
        """Return `count` bytes of a tensor from `first` on.

        Raises ``ModelError`` when the file has become shorter.
        """
        data = np.fromfile(self.path, np.uint8, count, offset=tensor.start + first)
        if len(data) < count:
            raise ModelError(f'{self.path} was cut short: copy or download it again')
        return data

    def tokenizer(self) -> GgufTokenizer:
        """Return the tokenizer that the file describes."""
        try:
            return build_tokenizer(read_header(self.path, ARRAYS)[0])
        except Exception as error:  # tokenizers raises a bare one
            raise ModelError(f'{self.path}: its tokenizer cannot be read ({one_line(error)})'
                             ) from error

    def _vector(self, name: str) -> np.ndarray:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f'{self.path} holds no tensor {name}: the file is incomplete')
        data = self.read(tensor, 0, tensor.nbytes)
        return GgufDecoder().floats(data, tensor.type.name).ravel()

    def _head_dim(self, default: int) -> int:
        # Files of Llama from before `key_length` have it as the size of the rope.
        return (self._value('attention.key_length')
                or self._family.paired and self._value('rope.dimension_count') or default)

    def _rope(self) -> dict:
        rope = {'rope_type': 'default', 'rope_theta': self._value('rope.freq_base') or 10000.0}
        kind = self._value('rope.scaling.type')
        context = self._need('context_length')
        dims, dim = self._value('rope.dimension_count'), self._head_dim(
            self._count('embedding_length') // self._count('attention.head_count'))
        if dims and dims < dim:
            rope['partial_rotary_factor'] = dims / dim
        if 'rope_factors_short.weight' in self._tensors:
            rope |= {'rope_type': 'longrope',
                     'short_factor': self._vector('rope_factors_short.weight').tolist(),
                     'long_factor': self._vector('rope_factors_long.weight').tolist(),
                     'attention_factor': self._value('rope.scaling.attn_factor'),
                     'original_max_position_embeddings':
                         self._need('rope.scaling.original_context_length')}
        elif 'rope_freqs.weight' in self._tensors:
            # llama.cpp stores the scaling of Llama 3 as a divisor for each frequency. The numbers
            # below are those of all Llama 3.x; the factor is the largest divisor.
            divisors = self._vector('rope_freqs.weight')
            rope |= {'rope_type': 'llama3', 'factor': float(divisors.max()),
                     'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
                     'original_max_position_embeddings': 8192}
        elif kind == 'linear':
            rope |= {'rope_type': 'linear', 'factor': self._need('rope.scaling.factor')}
        elif kind == 'yarn':
            original = self._value('rope.scaling.original_context_length') or context
            rope |= {'rope_type': 'yarn', 'factor': self._need('rope.scaling.factor'),
                     'original_max_position_embeddings': original}
        elif kind not in (None, 'none'):
            raise ModelError(f'{self.path} asks for rope scaling {kind!r:.80}, which is not known')
        return rope

    def _get(self, key: str):
        return self._metadata.get(key)

    def _value(self, key: str, whole: bool = False):
        value = self._get(f'{self._arch}.{key}')
        if guessing := self._guessing():
            if key == 'block_count' and isinstance(value, int):
                value -= guessing
            elif key != 'block_count' and isinstance(value, tuple):
                value = value[:self._count('block_count')]
        if isinstance(value, tuple) and not whole:
            # Recurrent layers have no keys, and some no MLP.
            if key in ('attention.head_count_kv', 'feed_forward_length'):
                value = [number for number in value if number]
            if len(set(value)) != 1:
                raise ModelError(f'{self.path} has layers that differ in {key}: such models '
                                 'cannot be loaded')
            value = value[0]
        return value

    def _guessing(self) -> int:
        """Return how many layers behind the others guess further tokens, which none do here."""
        number = self._get(f'{self._arch}.nextn_predict_layers')
        return max(number, 0) if type(number) is int else 0

    def _count(self, key: str, default: int | None = None) -> int:
        value = self._value(key) or default or self._need(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(f'{self.path}: {self._arch}.{key} is {value!r:.80}, which must be a '
                             'whole number of at least 1: the file is damaged')
        return value

    def _need(self, key: str):
        value = self._value(key)
        if value is None:
            raise ModelError(f'{self.path} does not say {self._arch}.{key}: '
                             'the file is incomplete')
        return value
