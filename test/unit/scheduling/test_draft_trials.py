# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A draft model reads and guesses where that pays, and of the time that others can spare."""

import pytest
from slice_ros.request import Request
from slice_ros.scheduling.draft_trials import (
    Account, Ask, CATCH_UP, ModelGuesses, MOST_LOST, Offer, price_of_catching_up,
    price_of_reading, Trials)
from slice_ros.scheduling.drafts import Drafts, MAX_DRAFT
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import PrefillChunk, Step
from slice_ros.slo import SloClass

LOOSE = SloClass('dialogue')
STEP_MS = 50.0
TARGET = LatencyModel('made', ((1, STEP_MS), (4, 4 * STEP_MS)), further_ms=2.0,
                      prefill_token_ms=5.0)
GUESS = 7


def times(step=4.0, token=0.5, most=4.0):
    """Return the latency model of a draft model: a step, and a token that it reads."""
    return LatencyModel('draft', ((1, step), (2, most)), further_ms=token, prefill_base_ms=step,
                        prefill_token_ms=token)


class Reader:
    """A draft model that has read some tokens of each request, and guesses the same always."""

    def __init__(self, latency=None, most=MAX_DRAFT, works=True):
        self.latency, self.most, self.works = latency or times(), most, works
        self.cached, self.asked = {}, []

    def offer(self, request):
        cached = self.cached.setdefault(request, 0)
        return Offer(cached, request.context - cached, self.most) if self.most else None

    def guess(self, asked):
        self.asked.append(dict(asked))
        if not self.works:
            return {}
        for request, ask in asked.items():
            self.cached[request] += ask.feed
        return {request: [GUESS] * ask.guesses for request, ask in asked.items()}

    def choose(self, drafts, step, live=None, found=(), now=1.0, latency=TARGET):
        """Return how many guesses each request feeds, of the model or of those found."""
        chosen = drafts.choose(step, live or step.decode, lambda request: found, latency, now,
                               ModelGuesses(self.offer, self.guess, self.latency))
        return {request: list(tokens) for request, tokens in chosen.items()}


def running(slo=LOOSE, prompt=10, generated=1, max_tokens=1000):
    request = Request('r', slo, 0.0, prompt, max_tokens)
    request.advance(prompt, 1.0)
    for _ in range(generated - 1):
        request.advance(1, 1.0)
    return request


def answer(drafts, reader, prompt, length, right):
    """Serve an answer; return the seconds of its steps and of the draft model's, as predicted."""
    request, spent = running(prompt=prompt), 0.0
    while request.generated < length:
        asked = len(reader.asked)
        tokens = reader.choose(drafts, Step((request,))).get(request, ())
        for ask in [asks[request] for asks in reader.asked[asked:]]:
            cached = reader.cached[request] - ask.feed
            if not ask.guesses:
                spent += reader.latency.prefill(ask.feed, cached)
            else:
                spent += (price_of_reading(ask.feed, cached, reader.latency)
                          + ask.guesses * reader.latency.decode(1))
        spent += TARGET.decode(1, 0, len(tokens))
        request.drafted += len(tokens)
        request.advance(1, 1.0)
        for _ in tokens:
            found = right(request.generated)
            request.look_at(found)
            if not found:
                break
    drafts.finished(request)
    return request, spent


@pytest.mark.parametrize('step', [0.5, 4.0, 12.0, 22.0, 60.0])
@pytest.mark.parametrize('prompt', [5, 60, 700])
def test_requests_whose_guesses_are_never_right_are_hardly_slower(step, prompt):
    """All of a class lose one trial and a hundredth of their time."""
    drafts, reader = Drafts(), Reader(times(step))
    spent = plain = 0.0
    first = Offer(0, prompt + 1, MAX_DRAFT)
    trial = (price_of_catching_up(first, reader.latency) + 2 * reader.latency.decode(1)
             + TARGET.further_ms / 1e3)
    for _ in range(30):
        request, took = answer(drafts, reader, prompt, 60, lambda at: False)
        spent, plain = spent + took, plain + TARGET.decode(1) * (request.generated - 1)
        assert spent <= (1 + MOST_LOST) * plain + trial


def test_a_draft_model_that_is_right_is_asked_by_every_request():
    drafts, reader = Drafts(), Reader()
    for number in range(5):
        request, spent = answer(drafts, reader, 100, 80, lambda at: at % 6 > 0)
        assert request.right > 40
        assert spent < 0.5 * STEP_MS / 1e3 * 80
        assert request.guesses > 50


def test_reading_is_bounded_in_a_step_and_comes_first():
    drafts, reader, request = Drafts(), Reader(), running(prompt=150)
    feeds = []
    for _ in range(4):
        tokens = reader.choose(drafts, Step((request,)))
        feeds.append((reader.asked[-1][request], len(tokens.get(request, ()))))
        request.advance(1, 1.0)
    assert feeds[:2] == [(Ask(CATCH_UP, 0), 0)] * 2
    assert feeds[2] == (Ask(150 + 3 - 2 * CATCH_UP, 1), 1)


