# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a draft model pays for its time with a request: what its guesses took, and saved.

A draft model has to have read what it continues: its cost comes first. So a request is caught up
where the guesses of its class have saved more than that takes. What they save is found by trials:
the first is free, each later one is paid by a hundredth of the time of the class since then. So
requests whose guesses are never right take, together, one trial and 1 % longer at most.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import math
from typing import NamedTuple

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel

CATCH_UP = 64         # tokens that a draft model reads of a request in a step
FEW = 16              # of these, so many cost as further ones of a decode, more as a prefill
UNKNOWN = 0.5         # share of guesses that are right, of a class that had none yet
LEAST_SHARE = 0.25    # of a class that had few: a request may still have more
MOST_LOST = 0.01      # share of the time of an answer that guesses may take and not give back
RATE = 1 / 64         # at which the share of a class follows its guesses
PRIOR_WEIGHT = 4.0    # guesses that the share of its class counts for in that of a request
GAIN_RATE = 1 / 8     # at which what the guesses of a class save follows its requests
LOAN = 1 / 8          # share of that saving which a request may be behind before it has any


class Offer(NamedTuple):
    """What a draft model can do for a request."""

    cached: int    # tokens that it has read
    behind: int    # tokens that it has not read yet
    most: int      # guesses that it may make


class Ask(NamedTuple):
    """What a draft model is to do for a request before a step."""

    feed: int      # tokens that it reads
    guesses: int   # that it makes behind them; 0 = it only catches up


class Spent(NamedTuple):
    """The time of a draft model before one step; seconds."""

    took: float = 0.0
    predicted: float = 0.0


NOTHING = Spent()


class ModelGuesses(NamedTuple):
    """A draft model as the scheduler sees it."""

    offer: Callable[[Request], Offer | None]   # None = nothing for this request
    guess: Callable[[Mapping[Request, Ask]], dict[Request, list[int]]]
    latency: LatencyModel


@dataclass(slots=True)
class Tried:
    """One request that a draft model reads."""

    prior: float           # expected share of right guesses, before there are any
    loan: float            # seconds that it may lose before its guesses have saved any
    guesses: int = 0       # looked at
    right: int = 0
    drafted: int = 0       # fed
    spent: float = 0.0     # seconds that these took, as predicted
    caught_up: bool = False
    # Counts of the request (guesses, right, drafted) before a step with such guesses.
    before: tuple[int, int, int] | None = None

    @property
    def share(self) -> float:
        """The expected share of right guesses, each behind right ones."""
        return (PRIOR_WEIGHT * self.prior + self.right) / (PRIOR_WEIGHT + self.guesses)

    def begin(self, request: Request) -> None:
        """Count from here on: the next step has guesses of the draft model."""
        self.before = request.guesses, request.right, request.drafted

    def settle(self, request: Request) -> None:
        """Count what has become of the guesses of the last step."""
        if self.before is not None:
            guesses, right, drafted = self.before
            self.guesses += request.guesses - guesses
            self.right += request.right - right
            self.drafted += request.drafted - drafted
            self.before = None


@dataclass(slots=True)
class Account:
    """What the guesses of a class have come to."""

    share: float = math.nan    # of guesses, those that were right
    gain: float = 0.0          # seconds that they save of a request, without catching up
    requests: int = 0          # that were tried
    credit: float = math.inf   # seconds that the next trial may take


@dataclass(slots=True)
class Trials:
    """Which requests a draft model reads. For one thread; seconds are those of latency models."""

    _accounts: dict[str, Account] = field(default_factory=dict)     # by class name
    _tried: dict[Request, Tried] = field(default_factory=dict)
    _saved: float = 0.0    # seconds that a token saves, as of the last step

    def of(self, request: Request) -> Tried | None:
        """Return the record of a request, None where it has none."""
        return self._tried.get(request)

    def admit(self, request: Request, offer: Offer, saved: float, price: float,
              times: LatencyModel) -> Tried | None:
        """Return the record of a request that a draft model may read, None for others.

        `saved` are the seconds that a right guess saves, `price` those that a guess takes.
        """
        self._saved = saved
        tried = self._tried.get(request)
        if tried is not None:
            tried.settle(request)
            if offer.behind <= CATCH_UP or not tried.caught_up:
                return tried
        account = self._accounts.setdefault(request.slo.name, Account())
        invest = price_of_catching_up(offer, times)
        known = 0.0 if math.isnan(account.share) else max(account.share, LEAST_SHARE)
        if known * saved > price and account.gain > invest:
            prior, loan = known, LOAN * account.gain
        elif tried is None and UNKNOWN * saved > price and account.credit >= invest + price:
            prior, loan, account.credit = UNKNOWN, 0.0, 0.0
        else:
            return None
        if tried is None:
            tried = self._tried[request] = Tried(prior, loan)
        tried.caught_up = False
        return tried

    def finished(self, request: Request) -> None:
        """Learn from a request that has ended."""
        tried, saved = self._tried.pop(request, None), self._saved
        account = self._accounts.get(request.slo.name)
        if account is None:
            return
        lost = 0.0
        if tried is not None:
            tried.settle(request)
            net = saved * tried.right - tried.spent
            lost = max(-net, 0.0)
            account.requests += 1
            account.gain += max(GAIN_RATE, 1 / account.requests) * (net - account.gain)
            if tried.guesses:
                before = UNKNOWN if math.isnan(account.share) else account.share
                new = 1 - (1 - RATE) ** tried.guesses
                account.share = before + new * (tried.right / tried.guesses - before)
        account.credit += max(MOST_LOST * saved * request.generated - lost, 0.0)


def price_of_reading(tokens: int, cached: int, times: LatencyModel) -> float:
    """Return the seconds that a draft model takes longer for a guess where it reads tokens first.

    The last of them it reads in any case.
    """
    if tokens <= FEW:
        return times.further_ms * (tokens - 1) / 1e3
    return max(times.prefill(tokens, cached) - times.decode(1), 0.0)


def price_of_catching_up(offer: Offer, times: LatencyModel) -> float:
    """Return the seconds in which a draft model reads all that it is behind, chunk by chunk."""
    chunks = (offer.behind - 1) // CATCH_UP
    return (price_of_reading(offer.behind, offer.cached, times)
            + chunks * times.prefill_base_ms / 1e3)
