# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Sampling: each filter on hand-made logits, and settings that make no sense."""

import math
import random

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from slice_ros.engine.config import Sampling
from slice_ros.engine.text import device_sampling
from slice_ros.engine.text.choice import choose_tokens
from slice_ros.engine.text.device_sampling import choose_at_once, chosen
from slice_ros.engine.text.sampling import pick, Sampler
import torch

LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))


def drawn(logits, n=400, prompt=(), **settings_):
    return [Sampler(Sampling(seed=seed, **settings_), prompt).choose(logits) for seed in range(n)]


@pytest.mark.parametrize('field, value', [
    ('temperature', math.nan), ('temperature', -0.1), ('temperature', math.inf),
    ('temperature', True), ('temperature', '1'), ('top_p', 0.0), ('top_p', 1.1),
    ('top_p', math.nan), ('min_p', -0.1), ('min_p', 2.0), ('top_k', -1), ('top_k', 1.5),
    ('repetition_penalty', 0.0), ('repetition_penalty', math.nan), ('seed', 1.5),
    ('seed', 1 << 64), ('logit_bias', ((1, 101.0),)), ('logit_bias', ((1, math.nan),)),
    ('logit_bias', ((-1, 1.0),)), ('logit_bias', ((1, 1.0), (1, 2.0))),
    ('logit_bias', tuple((n, 1.0) for n in range(301)))])
def test_a_bad_setting_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        Sampling(**{field: value})


def test_greedy_takes_the_largest_logit_and_no_random_number():
    assert drawn(LOGITS, 5) == [0] * 5
    assert choose_tokens(np.stack([LOGITS, LOGITS[::-1]]),
                         [Sampler(Sampling(), ()), Sampler(Sampling(), ())])() == [0, 3]


def test_a_bias_is_added_before_anything_else():
    assert set(drawn(LOGITS, 5, logit_bias=((0, -100.0),))) == {1}
    assert set(drawn(LOGITS, 5, logit_bias=((3, 2.0), (1, 0.1)))) == {3}
    counts = np.bincount(drawn(LOGITS, 4000, temperature=1.0, logit_bias=((0, -math.log(4)),)),
                         minlength=4) / 4000
    assert np.allclose(counts, np.array([0.1, 0.3, 0.2, 0.1]) / 0.7, atol=0.03)
    assert set(drawn(LOGITS, 9, temperature=1.0, top_k=1, logit_bias=((3, 9.0),))) == {3}
    assert LOGITS.argmax() == 0   # the logits are those of others, too


def test_temperature_one_draws_by_probability():
    counts = np.bincount(drawn(LOGITS, 4000, temperature=1.0), minlength=4) / 4000
    assert np.allclose(counts, np.exp(LOGITS), atol=0.03)


def test_a_low_temperature_sharpens():
    assert set(drawn(LOGITS, temperature=0.01)) == {0}


@pytest.mark.parametrize('settings_, left', [
    ({'top_k': 2}, {0, 1}), ({'top_k': 1}, {0}), ({'top_k': 100}, {0, 1, 2, 3}),
    ({'top_p': 0.69}, {0, 1}), ({'top_p': 0.71}, {0, 1, 2}), ({'top_p': 0.01}, {0}),
    ({'min_p': 0.7}, {0, 1}), ({'min_p': 0.49}, {0, 1, 2}), ({'min_p': 1.0}, {0}),
    ({'top_k': 3, 'top_p': 0.7}, {0, 1}), ({'top_k': 3, 'min_p': 0.7}, {0, 1})])
def test_filters_leave_exactly(settings_, left):
    assert set(drawn(LOGITS, temperature=1.0, **settings_)) == left


def test_top_p_looks_at_every_token_where_the_first_do_not_suffice():
    flat = np.zeros(2000, np.float32)  # 256 of them hold 12.8 %
    assert len(set(drawn(flat, temperature=1.0, top_p=0.9))) > 256


@pytest.mark.parametrize('vocab', [1, 255, 256, 257, 1000])
def test_every_likely_token_has_its_share_of_the_draws_and_no_other_any(vocab):
    probs = np.zeros(vocab, np.float32)
    probs[::3] = 1 + np.arange(len(probs[::3])) % 5
    draws = (np.arange(20 * vocab) + 0.5) / (20 * vocab)
    found = np.bincount([pick(probs, None, draw) for draw in draws], minlength=vocab)
    assert np.abs(found - probs / probs.sum() * len(draws)).max() <= 1.01
    likely = range(0, vocab, 3)
    assert [pick(probs, None, draw) for draw in (0.0, np.nextafter(1, 0))] == [0, likely[-1]]


