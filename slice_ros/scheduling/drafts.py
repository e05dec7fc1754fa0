# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Speculative decoding: how many guesses the requests of a step feed behind their last tokens.

A guess that is right saves its request a step; each takes the time of a further token, right or
wrong, and one of a draft model that model's time as well. So it is fed where the time that it
saves, by how often guesses of this request were right, is more than it takes; and only of the time
that all other requests can spare. A request begins with a single guess, and never loses more by
guesses than that one and MOST_LOST of its time.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
import math
from typing import NamedTuple

from slice_ros.request import Request
from slice_ros.scheduling.draft_trials import (
    Ask, CATCH_UP, LEAST_SHARE, ModelGuesses, MOST_LOST, Offer, price_of_reading, RATE, Trials,
    UNKNOWN)
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Step

MAX_DRAFT = 8        # guesses of a request in a step: later ones are right too rarely
WEIGHT = 1.0         # guesses that the share of its class counts for in that of a request


class Fed(NamedTuple):
    """How many guesses a request would feed; seconds."""

    length: int = 0
    gain: float = 0.0    # what they save beyond their price, as expected
    price: float = 0.0   # of all of them, and of what a draft model reads before


class Pool:
    """The time of a step that others can spare, and the draft model's rounds that use it."""

    def __init__(self, step: Step, live: Iterable[Request], latency: LatencyModel, now: float
                 ) -> None:
        seconds = latency.step(*step.shape)
        self.saved = seconds / len(step.decode)   # of one token more
        self.further = latency.further_ms / 1e3
        self.slacks = {r: _slack(r, now + seconds, latency) for r in live}
        # The least of others is one of the two least of all; who is late already waits for nobody.
        self._least = sorted(
            (s, n, r) for n, (r, s) in enumerate(self.slacks.items()) if s > 0)[:2]
        self.spent = 0.0
        self._rounds = [0] * MAX_DRAFT   # requests of which a draft model makes the n-th guess
        self._prices: list[float] = []   # of one request more in each of them

    def has(self, request: Request, price: float) -> bool:
        """Return whether all others can spare so many seconds more."""
        others = next((s for s, _, r in self._least if r is not request), math.inf)
        return self.spent + price <= others

    def prices(self, context: int, times: LatencyModel) -> list[float]:
        """Return what each guess of a draft model takes, of a request with so many tokens."""
        if not self._prices:
            self._prices = [times.decode(n + 1) - times.decode(n) for n in self._rounds]
        more = self.further + times.decode_context_ms * context / 1e3
        return [more + price for price in self._prices]

    def take(self, price: float, rounds: int = 0) -> None:
        """Spend seconds, and have a draft model make so many guesses."""
        self.spent += price
        if rounds:
            self._prices = []
        for n in range(rounds):
            self._rounds[n] += 1


