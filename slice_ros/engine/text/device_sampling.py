# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Choosing the tokens of all requests of a step at once, on the device that has their logits.

The choices are those of `Sampler.choose`. The host waits for the device once.
"""

from collections.abc import Callable, Mapping, Sequence
import math

import numpy as np
from slice_ros.engine.runners.fetch import fetch
from slice_ros.engine.text.sampling import COLD, filtered, FIRST_LOOK, pick, Ranked, Sampler
import torch


def choose_at_once(logits: torch.Tensor, samplers: Sequence[Sampler],
                   forbidden: Mapping[int, np.ndarray]) -> Callable[[], list[int]]:
    """Return a function that waits for a token id for each row of `logits`; as `choose_tokens`."""
    draws = {row: sampler.draw() for row, sampler in enumerate(samplers)
             if sampler.sampling.temperature >= COLD}
    logits = _adjusted(logits, samplers, forbidden)
    arrived = fetch(chosen(logits, samplers, draws))

    def decided() -> list[int]:
        tokens, rest = arrived()
        for row, undecided in enumerate(rest):
            if undecided:  # rare: the first look did not reach top-p; this waits once more
                tokens[row] = pick(*filtered(logits[row].cpu().numpy(), samplers[row].sampling),
                                   draws[row])
        return tokens
    return decided


def rank_at_once(logits: torch.Tensor, wanted: Mapping[int, int]
                 ) -> Callable[[Sequence[int]], dict[int, Ranked]]:
    """Return a function that waits for the `Ranked` of each row of `wanted`; as `rank`."""
    rows = _upload(torch.tensor(list(wanted)), logits.device)
    picked = logits[rows].double()
    norm = picked.logsumexp(-1, keepdim=True)
    values, ids = picked.topk(min(max(wanted.values()), logits.shape[-1]))
    arrived = fetch(torch.cat((norm, values - norm, ids), -1))

    def ranked(tokens: Sequence[int]) -> dict[int, Ranked]:
        own = logits[rows, _upload(torch.tensor([tokens[row] for row in wanted]), logits.device)]
        found = {}
        for (row, top), logit, (norm, *rest) in zip(wanted.items(), own.tolist(), arrived()):
            half = len(rest) // 2
            found[row] = Ranked([tokens[row], *map(int, rest[half:half + top])],
                                [logit - norm, *rest[:min(top, half)]])
        return found
    return ranked


def chosen(logits: torch.Tensor, samplers: Sequence[Sampler], draws: Mapping[int, float]
           ) -> torch.Tensor:
    """Return int64 [2, rows] on the device: token ids, and whether a row is still undecided.

    `draws` has the random number, from 0 to below 1, of each row that is not greedy.
    """
    tokens = logits.argmax(-1)
    rest = torch.zeros_like(tokens)
    groups = [], []
    for row in draws:
        wanted = samplers[row].sampling
        groups[bool(wanted.top_k or wanted.top_p < 1)].append(row)
    for choose, rows in zip((_of_all, _of_the_likeliest), groups):
        if not rows:
            continue
        numbers = [(row, draws[row], s.temperature, s.min_p, s.top_p, s.top_k)
                   for row, s in ((row, samplers[row].sampling) for row in rows)]
        at, draw, temperature, min_p, top_p, top_k = _upload(
            torch.tensor(numbers, dtype=torch.float64).T, logits.device).unsqueeze(-1)
        at = at[:, 0].long()
        probs = torch.softmax(logits[at] / temperature.float(), -1)
        look = max(samplers[row].sampling.top_k or FIRST_LOOK for row in rows)
        tokens[at], rest[at] = choose(probs, draw, min_p, top_p, top_k, look)
    return torch.stack((tokens, rest))


def _of_all(probs: torch.Tensor, draw: torch.Tensor, min_p: torch.Tensor, *_: object
            ) -> tuple[torch.Tensor, torch.Tensor]:
    probs = torch.where(probs >= min_p.float() * probs.amax(-1, True), probs, 0.0)
    at = _drawn(probs, draw).clamp_(max=probs.shape[-1] - 1)[:, 0]
    return at, torch.zeros_like(at)


def _of_the_likeliest(probs: torch.Tensor, draw: torch.Tensor, min_p: torch.Tensor,
                      top_p: torch.Tensor, top_k: torch.Tensor, look: int
                      ) -> tuple[torch.Tensor, torch.Tensor]:
    vocab = probs.shape[-1]
    top, ids = torch.topk(probs, min(look, vocab))
    number = torch.arange(top.shape[-1], device=top.device)
    top = torch.where(number < torch.where(top_k > 0, top_k, FIRST_LOOK), top, 0.0)
    found = top.sum(-1, True)
    whole = torch.where(top_k > 0, found, 1.0)
    # A look at the whole vocabulary leaves nothing undecided.
    rest = (top_k == 0) & (top_p < 1) & (found < top_p) & (FIRST_LOOK < vocab)
    inside = (top.cumsum(-1) - top < top_p * whole) | (top_p == 1) | (number == 0)
    inside &= top >= min_p.float() * top[:, :1]
    top = torch.where(inside, top, 0.0)
    at = torch.minimum(_drawn(top, draw), (top > 0).sum(-1, True) - 1)
    return ids.gather(-1, at)[:, 0], rest[:, 0].long()


def _drawn(probs: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
    """Return int64 [rows, 1]: the index where the share `draw` [rows, 1] of the sum is reached."""
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)


def _adjusted(logits: torch.Tensor, samplers: Sequence[Sampler],
              forbidden: Mapping[int, np.ndarray]) -> torch.Tensor:
    """Return logits with biases and penalties, and -inf for forbidden tokens: an upload each."""
    penalised = [row for row, sampler in enumerate(samplers) if sampler.seen is not None]
    biases = [(row, *pair) for row, sampler in enumerate(samplers)
              for pair in sampler.sampling.logit_bias]
    if not penalised and not forbidden and not biases:
        return logits
    logits = logits.clone()
    if forbidden:
        masks = _upload(torch.from_numpy(np.stack(list(forbidden.values()))), logits.device)
        for row, without in zip(forbidden, masks):
            logits[row].masked_fill_(without, -math.inf)
    if biases:
        at, token, bias = _upload(torch.tensor(biases, dtype=torch.float64).T, logits.device)
        logits[at.long(), token.long()] += bias.float()   # each place once
    numbers = [(row, token, samplers[row].sampling.repetition_penalty)
               for row in penalised for token in samplers[row].seen]
    if numbers:
        at, seen, penalty = _upload(torch.tensor(numbers, dtype=torch.float64).T, logits.device)
        at, seen, penalty = at.long(), seen.long(), penalty.float()
        values = logits[at, seen]
        logits[at, seen] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def _upload(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    # From pinned memory: otherwise the copy waits for all work queued on the device.
    if device.type == 'cuda':
        host = host.contiguous().pin_memory()
    return host.to(device, non_blocking=True)
