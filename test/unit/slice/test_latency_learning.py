# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A latency model that is wrong becomes right; one that is right stays so."""

import math
import random

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.bench.schedule.simulate import scaled_latency
from slice_ros.scheduling.latency import load_profile

TRUTH = load_profile(config_file('profiles', 'slice-authors-rtx4060ti'))


def run(model, steps, spread=0.0, outliers=0.0, seed=1):
    draw = random.Random(seed)
    for n in range(steps):
        if n % 10 == 9:
            shape = (0, 0, [(draw.randint(16, 160), 0)])
        else:
            batch = draw.choice((1, 2, 3, 4, 5, 8))
            shape = (batch, 80 * batch, [])
        seconds = TRUTH.step(*shape) * (1 + draw.uniform(-spread, spread))
        model.observe(seconds * (8 if draw.random() < outliers else 1), *shape)
    return model


def errors(model):
    return [abs(model.decode(b) / TRUTH.decode(b) - 1) for b in (1, 2, 4, 8)] + [
        abs(model.prefill(n) / TRUTH.prefill(n) - 1) for n in (16, 160)]


@pytest.mark.parametrize('factor', [.33, .5, 2, 3])
@pytest.mark.parametrize('spread', [0, .3])
def test_a_factor_is_corrected_within_tens_of_steps(factor, spread):
    model = run(scaled_latency(TRUTH, factor), 40, spread)
    assert max(errors(model)) < (.25 if spread else .05)


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_noise_and_outliers_do_not_mislead_it(seed):
    model = run(scaled_latency(TRUTH, 1.0), 1000, spread=.3, outliers=.05, seed=seed)
    assert max(errors(model)) < .12


def test_one_wrong_batch_size_is_learnt():
    model = scaled_latency(TRUTH, 1.0)
    model.decode_ms = tuple((b, ms * (1.6 if b == 4 else 1.0)) for b, ms in model.decode_ms)
    for _ in range(400):
        model.observe(TRUTH.decode(4), 4, 0, [])
        model.observe(TRUTH.decode(1), 1, 0, [])
    assert model.decode(4) == pytest.approx(TRUTH.decode(4), rel=.06)
    assert model.decode(1) == pytest.approx(TRUTH.decode(1), rel=.06)


def test_its_own_error_is_reported():
    model = scaled_latency(TRUTH, 2.0)
    assert math.isnan(model.error)
    model.observe(TRUTH.decode(1), 1, 0, [])
    assert model.error == pytest.approx(.5)
    run(model, 300)
    assert model.error < .05


@pytest.mark.parametrize('seconds', [0.0, -1.0, math.nan, math.inf])
def test_times_that_are_none_teach_nothing(seconds):
    model = scaled_latency(TRUTH, 1.0)
    model.observe(seconds, 4, 0, [])
    model.observe(.1, 0, 0, [])
    assert model == TRUTH and math.isnan(model.error)


def test_a_larger_batch_never_takes_less_time():
    model = scaled_latency(TRUTH, 1.0)
    for _ in range(500):
        model.observe(TRUTH.decode(8) / 3, 8, 0, [])
        model.observe(TRUTH.decode(7) * 3, 7, 0, [])
    times = [ms for _, ms in model.decode_ms]
    assert times == sorted(times) and all(math.isfinite(ms) for ms in times)


def test_a_refined_model_can_be_saved_and_loaded(tmp_path):
    model = run(scaled_latency(TRUTH, 2.0), 50)
    model.save(tmp_path / 'profile.yaml')
    assert load_profile(tmp_path / 'profile.yaml') == model
