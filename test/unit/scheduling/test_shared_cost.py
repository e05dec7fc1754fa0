# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the parts of a step share: the formula, and what steps of several parts teach of it."""

from dataclasses import replace
import random

import pytest
from slice_ros.bench.schedule.simulate import scaled_latency
from slice_ros.scheduling.latency import LatencyModel, load_profile

TRUTH = LatencyModel('shared', ((1, 25), (4, 30), (16, 45)), decode_context_ms=.001,
                     prefill_base_ms=20, prefill_token_ms=.25, shared_ms=20)


def run(model, truth, mixed, *, pure=.5, spread=0.0, outliers=0.0, seed=1, tokens=(16, 512)):
    """Observe steps until `mixed` of them had several parts; `pure` is the share of the others."""
    draw = random.Random(seed)
    while mixed:
        batch = draw.choice((1, 2, 4, 8, 16))
        chunks = [(draw.randint(*tokens), 0)]
        kind = draw.random()
        if kind < .7 * pure:
            shape = (batch, 100 * batch, [])
        elif kind < pure:
            shape = (0, 0, chunks)
        else:
            shape = (batch, 100 * batch, chunks)
            mixed -= 1
        seconds = truth.step(*shape) * (1 + draw.uniform(-spread, spread))
        model.observe(seconds * (8 if draw.random() < outliers else 1), *shape)
    return model


def pure_errors(model):
    return [abs(model.decode(b) / TRUTH.decode(b) - 1) for b in (1, 4, 16)] + [
        abs(model.prefill(n) / TRUTH.prefill(n) - 1) for n in (16, 512)]


@pytest.mark.parametrize('shape, ms', [
    ((4, 0, []), 30),
    ((0, 0, [(40, 0)]), 30),
    ((4, 0, [(40, 0)]), 40),                     # 30 + 30, of which 20 once
    ((4, 0, [(40, 0), (120, 0)]), 70),           # 30 + 30 + 50, of which 20 once instead of thrice
    ((0, 0, [(40, 0), (120, 0)]), 60),
    ((4, 0, [(0, 0)]), 30),                      # an empty chunk is no part
    ((0, 0, []), 0)])
def test_what_is_shared_is_paid_once(shape, ms):
    assert TRUTH.step(*shape) == pytest.approx(ms / 1e3)


def test_a_part_saves_at_most_all_of_its_time():
    small = LatencyModel('small', ((1, 12),), prefill_token_ms=1.5, shared_ms=10)
    assert small.step(1, 0, [(2, 0)]) == pytest.approx(.012)
    assert small.step(1, 0, [(8, 0)]) == pytest.approx(.014)


def test_a_profile_keeps_it_and_an_old_profile_has_none(tmp_path):
    path = tmp_path / 'profile.yaml'
    TRUTH.save(path)
    assert load_profile(path) == TRUTH
    path.write_text(path.read_text().replace('shared_ms: 20', ''))
    assert load_profile(path) == replace(TRUTH, shared_ms=0.0)
    for wrong in ('-1', '.nan', '.inf'):
        path.write_text(f'name: x\ndecode_ms: [[1, 10]]\nshared_ms: {wrong}\n')
        with pytest.raises(ValueError, match='not negative'):
            load_profile(path)


@pytest.mark.parametrize('spread', [0, .1])
@pytest.mark.parametrize('believed, true', [(0, 20), (20, 0), (20, 20), (0, 0)])
@pytest.mark.parametrize('pure', [0, .5])
def test_thirty_mixed_steps_teach_it_and_leave_the_other_terms(believed, true, spread, pure):
    model = run(replace(TRUTH, shared_ms=believed), replace(TRUTH, shared_ms=true), 30,
                spread=spread, pure=pure)
    assert model.shared_ms == pytest.approx(true, abs=5 if spread else 1)
    assert max(pure_errors(model)) < (.02 if spread else 1e-9)


@pytest.mark.parametrize('believed, true', [(0, 20), (20, 0)])
def test_chunks_shorter_than_what_is_shared_teach_it_too(believed, true):
    model = run(replace(TRUTH, shared_ms=believed, prefill_base_ms=0),
                replace(TRUTH, shared_ms=true, prefill_base_ms=0), 200, tokens=(8, 160))
    assert model.shared_ms == pytest.approx(true, abs=1)


@pytest.mark.parametrize('seed', [1, 2, 3])
@pytest.mark.parametrize('true', [0, 20])
def test_noise_and_outliers_change_it_little(seed, true):
    truth = replace(TRUTH, shared_ms=true)
    model = run(replace(truth), truth, 500, spread=.1, outliers=.05, seed=seed)
    assert model.shared_ms == pytest.approx(true, abs=4)
    assert max(pure_errors(model)) < .05


def test_chunks_alone_share_as_well():
    model = replace(TRUTH, shared_ms=0)
    for _ in range(30):
        model.observe(TRUTH.step(0, 0, [(100, 0), (200, 0)]), 0, 0, [(100, 0), (200, 0)])
    assert model.shared_ms == pytest.approx(20, abs=1)
    assert max(pure_errors(model)) < 1e-9


@pytest.mark.parametrize('factor', [.5, 2])
def test_prefill_is_learnt_where_it_never_runs_alone(factor):
    truth = replace(TRUTH, shared_ms=0, prefill_base_ms=40 * factor, prefill_token_ms=factor)
    model = replace(truth, prefill_base_ms=40, prefill_token_ms=1)
    for _ in range(15):
        model.observe(truth.decode(4), 4, 0, [])
    for n in range(60):
        shape = (4, 0, [(100 + 50 * (n % 5), 0)])
        model.observe(truth.step(*shape), *shape)
    assert model.step(4, 0, [(200, 0)]) == pytest.approx(truth.step(4, 0, [(200, 0)]), rel=.08)
    assert [model.decode(b) for b in (1, 4)] == [truth.decode(b) for b in (1, 4)]


@pytest.mark.parametrize('shared', [0, 20])
@pytest.mark.parametrize('factor', [.4, 2.5])
def test_a_slow_machine_is_known_by_steps_that_are_all_mixed(factor, shared):
    truth = replace(TRUTH, shared_ms=shared)
    model = run(scaled_latency(truth, factor), truth, 100, pure=0)
    for shape in [(8, 800, [(n, 0)]) for n in (200, 300, 500)]:  # the sizes most steps have
        assert model.step(*shape) == pytest.approx(truth.step(*shape), rel=.2)
    for _ in range(15):
        model.observe(truth.decode(4), 4, 0, [])
    assert run(model, truth, 150).shared_ms == pytest.approx(shared, abs=8)
    assert max(pure_errors(model)) < .1


def test_a_slow_machine_is_slow_at_what_is_shared():
    model = run(scaled_latency(TRUTH, .5), TRUTH, 1, pure=.97)
    assert model.shared_ms == pytest.approx(20, rel=.1)
    assert scaled_latency(TRUTH, .5).shared_ms == 10