def test_until_a_class_has_earned_it_one_request_alone_is_read():
    drafts, reader = Drafts(), Reader()
    first, second = running(prompt=100), running(prompt=100)
    reader.choose(drafts, Step((first, second)))
    assert [list(asks) for asks in reader.asked] == [[first]]


def test_what_guesses_have_saved_pays_for_reading():
    trials, offer = Trials(), Offer(0, 200, 8)
    trials._accounts['dialogue'] = account = Account(0.8, gain=0.2, requests=3, credit=0.0)
    invest = price_of_catching_up(offer, times())
    assert 0.05 < invest < 0.2
    assert trials.admit(running(), offer, 0.05, 0.006, times()).prior == 0.8
    account.gain = 0.05
    assert trials.admit(running(), offer, 0.05, 0.006, times()) is None
    account.credit = invest + 0.01   # time for a trial
    assert trials.admit(running(), offer, 0.05, 0.006, times()).prior == 0.5
    assert account.credit == 0
    account.gain = 1.0   # but a guess must save more than it takes
    assert trials.admit(running(), offer, 0.05, 0.045, times()) is None


def test_others_pay_with_time_to_spare_alone():
    # The first guess takes 4 + 2 ms, the reading of 11 tokens 5 ms; a step 50 ms.
    for spare, fed in ((0.009, 0), (0.012, 1), (1.0, 1)):
        request = running()
        other = running(SloClass('control', tpot_ms=400), generated=3)
        now = 1.0 + 3 * 0.4 - 0.050 - 0.050 - spare
        drafts, reader = Drafts(), Reader()
        chosen = reader.choose(drafts, Step((request,)), [request, other], now=now)
        assert len(chosen.get(request, ())) == fed
        assert len(reader.asked) == fed
    # A long prompt is read 64 tokens a step, for 4 + 32 ms.
    for spare, asked in ((0.030, 0), (0.040, 1)):
        request = running(prompt=500)
        other = running(SloClass('control', tpot_ms=400), generated=3)
        now = 1.0 + 3 * 0.4 - 0.050 - 0.050 - spare
        reader = Reader()
        assert not reader.choose(Drafts(), Step((request,)), [request, other], now=now)
        assert len(reader.asked) == asked


def test_nobody_is_late_because_it_is_read_itself():
    request = running(SloClass('control', tpot_ms=400), prompt=500, generated=3)
    for spare, asked in ((0.030, 0), (0.040, 1)):
        reader, now = Reader(), 1.0 + 3 * 0.4 - 0.050 - 0.050 - spare
        reader.choose(Drafts(), Step((request,)), now=now)
        assert len(reader.asked) == asked


def test_the_better_guesses_are_fed():
    request, drafts, reader = running(), Drafts(), Reader()
    # Both may be right half of the time; what is looked up costs less.
    assert reader.choose(drafts, Step((request,)), found=(1,) * 8)[request] == [1]
    request.drafted, request.guesses = 1, 1   # it was wrong
    request.advance(1, 1.0)
    assert reader.choose(drafts, Step((request,)), found=(1,) * 8)[request] == [GUESS]
    for _ in range(2):
        request.drafted += 1
        request.advance(1, 1.0)
        request.look_at(True)
    assert drafts.share(request) == 0.25   # (0.5 + 0) / 2: the model's are not counted
    reader.choose(drafts, Step((request,)))
    assert drafts._trials.of(request).right == 2


def test_requests_that_are_read_together_share_the_steps_of_the_draft_model():
    # Two guesses in one round take 5 ms, no more than one: the second is nearly free.
    requests = running(SloClass('a')), running(SloClass('b'))
    latency = LatencyModel('made', ((1, 20.0), (2, 20.0)), further_ms=1.0)   # 10 ms a token
    reader = Reader(times(3.0, 0.1, most=3.0))
    chosen = reader.choose(Drafts(), Step(requests), latency=latency)
    assert [len(chosen[r]) for r in requests] == [1, 1]
    reader = Reader(times(5.0, 0.1, most=10.0))
    assert not reader.choose(Drafts(), Step(requests), latency=latency)


def test_a_draft_model_that_returns_nothing_costs_nothing_more():
    request, drafts, reader = running(), Drafts(), Reader(works=False)
    assert reader.choose(drafts, Step((request,))) == {}
    assert drafts._trials.of(request).spent == 0
    assert not Reader(most=0).choose(Drafts(), Step((request,)))


def test_guesses_that_a_format_refuses_take_time_as_well():
    """A draft model whose guesses never fit a format is not asked in each step."""
    request, drafts, reader = running(), Drafts(), Reader()
    reader.guess = lambda asked: reader.asked.append(asked) or {r: [] for r in asked}
    for _ in range(30):
        assert reader.choose(drafts, Step((request,))) == {}
    assert drafts._trials.of(request).spent > 0
    assert len(reader.asked) == 1


def test_a_step_with_a_prompt_has_none():
    request, prompt, reader = running(), Request('w', LOOSE, 1.0, 100, 10), Reader()
    assert not reader.choose(Drafts(), Step((request,), (PrefillChunk(prompt, 10),)),
                             [request, prompt])
    assert not reader.asked
