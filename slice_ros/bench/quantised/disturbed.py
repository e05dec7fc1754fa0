# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A GGUF file in float16 whose weights lie on no quantiser's grid, made from a quantised one."""

from itertools import count
from pathlib import Path

from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
import numpy as np
from slice_ros.engine.checkpoints.regroup import FLOATS, GgufDecoder
from slice_ros.engine.checkpoints.stored_weights import GROUP

_SEED = 7
_BLOCK = 256  # inputs of a block of K-quants; llama.cpp falls back where rows do not divide by it
# What the writer or the quantiser states itself.
_OWN = ('GGUF.', 'general.architecture', 'general.file_type', 'general.quantization_version')


class Widening:
    """How a model of Llama becomes one all of whose rows divide by 256, by copies.

    What was n channels of the residual stream, n of an MLP or n heads is more of them; each copies
    one, and the copies share out what they add up to, so that the function of the model is the
    same.
    """

    def __init__(self, hidden: int, inner: int, heads: int, kv_heads: int, head_dim: int) -> None:
        group = heads // kv_heads
        kv = np.arange(next(n for n in count(kv_heads) if n * group * head_dim % _BLOCK == 0))
        kv %= kv_heads
        self._stream, mlp = (np.arange(-(-n // _BLOCK) * _BLOCK) % n for n in (hidden, inner))
        queries = _rows((kv[:, None] * group + np.arange(group)).ravel(), head_dim)
        keys = _rows(kv, head_dim)
        # By part of a layer: which output each output copies, and which input; the stream's if
        # it is not here.
        self._outputs = {'attn_q': queries, 'attn_k': keys, 'attn_v': keys, 'ffn_gate': mlp,
                         'ffn_up': mlp, 'attn_output': self._stream, 'ffn_down': self._stream}
        self._inputs = {'attn_output': queries, 'ffn_down': mlp}
        self._norm = hidden / len(self._stream)  # a mean over the stream is this much smaller
        self.changed = {
            'embedding_length': len(self._stream), 'feed_forward_length': len(mlp),
            'attention.head_count': len(kv) * group, 'attention.head_count_kv': len(kv)}

    def epsilon(self, before: float) -> float:
        """Return what the norms add to the mean square instead of `before`."""
        return before * self._norm

    def take(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return the tensor `name` of a GGUF file, [outputs, inputs] or [hidden], widened.

        A channel of the stream that is there c times holds its value over sqrt(c) each time, and
        is read with 1 / sqrt(c), so that sums of squares stay. Channels of an MLP and of heads
        are read with 1 / c. Raises ``ValueError`` for a tensor that is none of these.
        """
        part = name.split('.')[-2]
        if part.endswith('_norm') and values.ndim == 1:
            return values[self._stream] * np.float32(self._norm ** 0.5)
        if values.ndim == 1 or part not in (*self._outputs, 'token_embd', 'output'):
            raise ValueError(f'a model with a tensor {name} cannot be widened')
        inputs, outputs = self._inputs.get(part, self._stream), self._outputs.get(part)
        shares = _shares(inputs)
        values = values[:, inputs] * (shares ** 0.5 if inputs is self._stream else shares)
        if outputs is None:
            return values
        values = values[outputs]
        return values * _shares(outputs)[:, None] ** 0.5 if outputs is self._stream else values


def write_disturbed(source: Path, path: Path, widen: bool) -> None:
    """Write the GGUF file `source` in float16 to `path`, its codes disturbed.

    To each weight that was a code, a random part of a step is added, uniform in half a step to
    either side: what the quantiser may have rounded away. With `widen`, see `Widening`. Raises
    ``ValueError`` for a file that cannot be widened.
    """
    reader, random = GGUFReader(source), np.random.default_rng(_SEED)
    arch = reader.fields['general.architecture'].contents()
    writer = GGUFWriter(path, arch)
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    made, changed = _widening_of(reader, arch) if widen else (None, {})
    for key in changed.keys() - reader.fields.keys():
        writer.add_uint32(key, changed[key])
    for name, field in reader.fields.items():
        if not name.startswith(_OWN):
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, changed.get(name, field.contents()), field.types[0], inner)
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        values, steps = _values(tensor.data, kind)
        if made is not None:
            values, steps = made.take(tensor.name, values), made.take(tensor.name, steps)
        values = values + steps * (random.random(values.shape, np.float32) - np.float32(0.5))
        dtype = np.float16 if values.ndim > 1 else np.float32
        writer.add_tensor(tensor.name, values.astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _values(data: np.ndarray, type_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights, float32, and the step of the codes at each; 0 for floats."""
    if type_name in FLOATS:
        values = GgufDecoder().floats(data, type_name)
        return values, np.zeros_like(values)
    codes = GgufDecoder().codes(data, type_name)
    return codes.floats(), np.repeat(codes.scales.astype(np.float32), GROUP, 1)


def _widening_of(reader: GGUFReader, arch: str) -> tuple[Widening, dict[str, object]]:
    """Return how to widen a model, and what its metadata say afterwards."""
    if arch != 'llama':
        raise ValueError(f'only models of Llama can be widened, and this one is of {arch}')
    fields = {name: field.contents() for name, field in reader.fields.items()
              if name.startswith(f'{arch}.')}
    hidden, inner, heads, kv_heads, epsilon = (fields[f'{arch}.{key}'] for key in (
        'embedding_length', 'feed_forward_length', 'attention.head_count',
        'attention.head_count_kv', 'attention.layer_norm_rms_epsilon'))
    head_dim = fields.get(f'{arch}.attention.key_length', hidden // heads)
    made = Widening(hidden, inner, heads, kv_heads, head_dim)
    changed = made.changed | {'attention.key_length': head_dim, 'attention.value_length': head_dim,
                              'attention.layer_norm_rms_epsilon': made.epsilon(epsilon)}
    return made, {f'{arch}.{key}': value for key, value in changed.items()}


def _rows(heads: np.ndarray, head_dim: int) -> np.ndarray:
    return (heads[:, None] * head_dim + np.arange(head_dim)).ravel()


def _shares(sources: np.ndarray) -> np.ndarray:
    """Return one over how often the source of each is there."""
    return (1 / np.bincount(sources)[sources]).astype(np.float32)
