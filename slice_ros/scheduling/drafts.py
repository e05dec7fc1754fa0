# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Speculative decoding: how many guesses the requests of a step feed behind their last tokens.

A guess that is right saves its request a step; each takes the time of a further token, right or
wrong. So it is fed where the time that it saves, by how often guesses of this request were right,
is more than it takes; and only of the time that all other requests can spare. A request begins
with a single guess, and never loses more by guesses than that one and MOST_LOST of its time.
"""

from collections.abc import Callable, Iterable, Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Step

MAX_DRAFT = 8        # guesses of a request in a step: later ones are right too rarely
UNKNOWN = 0.5        # share of guesses that are right, of a class that had none yet
LEAST_SHARE = 0.25   # where a class has copied little, a request may still: it is tried
WEIGHT = 1.0         # guesses that the share of its class counts for in that of a request
MOST_LOST = 0.01     # share of the time of an answer that guesses may take and not give back
RATE = 1 / 64        # at which the share of a class follows its guesses


class Drafts:
    """The guesses of the requests of one engine, as they turn out. For one thread."""

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}   # of the guesses of a class, those that were right

    def share(self, request: Request) -> float:
        """Return the expected share of right guesses of a request, each behind right ones."""
        prior = max(self._shares.get(request.slo.name, UNKNOWN), LEAST_SHARE)
        return (WEIGHT * prior + request.right) / (WEIGHT + request.guesses)

    def finished(self, request: Request) -> None:
        """Learn from a request that has ended."""
        if request.guesses:
            share = self._shares.get(request.slo.name, UNKNOWN)
            new = 1 - (1 - RATE) ** request.guesses
            share += new * (request.right / request.guesses - share)
            self._shares[request.slo.name] = share

    def choose(self, step: Step, live: Iterable[Request],
               guess: Callable[[Request], Sequence[int]], latency: LatencyModel, now: float
               ) -> dict[Request, Sequence[int]]:
        """Return the guesses that each request of `step` feeds, none for most.

        `guess` returns at most MAX_DRAFT tokens that may follow. A step without prefill alone has
        guesses: its prompts wait for nothing else.
        """
        found = {} if step.prefill else {r: tokens for r in step.decode if (tokens := guess(r))}
        if not found:
            return {}
        seconds, further = latency.step(*step.shape), latency.further_ms / 1e3
        saved = seconds / len(step.decode)   # of one token more
        slacks = {r: _slack(r, now + seconds, latency) for r in live}
        # The least of others is one of the two least of all; who is late already waits for nobody.
        least = sorted((s, n, r) for n, (r, s) in enumerate(slacks.items()) if s > 0)[:2]
        chosen, spent = {}, 0.0
        for request in sorted(found, key=lambda r: slacks[r]):
            others = next((s for s, _, r in least if r is not request), math.inf)
            share, gain, length = self.share(request), saved, 0
            for _ in found[request][:1 + 2 * request.right]:
                gain *= share
                if (gain <= further or spent + further > others
                        or _lost(request, length + 1, saved, further)):
                    break
                length += 1
                spent += further
            if length:
                chosen[request] = found[request][:length]
        return chosen


def _lost(request: Request, more: int, saved: float, further: float) -> bool:
    """Return whether a request that feeds so many `more` guesses may lose too much by them.

    A right one has saved `saved` seconds, and each took `further`; the first of all is free.
    """
    earned = saved * (request.right + MOST_LOST * request.generated)
    return request.drafted > 0 and further * (request.drafted + more) > earned


def _slack(request: Request, at: float, latency: LatencyModel) -> float:
    """Return for how long the next token of a request may wait from `at`, in seconds."""
    slo = request.slo
    if request.generated:
        due = min(request.first_token_at + slo.tpot * request.generated,
                  request.arrival + slo.deadline)
        return due - at - latency.decode(1)
    due = min(request.arrival + slo.ttft, request.arrival + slo.deadline)
    return due - at - latency.prefill(request.pending)
