# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The tokens of a step: chosen one after the other on CPU, all at once on a device."""

from collections.abc import Callable, Mapping, Sequence
import math

from slice_ros.engine.text.device_sampling import choose_at_once
from slice_ros.engine.text.sampling import Sampler
import torch


def choose_tokens(logits: torch.Tensor, samplers: Sequence[Sampler],
                  forbidden: Mapping[int, torch.Tensor] | None = None
                  ) -> Callable[[], list[int]]:
    """Return what gives a token id for each row of float32 `logits` [rows, vocab].

    `forbidden` are, by row, the tokens [vocab], bool, that may not be chosen, whatever filters
    and penalties would leave.
    """
    if logits.device.type != 'cpu':
        return choose_at_once(logits, samplers, forbidden or {})
    tokens = logits.argmax(-1).tolist()
    for row, sampler in enumerate(samplers):
        without = forbidden.get(row) if forbidden else None
        if without is not None:
            # The largest logit of all, where it is allowed, is the largest of those allowed.
            if not sampler.plain_greedy or without[tokens[row]]:
                masked = logits[row].masked_fill(without.to(logits.device), -math.inf)
                tokens[row] = sampler.choose(masked)
        elif not sampler.plain_greedy:
            tokens[row] = sampler.choose(logits[row])
    return lambda: tokens
