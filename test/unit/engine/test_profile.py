# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Profiles: the fit finds what made the numbers, and what is on disk is only trusted if whole."""

import errno

import pytest
from slice_ros.engine import profile, Sampling
from slice_ros.scheduling.latency import LatencyModel

TRUE = LatencyModel('true', ((1, 16.0), (4, 18.0), (8, 28.0), (16, 47.0)), decode_context_ms=0.002,
                    prefill_base_ms=9.0, prefill_token_ms=1.5, prefill_context_ms=0.0004,
                    shared_ms=7.0)


def test_the_fit_finds_the_model_that_made_the_numbers():
    decode = {(b, c): 1e3 * TRUE.decode(b, b * c)
              for b, c in [(1, 64), (4, 64), (8, 64), (16, 64), (1, 512), (16, 512)]}
    prefill = {(n, c): 1e3 * TRUE.prefill(n, c) for n, c in profile.PREFILLS}
    mixed = {(b, 64, n): 1e3 * TRUE.step(b, b * 64, [(n, 0)])
             for b, n in [(1, 16), (4, 16), (4, 64), (4, 17), (2, 16)]}  # two: not measured alone
    found = profile.fit('true', decode, prefill, mixed)
    for (batch, ms), (b, expected) in zip(found.decode_ms, TRUE.decode_ms):
        assert (batch, ms) == (b, pytest.approx(expected, abs=1e-3))
    for name in ('decode_context_ms', 'prefill_base_ms', 'prefill_token_ms', 'prefill_context_ms',
                 'shared_ms'):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=1e-6)


def test_noise_gives_no_negative_or_falling_times():
    found = profile.fit('noise', {(1, 64): 20.0, (2, 64): 18.0, (4, 64): 30.0, (1, 512): 19.0},
                        {(16, 0): 50.0, (64, 0): 60.0, (256, 0): 90.0, (64, 448): 40.0})
    table = [ms for _, ms in found.decode_ms]
    assert table == sorted(table)
    assert found.prefill(1) > 0


@pytest.mark.parametrize('ms, shared', [(60.0, 0.0), (70.0, 0.0), (52.0, 8.0), (10.0, 20.0)])
def test_what_parts_share_is_at_least_nothing_and_at_most_a_decode(ms, shared):
    found = profile.fit('x', {(1, 64): 20.0}, {(16, 0): 40.0}, {(1, 64, 16): ms})
    assert found.shared_ms == pytest.approx(shared)


def test_requests_of_a_measured_step_decode_different_tokens(tiny_engine, monkeypatch):
    """Equal ones would all go through the same experts, which costs less than any real step."""
    seen, greedy = [], tiny_engine._runner.greedy
    monkeypatch.setattr(tiny_engine._runner, 'greedy',
                        lambda segments: seen.append(segments) or greedy(segments))
    with profile.Probe(tiny_engine, 3) as probe:
        probe.decode(3, 8)
        probe.mixed(2, 8, 4)
    for segments in seen:
        ids = [segment.ids[0] for segment in segments if len(segment.ids) == 1]
        assert len(set(ids)) == len(ids) > 1


class Clock:
    """Time that passes in forward passes alone: `row_s` for each row."""

    def __init__(self, engine, monkeypatch):
        self.now, self.row_s, self.steps = 0.0, 1e-3, 0
        greedy = engine._runner.greedy

        def timed(segments):
            self.now += self.row_s * len(segments)
            self.steps += 1
            return greedy(segments)
        monkeypatch.setattr(engine._runner, 'greedy', timed)
        monkeypatch.setattr(profile.time, 'perf_counter', lambda: self.now)


