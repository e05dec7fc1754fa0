# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Choosing and ranking the tokens of a step: row by row on a CPU, all at once on a GPU."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.text.sampling import Ranked, ranked, Sampler

if TYPE_CHECKING:
    import torch


NO_TOKEN = -1   # of a row whose guess was wrong
NO_GUESS = -2   # in place of a guess: the row never counts


def choose_tokens(logits: 'np.ndarray | torch.Tensor', samplers: Sequence[Sampler],
                  forbidden: Mapping[int, np.ndarray] | None = None,
                  guesses: Mapping[int, int] | None = None) -> Callable[[], list[int]]:
    """Return a function that gives a token id for each row of float32 `logits` [rows, vocab].

    `forbidden` has, by row, bool [vocab]: the tokens that must not be chosen. `guesses`, on the
    CPU only, has the token that the row before must choose for a row to count: else it uses no
    random number. The logits must not change until the function has returned.
    """
    if not isinstance(logits, np.ndarray):
        if logits.device.type != 'cpu':
            from slice_ros.engine.text.device_sampling import choose_at_once
            return choose_at_once(logits, samplers, forbidden or {})
        logits = logits.numpy()
    tokens = logits.argmax(-1).tolist()
    for row, sampler in enumerate(samplers):
        if guesses and row in guesses:
            if tokens[row - 1] != guesses[row]:
                tokens[row] = NO_TOKEN
                continue
            sampler.accept(guesses[row])
        without = forbidden.get(row) if forbidden else None
        if without is not None:
            # If the largest logit is allowed, it is also the largest of the allowed ones.
            if not sampler.plain_greedy or without[tokens[row]]:
                tokens[row] = sampler.choose(np.where(without, np.float32(-np.inf), logits[row]))
        elif not sampler.plain_greedy:
            tokens[row] = sampler.choose(logits[row])
    return lambda: tokens


def rank(logits: 'np.ndarray | torch.Tensor', wanted: Mapping[int, int]
         ) -> Callable[[Sequence[int]], dict[int, Ranked]]:
    """Return a function that gives, for the chosen tokens of all rows, the `Ranked` of some.

    `wanted` has how many likeliest tokens each of these rows asks for. A row without a token has
    none. The logits must not change until that function has returned.
    """
    if not wanted:
        return lambda tokens: {}
    if not isinstance(logits, np.ndarray):
        if logits.device.type != 'cpu':
            from slice_ros.engine.text.device_sampling import rank_at_once
            return rank_at_once(logits, wanted)
        logits = logits.numpy()
    return lambda tokens: {row: ranked(logits[row], tokens[row], top)
                           for row, top in wanted.items() if tokens[row] != NO_TOKEN}
