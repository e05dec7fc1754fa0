# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Choosing the next token of one request: greedy, or by chance after the request's filters."""

from collections.abc import Sequence
import random

from slice_ros.engine.config import Sampling
import torch

# Filters sort this many of the most likely tokens, and all only where these are not enough.
FIRST_LOOK = 256
# Below this temperature logits divided by it overflow; the most likely token is taken instead.
COLD = 1e-5


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
        # Whether the choice is the largest logit, without a penalty.
        self.plain_greedy = sampling.temperature == 0 and self.seen is None

    def choose(self, logits: torch.Tensor) -> int:
        """Return a token id, given float32 logits [vocab]."""
        wanted = self.sampling
        if self.seen is not None:
            seen = torch.tensor(sorted(self.seen), device=logits.device)
            values = logits[seen]
            penalty = wanted.repetition_penalty
            logits = logits.clone()
            logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
        if wanted.temperature < COLD:
            return int(logits.argmax())
        return pick(*filtered(logits, wanted), self.draw())

    def draw(self) -> float:
        """Return the next random number of this request, from 0 to below 1."""
        return self._random.random()

    def accept(self, token: int) -> None:
        """Record that `token` became part of the text."""
        if self.seen is not None:
            self.seen.add(token)


def filtered(logits: torch.Tensor, wanted: Sampling) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the remaining probabilities, not normalised, and their ids (None = all, in order)."""
    probs = torch.softmax(logits / wanted.temperature, 0)
    vocab = len(probs)
    if not wanted.top_k and wanted.top_p == 1:
        if wanted.min_p:
            probs = torch.where(probs >= wanted.min_p * probs.max(), probs, 0.0)
        return probs, None
    look = wanted.top_k or FIRST_LOOK
    top, ids = torch.topk(probs, min(look, vocab))
    if wanted.top_p < 1:
        # As in transformers, top-p is a share of the probability that top-k leaves.
        whole = float(top.sum()) if wanted.top_k else 1.0
        if not wanted.top_k and float(top.sum()) < wanted.top_p and len(top) < vocab:
            top, ids = torch.sort(probs, descending=True)
        before = top.cumsum(0) - top
        keep = max(int((before < wanted.top_p * whole).sum()), 1)
        top, ids = top[:keep], ids[:keep]
    if wanted.min_p:
        keep = int((top >= wanted.min_p * top[0]).sum())
        top, ids = top[:keep], ids[:keep]
    return top, ids


def pick(probs: torch.Tensor, ids: torch.Tensor | None, draw: float) -> int:
    """Return the token that `draw`, from 0 to below 1, chooses of what `filtered` returned."""
    cumulative = probs.cumsum(0, dtype=torch.float64)
    at = int(torch.searchsorted(cumulative, draw * float(cumulative[-1]), right=True))
    at = min(at, len(cumulative) - 1)
    return at if ids is None else int(ids[at])