class Drafts:
    """The guesses of the requests of one engine, as they turn out. For one thread."""

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}   # of the guesses of a class, those that were right
        self._trials = Trials()               # of a draft model

    def share(self, request: Request) -> float:
        """Return the expected share of right guesses of a request, each behind right ones.

        Those of a draft model are not counted.
        """
        guesses, right, _ = self._looked_up(request)
        prior = max(self._shares.get(request.slo.name, UNKNOWN), LEAST_SHARE)
        return (WEIGHT * prior + right) / (WEIGHT + guesses)

    def finished(self, request: Request) -> None:
        """Learn from a request that has ended."""
        guesses, right, _ = self._looked_up(request)
        if guesses:
            share = self._shares.get(request.slo.name, UNKNOWN)
            new = 1 - (1 - RATE) ** guesses
            share += new * (right / guesses - share)
            self._shares[request.slo.name] = share
        self._trials.finished(request)

    def choose(self, step: Step, live: Iterable[Request],
               guess: Callable[[Request], Sequence[int]], latency: LatencyModel, now: float,
               model: ModelGuesses | None = None) -> dict[Request, Sequence[int]]:
        """Return the guesses that each request of `step` feeds, none for most.

        `guess` returns at most MAX_DRAFT tokens that may follow. A step without prefill alone has
        guesses: its prompts wait for nothing else. A draft `model` makes its own here, where those
        are expected to save more, and reads what it will continue.
        """
        if step.prefill:
            return {}
        found = {r: tokens for r in step.decode if (tokens := guess(r))}
        offers = {} if model is None else {
            r: offer for r in step.decode if (offer := model.offer(r))}
        if not found and not offers:
            return {}
        pool = Pool(step, live, latency, now)
        chosen, asked, prices = {}, {}, {}
        for request in sorted((r for r in step.decode if r in found or r in offers),
                              key=lambda r: pool.slacks[r]):
            tokens = found.get(request, ())
            fed = self._of_lookup(request, tokens, pool)
            if request in offers:
                ask, other = self._of_model(request, offers[request], pool, model.latency)
                if ask is not None and (not ask.guesses or other.gain > fed.gain):
                    asked[request], prices[request] = ask, other.price
                    pool.take(other.price, ask.guesses)
                    if ask.guesses:
                        continue
            if fed.length:
                chosen[request] = tokens[:fed.length]
                pool.take(fed.price)
        return chosen | self._guessed(asked, prices, model) if asked else chosen

    def _looked_up(self, request: Request) -> tuple[int, int, int]:
        """Return how many guesses were looked at, right, and fed that no draft model made."""
        tried = self._trials.of(request)
        if tried is None:
            return request.guesses, request.right, request.drafted
        tried.settle(request)
        return (request.guesses - tried.guesses, request.right - tried.right,
                request.drafted - tried.drafted)

    def _of_lookup(self, request: Request, tokens: Sequence[int], pool: Pool) -> Fed:
        """Return how many of the guesses that were looked up a request feeds."""
        if not tokens:
            return Fed()
        _, right, drafted = self._looked_up(request)
        tried = self._trials.of(request)
        spent = 0.0 if tried is None else tried.spent

        def lost(more: int) -> bool:
            # A right one has saved time, and each took some; the first of all is free.
            earned = pool.saved * (request.right + MOST_LOST * request.generated)
            return drafted > 0 and pool.further * (drafted + more) + spent > earned
        return _fed(self.share(request), pool.saved, repeat(pool.further),
                    min(len(tokens), 1 + 2 * right),
                    lambda n, price: pool.has(request, price) and not lost(n))

    def _of_model(self, request: Request, offer: Offer, pool: Pool, times: LatencyModel
                  ) -> tuple[Ask | None, Fed]:
        """Return what a draft model is to do for a request, and the guesses that pay."""
        prices = pool.prices(offer.cached + offer.behind, times)
        tried = self._trials.admit(request, offer, pool.saved, prices[0], times)
        if tried is None:
            return None, Fed()
        own = pool.slacks[request]   # it gains nothing if it is late because a model reads it
        if offer.behind > CATCH_UP:
            price = times.prefill(CATCH_UP, offer.cached)
            fits = pool.has(request, price) and not 0 < own < price
            return (Ask(CATCH_UP, 0), Fed(price=price)) if fits else (None, Fed())
        reading = price_of_reading(offer.behind, offer.cached, times)
        if not tried.caught_up and 0 < own < reading:
            return None, Fed()
        before = tried.spent + pool.further * self._looked_up(request)[2]
        before += reading if tried.caught_up else 0.0   # else the trial has paid for it
        earned = pool.saved * (request.right + MOST_LOST * request.generated) + tried.loan

        def allowed(n: int, price: float) -> bool:
            lost = tried.spent > 0 and before + price > earned
            return not lost and pool.has(request, reading + price)
        fed = _fed(tried.share, pool.saved, prices, min(offer.most, 1 + 2 * tried.right), allowed)
        if not fed.length:
            return None, fed
        return Ask(offer.behind, fed.length), fed._replace(price=fed.price + reading)

    def _guessed(self, asked: dict[Request, Ask], prices: dict[Request, float],
                 model: ModelGuesses) -> dict[Request, Sequence[int]]:
        """Have a draft model guess; return what it has found, and count it.

        What the format of an answer refuses has taken its time as well.
        """
        found = {r: tokens for r, tokens in model.guess(asked).items() if asked[r].guesses}
        for request in found:
            tried = self._trials.of(request)
            tried.begin(request)
            tried.spent += prices[request]
            tried.caught_up = True
        return {request: tokens for request, tokens in found.items() if tokens}


def _fed(share: float, saved: float, prices: Iterable[float], most: int,
         allowed: Callable[[int, float], bool]) -> Fed:
    """Return how many guesses pay, each behind right ones.

    `allowed` says whether so many may be fed, for so many seconds.
    """
    gain, fed = saved, Fed()
    for length, price in zip(range(1, most + 1), prices):
        gain *= share
        if gain <= price or not allowed(length, fed.price + price):
            break
        fed = Fed(length, fed.gain + gain - price, fed.price + price)
    return fed


def _slack(request: Request, at: float, latency: LatencyModel) -> float:
    """Return for how long the next token of a request may wait from `at`, in seconds."""
    slo = request.slo
    if request.generated:
        due = min(request.first_token_at + slo.tpot * request.generated,
                  request.arrival + slo.deadline)
        return due - at - latency.decode(1)
    due = min(request.arrival + slo.ttft, request.arrival + slo.deadline)
    return due - at - latency.prefill(request.pending)
