# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Guesses are fed where they pay, and of the time that others can spare."""

import pytest
from slice_ros.request import Request
from slice_ros.scheduling.drafts import Drafts, LEAST_SHARE, MOST_LOST, RATE, UNKNOWN, WEIGHT
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import PrefillChunk, Step
from slice_ros.slo import SloClass

LOOSE = SloClass('dialogue')
GUESS = (7,) * 8


class Sure(Drafts):
    """Expects every guess to be right."""

    def share(self, request):
        return 1.0


def model(further=1.0, base=10.0):
    return LatencyModel('made', ((1, base), (4, 4 * base)), further_ms=further,
                        prefill_token_ms=1.0)


def running(slo=LOOSE, generated=5, first=1.0, max_tokens=100, right=4, guesses=8):
    """Return a request half of whose guesses were right; what they took is not counted."""
    request = Request('r', slo, 0.0, 10, max_tokens, right=right, guesses=guesses)
    request.advance(10, first)
    for _ in range(generated - 1):
        request.advance(1, first)
    return request


def chosen(step, live=None, latency=None, now=1.0, drafts=None, guess=lambda request: GUESS):
    found = (drafts or Drafts()).choose(step, live or step.decode, guess, latency or model(), now)
    return {request: len(tokens) for request, tokens in found.items()}


@pytest.mark.parametrize('further, length', [
    # A guess pays as long as 10 ms * 0.5^n is above what it takes.
    (6.0, 0), (4.9, 1), (2.6, 1), (2.4, 2), (1.0, 3), (0.03, 8)])
def test_a_guess_is_fed_where_it_saves_more_than_it_takes(further, length):
    request = running()
    assert chosen(Step((request,)), latency=model(further)).get(request, 0) == length


def test_in_company_a_step_saves_less():
    requests = tuple(running() for _ in range(4))
    # Four requests in 20 ms: a token is 5 ms, of which half is above 2 ms once.
    latency = LatencyModel('made', ((1, 10.0), (4, 20.0)), further_ms=2.0)
    assert chosen(Step(requests), latency=latency) == dict.fromkeys(requests, 1)


def test_others_pay_with_time_to_spare_alone():
    request = running()
    # Its next token is due at 1 s + 4 * 50 ms; the step and one of its own end at 1.2 s - spare.
    other = running(SloClass('control', tpot_ms=50), generated=4)
    due = 1.0 + 4 * 0.050
    for spare, length in ((0.0005, 0), (0.0015, 1), (0.0025, 2), (1.0, 3)):
        now = due - 0.010 - 0.010 - spare
        assert chosen(Step((request,)), [request, other], now=now).get(request, 0) == length
    # One who is late already cannot be helped by waiting.
    assert chosen(Step((request,)), [request, other], now=due)[request] == 3
    # Its own objective is no reason to go without: guesses make it sooner.
    assert chosen(Step((other,)), now=due - 0.0205)[other] == 3


def test_a_first_token_that_is_due_is_waited_for():
    request, waiting = running(), Request('w', SloClass('control', ttft_ms=500), 1.0, 100, 10)
    for spare, length in ((0.0005, 0), (0.0025, 2)):
        now = 1.5 - 0.100 - 0.010 - spare
        assert chosen(Step((request,)), [request, waiting], now=now).get(request, 0) == length


def test_who_is_due_first_gets_the_time_there_is():
    soon = running(SloClass('a', tpot_ms=40), generated=4)
    later = running(SloClass('b', tpot_ms=400), generated=4)
    tight = running(SloClass('c', tpot_ms=50), generated=4)
    now = 1.2 - 0.010 - 0.020 - 0.0025   # 2 guesses are all that `tight` can spare
    latency = LatencyModel('made', ((1, 10.0), (2, 20.0)), further_ms=1.0)
    step = Step((later, soon))
    assert chosen(step, [later, soon, tight], latency=latency, now=now) == {soon: 2}


