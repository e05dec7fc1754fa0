# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Choosing the next token of one request: greedy, or by chance after the request's filters."""

from collections.abc import Sequence
import math
import random
from typing import NamedTuple

import numpy as np
from slice_ros.engine.config import Sampling

# Filters sort this many of the most likely tokens, and all only where these are not enough.
FIRST_LOOK = 256
# Below this temperature logits divided by it overflow; the most likely token is taken instead.
COLD = 1e-5
# Columns of so many logits are compared before any is sorted: of a vocabulary of 49,152, 1,536.
_COLUMN = 32
_BLOCK = 256  # probabilities that are added up together


class Ranked(NamedTuple):
    """Natural logarithms of probabilities at one place, by the model's logits as they are.

    The first is that of the chosen token; behind it are the likeliest ones, the likeliest first.
    """

    tokens: list[int]
    logprobs: list[float]


class Sampler:
    """The choices of one request.

    Each request has its own random numbers, one for each token. So its text depends on its seed
    and its logits alone, not on the other requests of a step.
    """

    __slots__ = ('sampling', 'plain_greedy', '_random', 'seen')

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self.sampling = sampling
        self._random = random.Random(sampling.seed)  # None: seeded by the system
        self.seen = set(prompt) if sampling.repetition_penalty != 1 else None
        # Whether the choice is the largest logit, as it is.
        self.plain_greedy = (sampling.temperature == 0 and self.seen is None
                             and not sampling.logit_bias)

    def choose(self, logits: np.ndarray) -> int:
        """Return a token id, given float32 logits [vocab]."""
        wanted = self.sampling
        if wanted.logit_bias:
            tokens, biases = zip(*wanted.logit_bias)
            logits = logits.copy()
            logits[list(tokens)] += np.array(biases, np.float32)
        if self.seen is not None:
            seen = np.fromiter(self.seen, np.int64, len(self.seen))
            values = logits[seen]
            penalty = np.float32(wanted.repetition_penalty)
            logits = logits.copy()
            logits[seen] = np.where(values > 0, values / penalty, values * penalty)
        if wanted.temperature < COLD:
            return int(logits.argmax())
        return pick(*filtered(logits, wanted), self.draw())

    def draw(self) -> float:
        """Return the next random number of this request, from 0 to below 1."""
        return self._random.random()

    def skip(self) -> None:
        """Use up what the choice of a token would, where there is none to choose."""
        if self.sampling.temperature >= COLD:
            self.draw()

    def accept(self, token: int) -> None:
        """Record that `token` became part of the text."""
        if self.seen is not None:
            self.seen.add(token)


def filtered(logits: np.ndarray, wanted: Sampling) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the remaining probabilities, not normalised, and their ids (None = all, in order)."""
    probs = np.exp((logits - logits.max()) / np.float32(wanted.temperature))
    probs /= probs.sum()
    vocab = len(probs)
    if not wanted.top_k and wanted.top_p == 1:
        if wanted.min_p:
            probs[probs < np.float32(wanted.min_p) * probs.max()] = 0.0
        return probs, None
    ids = _largest(probs, min(wanted.top_k or FIRST_LOOK, vocab))
    top = probs[ids]
    if wanted.top_p < 1:
        # As in transformers, top-p is a share of the probability that top-k leaves.
        whole = float(top.sum()) if wanted.top_k else 1.0
        if not wanted.top_k and float(top.sum()) < wanted.top_p and len(top) < vocab:
            ids = _largest(probs, vocab)
            top = probs[ids]
        before = top.cumsum() - top
        keep = max(int((before < wanted.top_p * whole).sum()), 1)
        top, ids = top[:keep], ids[:keep]
    if wanted.min_p:
        keep = int((top >= np.float32(wanted.min_p) * top[0]).sum())
        top, ids = top[:keep], ids[:keep]
    return top, ids


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` largest values, the largest first; maybe without zeros.

    Few values of a vocabulary reach the bound, and these alone are sorted.
    """
    least = bound_of(values, count)
    near = None if least is None else np.flatnonzero(values >= least if least else values)
    found = values if near is None else values[near]
    order = np.argsort(-found, kind='stable')[:count]
    return order if near is None else near[order]


def bound_of(values: np.ndarray, count: int) -> np.floating | None:
    """Return what the `count` largest values reach at least; None where they are too few to tell.

    It is the largest value of each of so many columns.
    """
    columns = len(values) // _COLUMN
    if count > columns:
        return None
    tops = values[:columns * _COLUMN].reshape(_COLUMN, columns).max(0)
    return np.partition(tops, columns - count)[columns - count]


def ranked(logits: np.ndarray, token: int, top: int) -> Ranked:
    """Return `token` and the `top` likeliest, given float32 logits [vocab]."""
    highest = logits.max()
    norm = float(highest) + math.log(np.exp(logits - highest).sum(dtype=np.float64))
    tokens = [token]
    if top:
        least = bound_of(logits, top)
        near = np.arange(len(logits)) if least is None else np.flatnonzero(logits >= least)
        tokens += near[np.argsort(-logits[near], kind='stable')[:top]].tolist()
    return Ranked(tokens, (logits[tokens].astype(np.float64) - norm).tolist())


def pick(probs: np.ndarray, ids: np.ndarray | None, draw: float) -> int:
    """Return the token that `draw`, from 0 to below 1, chooses of what `filtered` returned.

    Blocks are added up first: one sum over a whole vocabulary takes ten times as long.
    """
    sums = np.add.reduceat(probs, np.arange(0, len(probs), _BLOCK), dtype=np.float64).cumsum()
    sought = draw * sums[-1]
    block = _reached(sums, sought)
    inside = probs[block * _BLOCK:(block + 1) * _BLOCK].cumsum(dtype=np.float64)
    at = block * _BLOCK + _reached(inside, sought - (sums[block - 1] if block else 0.0))
    return at if ids is None else int(ids[at])


def _reached(cumulative: np.ndarray, sought: float) -> int:
    """Return where rising sums pass `sought`; however they round, where something was added."""
    return min(int(np.searchsorted(cumulative, sought, side='right')),
               int(np.searchsorted(cumulative, cumulative[-1])))
