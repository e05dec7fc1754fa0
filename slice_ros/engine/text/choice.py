# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Choosing the tokens of a step: one request after the other on CPU, all at once on a GPU."""

from collections.abc import Callable, Mapping, Sequence
import math

from slice_ros.engine.text.device_sampling import choose_at_once
from slice_ros.engine.text.sampling import Sampler
import torch


def choose_tokens(logits: torch.Tensor, samplers: Sequence[Sampler],
                  forbidden: Mapping[int, torch.Tensor] | None = None
                  ) -> Callable[[], list[int]]:
    """Return a function that gives a token id for each row of float32 `logits` [rows, vocab].

    `forbidden` has, by row, bool [vocab]: the tokens that must not be chosen. The logits must not
    change until the function has returned.
    """
    if logits.device.type != 'cpu':
        return choose_at_once(logits, samplers, forbidden or {})
    tokens = logits.argmax(-1).tolist()
    for row, sampler in enumerate(samplers):
        without = forbidden.get(row) if forbidden else None
        if without is not None:
            # If the largest logit is allowed, it is also the largest of the allowed ones.
            if not sampler.plain_greedy or without[tokens[row]]:
                masked = logits[row].masked_fill(without.to(logits.device), -math.inf)
                tokens[row] = sampler.choose(masked)
        elif not sampler.plain_greedy:
            tokens[row] = sampler.choose(logits[row])
    return lambda: tokens