def test_repetition_penalty_counts_the_prompt_and_what_was_accepted():
    logits = np.array([2.0, 1.9, -1.0, -1.1], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=1.2), [0])
    assert sampler.choose(logits) == 1
    sampler.accept(1)
    assert sampler.choose(logits) == 0  # both divided: the first is ahead again
    assert Sampler(Sampling(repetition_penalty=1.2), [2]).choose(np.tile(logits[2:], 2)) == 0
    assert logits.tolist() == pytest.approx([2.0, 1.9, -1.0, -1.1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=40), st.floats(0.01, 5),
       st.integers(0, 50), st.floats(0.01, 1), st.floats(0, 1), st.integers(0, 1000))
def test_any_setting_draws_a_token_of_the_vocabulary(logits, temperature, k, p, least, seed):
    sampler = Sampler(Sampling(temperature, k, p, least, seed=seed), ())
    values = np.array(logits, np.float32)
    token = sampler.choose(values)
    assert 0 <= token < len(logits)
    if k:
        assert int((values > values[token]).sum()) < k + 1


@pytest.mark.parametrize('settings_', [
    {}, {'temperature': 1.0}, {'temperature': 1e-30}, {'repetition_penalty': 3.0},
    {'temperature': 2.0, 'top_k': 2}, {'temperature': 2.0, 'top_p': 0.1},
    {'temperature': 2.0, 'min_p': 1.0}, {'logit_bias': ((0, 100.0), (1, 100.0))}])
def test_what_is_forbidden_is_never_chosen_and_other_rows_do_not_notice(settings_):
    for likely in ([True, False, False, True], [False, True, False, False], [True] * 3 + [False]):
        forbidden = np.array(likely)
        for seed in range(40):
            samplers = [Sampler(Sampling(seed=seed, **settings_), [0]) for _ in range(4)]
            chosen = choose_tokens(np.tile(LOGITS, (2, 1)), samplers[:2], {1: forbidden})()
            assert not forbidden[chosen[1]]
            assert chosen[0] == choose_tokens(LOGITS[None], samplers[2:3])()[0]


def requests(count, seed):
    """Return settings of requests as different as can be, always the same for a seed."""
    chance = random.Random(seed)
    return [Sampling(
        temperature=chance.choice((0.0, 1e-7, 0.3, 1.0, 3.0)),
        top_k=chance.choice((0, 0, 1, 5, 600)),
        top_p=chance.choice((1.0, 1.0, 0.05, 0.9)), min_p=chance.choice((0.0, 0.0, 0.1)),
        repetition_penalty=chance.choice((1.0, 1.0, 1.3)), seed=n,
        logit_bias=chance.choice(((), (), ((1, 5.0), (7, -100.0))))) for n in range(count)]


@pytest.mark.parametrize('vocab, flat', [(40, 1.0), (1000, 1.0), (1000, 0.1)])
def test_all_rows_at_once_choose_what_each_chooses_alone(vocab, flat):
    """As on a GPU: filters, penalties, random numbers and forbidden tokens of every row."""
    for seed in range(20):
        torch.manual_seed(seed)
        logits = torch.randn(24, vocab) * 4 * flat
        settings_ = requests(len(logits), seed)
        prompt = [int(t) for t in logits[:, :30].argmax(-1)]
        forbidden = {row: (torch.rand(vocab) < .7).numpy() for row in range(0, len(logits), 5)}
        texts = []
        for choose in (choose_tokens, choose_at_once):
            samplers = [Sampler(wanted, prompt) for wanted in settings_]
            texts.append([choose(logits, samplers, forbidden)() for _ in range(2)])
        assert texts[0] == texts[1]


def test_choosing_on_a_device_waits_for_nothing_but_the_tokens():
    samplers = [Sampler(wanted, [1, 2]) for wanted in requests(24, 3)]
    draws = {row: 0.5 for row, s in enumerate(samplers) if s.sampling.temperature > .1}
    assert draws and chosen(torch.empty(24, 1000, device='meta'), samplers, draws).shape == (2, 24)


def test_a_step_uploads_penalties_and_masks_of_all_requests_together(monkeypatch):
    calls, upload = [], device_sampling._upload
    monkeypatch.setattr(device_sampling, '_upload', lambda *given: calls.append(1) or upload(
        *given))
    samplers = [Sampler(Sampling(repetition_penalty=1.1 + n), [n, 7]) for n in range(6)]
    forbidden = {row: np.zeros(40, bool) for row in (1, 3, 4)}
    choose_at_once(torch.randn(6, 40), samplers, forbidden)()
    assert len(calls) == 2


@pytest.mark.gpu
def test_a_gpu_chooses_what_a_cpu_chooses():
    """Up to rounding: a random number may fall between two tokens."""
    torch.manual_seed(1)
    logits = torch.randn(64, 50000) * 4
    settings_ = requests(len(logits), 1)
    texts = [choose_tokens(place, [Sampler(wanted, [1, 2, 3]) for wanted in settings_])()
             for place in (logits, logits.cuda())]
    assert sum(a != b for a, b in zip(*texts)) <= 2
