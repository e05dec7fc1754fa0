# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""
Caches of single requests as one cache of a batch, and back.

Rows are padded on the left, which is how transformers masks a batch for generation: row i has its
tokens in the last positions, and the mask says where they begin. Kinds of layers: attention, over
all tokens or a window, and linear attention, whose states need no padding.
"""

from collections.abc import Sequence
import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import DynamicCache

# Layers of a DynamicCache that can be stacked; by name, because older transformers have fewer.
_KINDS = ('DynamicLayer', 'DynamicSlidingWindowLayer', 'LinearAttentionLayer',
          'LinearAttentionAndFullAttentionLayer',
          'LinearAttentionAndSlidingWindowAttentionLayer')


def can_stack(cache: 'DynamicCache') -> bool:
    """Return whether all layers of a cache are of kinds that this module knows."""
    return all(type(layer).__name__ in _KINDS for layer in cache.layers)


def length_of(cache: 'DynamicCache') -> int:
    """Return how many tokens a cache has; its first layer may have states, which do not tell."""
    return max((layer.get_seq_length() for layer in cache.layers
                if getattr(layer, 'keys', None) is not None), default=0)


def token_bytes(cache: 'DynamicCache') -> float:
    """Return the bytes of keys and values that a cache has for each of its tokens."""
    kept = sum(tensor.nbytes for layer in cache.layers
               for tensor in (getattr(layer, 'keys', None), getattr(layer, 'values', None))
               if tensor is not None)
    return kept / max(length_of(cache), 1)


def undo_point(cache: 'DynamicCache') -> tuple[int, list]:
    """Return how many tokens a cache has, and those of its layers that cannot be cropped."""
    return length_of(cache), [
        None if type(layer).__name__ == 'DynamicLayer' else _copied(layer)
        for layer in cache.layers]


def undo(cache: 'DynamicCache', point: tuple[int, list] | None, length: int) -> None:
    """
    Take a cache back to `length` tokens: what a step has written since `point` that failed.

    Raises ``RuntimeError`` where a layer cannot be cropped and the point is another.
    """
    excess = length_of(cache) - length
    for index, layer in enumerate(cache.layers):
        if type(layer).__name__ == 'DynamicLayer':
            layer.crop(-excess)
        elif point is None or point[0] != length:
            raise RuntimeError(f'the states of a cache cannot go back to {length} tokens')
        else:
            cache.layers[index] = point[1][index]


def stack(caches: Sequence['DynamicCache'], lengths: Sequence[int]) -> 'DynamicCache':
    """Return one cache with a row for each of `caches`, which hold `lengths` tokens."""
    batch = copy.copy(caches[0])
    batch.layers = [_stacked([cache.layers[index] for cache in caches], max(lengths))
                    for index in range(len(caches[0].layers))]
    return batch


def mask(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the attention mask, int64 [rows, longest + 1]: one more token for each row."""
    ends = torch.arange(max(lengths) + 1, device=device)
    starts = max(lengths) - torch.tensor(lengths, device=device)
    return (ends >= starts[:, None]).long()


def unstack(batch: 'DynamicCache', caches: Sequence['DynamicCache']) -> None:
    """Give each of `caches` what a step with one token a row has added to `batch`."""
    for index, layer in enumerate(batch.layers):
        for row, cache in enumerate(caches):
            own = cache.layers[index]
            if getattr(layer, 'keys', None) is not None:
                own.update(layer.keys[row:row + 1, :, -1:], layer.values[row:row + 1, :, -1:])
            for name in ('conv_states', 'recurrent_states'):
                for key, state in getattr(layer, name, {}).items():
                    if state is not None:
                        getattr(own, name)[key] = state[row:row + 1].clone()


def _stacked(rows: Sequence, longest: int):
    """Return one layer for several: a copy of the first with the tensors of all."""
    layer = copy.copy(rows[0])
    if getattr(layer, 'keys', None) is not None:
        width = longest
        if hasattr(layer, 'cumulative_length'):
            layer.cumulative_length = longest
            width = min(longest, layer.sliding_window - 1)
        layer.keys = _padded([row.keys for row in rows], width)
        layer.values = _padded([row.values for row in rows], width)
    for name, kept in vars(rows[0]).items():
        if isinstance(kept, dict):   # flags and sizes by state, and the states
            setattr(layer, name, {
                key: torch.cat([getattr(row, name)[key] for row in rows])
                if torch.is_tensor(value) else value for key, value in kept.items()})
    return layer


def _copied(layer):
    """Return a layer that later steps do not change: states are written in place, keys are not."""
    made = copy.copy(layer)
    for name, kept in vars(layer).items():
        if isinstance(kept, dict):
            setattr(made, name, {key: value.clone() if torch.is_tensor(value) else value
                                 for key, value in kept.items()})
    return made


def _padded(rows: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    """Return [1, heads, tokens, size] tensors as one, each in the last of `width` tokens."""
    heads, size = rows[0].shape[1], rows[0].shape[3]
    padded = rows[0].new_zeros(len(rows), heads, width, size)
    for row, tensor in zip(padded, rows):
        row[:, width - tensor.shape[2]:] = tensor[0]
    return padded