def test_a_request_begins_with_one_guess_and_feeds_more_once_one_was_right():
    request = running(right=0, guesses=0)
    assert chosen(Step((request,)), latency=model(0.01)) == {request: 1}
    request = running(right=2, guesses=3)
    assert chosen(Step((request,)), latency=model(0.01)) == {request: 5}
    request = running(right=4, guesses=4)
    assert chosen(Step((request,)), latency=model(0.01)) == {request: 8}


@pytest.mark.parametrize('right, drafted, generated, length', [
    # A guess takes 0.1 of a step, of which there is 0.01 for each token: ten tokens earn one.
    (0, 1, 19, 0), (0, 1, 20, 1), (0, 4, 49, 0), (0, 4, 50, 1),
    # A right guess earns ten.
    (1, 10, 9, 0), (1, 10, 10, 1), (1, 9, 20, 3), (1, 1, 0, 3), (2, 21, 10, 0), (2, 20, 10, 1)])
def test_no_request_loses_more_than_a_hundredth_of_its_time(right, drafted, generated, length):
    request = Request('r', LOOSE, 0.0, 10, 100, generated=generated, cached=9 + generated,
                      right=right, guesses=right, drafted=drafted)
    assert MOST_LOST == 0.01
    assert chosen(Step((request,)), latency=model(1.0), drafts=Sure()).get(request, 0) == length


@pytest.mark.parametrize('right', [lambda at: False, lambda at: at % 12 == 0, lambda at: at == 30,
                                   lambda at: at < 40, lambda at: at % 3 == 0])
@pytest.mark.parametrize('further', [0.3, 0.8, 1.5, 2.6, 3.8])
def test_whatever_the_guesses_are_an_answer_is_hardly_slower(right, further):
    """Count a whole answer at the model's own prices: in steps, and in those of guesses."""
    drafts, latency = Drafts(), model(further)
    request, spent = Request('r', LOOSE, 0.0, 10, 1000, first_token_at=1.0), 0.0
    request.advance(10, 1.0)
    while request.generated < 200:
        draft = drafts.choose(Step((request,)), [request], lambda _: GUESS, latency, 1.0)
        tokens = draft.get(request, ())
        spent += 10.0 + further * len(tokens)
        request.drafted += len(tokens)
        request.advance(1, 1.0)
        for _ in tokens:
            found = right(request.generated)
            request.look_at(found)
            if not found:
                break
        assert spent <= (10.0 * 1.01) * request.generated + further


def test_a_step_with_a_prompt_has_none():
    request, prompt = running(), Request('w', LOOSE, 1.0, 100, 10)
    assert chosen(Step((request,), (PrefillChunk(prompt, 10),)), [request, prompt]) == {}
    assert chosen(Step((request,)), guess=lambda request: ()) == {}


def test_a_request_learns_from_its_own_guesses_and_from_its_class():
    def running(slo=LOOSE):
        return Request('r', slo, 0.0, 10, 1100, generated=5, cached=14)
    drafts, request = Drafts(), running()
    assert drafts.share(request) == UNKNOWN
    for _ in range(8):
        request.look_at(True)
    assert drafts.share(request) == (WEIGHT * UNKNOWN + 8) / (WEIGHT + 8)
    drafts.finished(request)
    expected = UNKNOWN + (1 - (1 - RATE) ** 8) * (1 - UNKNOWN)
    assert drafts.share(running()) == pytest.approx(expected)
    assert drafts.share(running(SloClass('control'))) == UNKNOWN
    wrong = running()
    for _ in range(1000):
        wrong.look_at(False)
    drafts.finished(wrong)
    assert drafts.share(running()) == LEAST_SHARE   # another request may copy all the same
    assert drafts.share(wrong) < 0.01


def test_a_right_guess_is_a_token_without_a_step():
    request = running(generated=5)
    request.look_at(False)
    assert (request.generated, request.cached, request.pending) == (5, 14, 1)
    request.look_at(True)
    assert (request.generated, request.cached, request.pending) == (6, 15, 1)
    assert request.jumped == 1 and request.decoding
    request.jump()
    with pytest.raises(ValueError, match='guessed'):
        request.look_at(True)