def test_a_profile_is_measured_once_and_leaves_every_slot_free(tiny_engine, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    clock = Clock(tiny_engine, monkeypatch)
    seen = []
    first = tiny_engine.profile(lambda what, share: seen.append(share))
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert [b for b, _ in first.decode_ms] == [1, 2, 4]  # as many as there are slots
    assert first.decode(4, 200) >= first.decode(1, 50) > 0
    assert tiny_engine._slots.free == 4
    seen.clear()
    clock.steps = 0
    assert tiny_engine.profile(lambda what, share: seen.append(share)) == first
    assert not seen
    assert 0 < clock.steps <= 8
    assert tiny_engine._slots.free == 4


def test_a_profile_of_a_busy_machine_is_measured_anew_once_it_is_quicker(
        tiny_engine, tmp_path, monkeypatch, caplog):
    caplog.set_level('INFO')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    clock = Clock(tiny_engine, monkeypatch)
    clock.row_s = 2e-3
    busy = tiny_engine.profile()
    clock.row_s = 1.8e-3
    assert tiny_engine.profile() == busy
    clock.row_s = 1e-3
    quick = tiny_engine.profile()
    assert 'measured anew' in caplog.text
    assert quick.decode(4) == pytest.approx(busy.decode(4) / 2, rel=1e-6)
    clock.row_s = 5e-3  # busy now: what is known of the machine stays
    assert tiny_engine.profile() == quick


@pytest.mark.parametrize('content', ['', '[]', 'decode_ms: []', '\x00', '{"name": 1'])
def test_a_damaged_profile_is_measured_anew(tiny_engine, tmp_path, monkeypatch, content, caplog):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    tiny_engine.profile()
    file, = (tmp_path / 'slice_ros' / 'profiles').iterdir()
    file.write_text(content)
    assert tiny_engine.profile().decode(1) > 0
    assert 'measured anew' in caplog.text
    assert file.read_text() != content


def test_a_profile_has_what_a_mixed_step_saves(tiny_engine, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    now, mixed = [0.0], []
    greedy = tiny_engine._runner.greedy

    def timed(segments):
        rows = sum(len(s.ids) for s in segments)
        now[0] += 5e-3 + 1e-4 * rows  # the weights, and each row
        if len(segments) > 1 and rows > len(segments):
            mixed.append((len(segments) - 1, rows - len(segments) + 1,
                          len({s.slot for s in segments}) == len(segments)))
        return greedy(segments)
    monkeypatch.setattr(tiny_engine._runner, 'greedy', timed)
    monkeypatch.setattr(profile.time, 'perf_counter', lambda: now[0])
    model = tiny_engine.profile()
    assert set(mixed) == {(b, n, True) for b in (1, 2) for n in (16, 31)}
    assert model.shared_ms == pytest.approx(5.0)
    assert model.step(2, 60, [(30, 0)]) == pytest.approx(5e-3 + 32e-4, rel=.05)


def test_a_profile_of_an_older_format_is_measured_anew(tiny_engine, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    clock = Clock(tiny_engine, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(profile, 'FORMAT', 1)
        tiny_engine.profile()
    once, clock.steps = clock.steps, 0
    tiny_engine.profile()
    assert clock.steps == once
    clock.steps = 0
    tiny_engine.profile()
    assert clock.steps < once


def test_profiling_amid_requests_says_what_is_missing(tiny_engine, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    live = tiny_engine.open([1, 2], 4, Sampling())
    tiny_engine.step([(live, 2)])
    with pytest.raises(ValueError, match='free slots'):
        tiny_engine.profile()
    assert tiny_engine._slots.free == 3


def test_a_slow_machine_spends_the_budget_and_measures_what_is_indispensable(
        tiny_engine, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(profile.time, 'perf_counter', lambda: now[0])
    forward = tiny_engine._runner.forward
    cases = []

    def slow(segments):
        cases.append((len(segments), segments[0].start, len(segments[0].ids)))
        now[0] += 2.0
        return forward(segments)
    monkeypatch.setattr(tiny_engine._runner, 'forward', slow)
    model = profile.measure(tiny_engine, lambda what, share: None, budget=3.0)
    assert now[0] <= 8.0
    assert [b for b, _ in model.decode_ms] == [1, 4]
    assert model.decode(4) > 0
    assert model.prefill(16) > 0


def test_a_full_disk_costs_the_profile_only(tiny_engine, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))

    def full(self, path):
        path.write_text('name: h')
        raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as patch:
        patch.setattr(profile.LatencyModel, 'save', full)
        assert tiny_engine.profile().decode(1) > 0
    warning, = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
    assert 'disk' in warning and 'every start measures it' in warning
    folder = tmp_path / 'slice_ros' / 'profiles'
    assert not list(folder.iterdir())
    tiny_engine.profile()
    file, = folder.iterdir()
    file.with_name(f'.new-{file.name}').write_text('of a process that was killed')
    file.unlink()
    tiny_engine.profile()
    assert list(folder.iterdir()) == [file]


def test_a_user_without_a_home_directory_does_without_the_cache(tiny_engine, monkeypatch, caplog):
    def no_home():
        raise RuntimeError('Could not determine home directory.')
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(profile.cache_root.__globals__['Path'], 'home', no_home)
    assert tiny_engine.profile().decode(1) > 0
    assert caplog.text.count('every start measures it') == 1
