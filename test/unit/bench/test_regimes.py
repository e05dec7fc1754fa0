# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench regimes``: what it reads, draws and runs, and its exit status."""

import json
import shutil

from matplotlib.image import imread
import pytest
from slice_ros.bench.cli import main
from slice_ros.bench.config_files import config_file, files_of
from slice_ros.bench.regimes.burst_search import best_found
from slice_ros.bench.regimes.loose_limits import Case as Loose, loosened
from slice_ros.bench.regimes.regime import read_folder, Regime, shipped_profiles, shipped_regimes
from slice_ros.bench.regimes.special_cases import burst, Case, flood, late_first_token
from slice_ros.bench.schedule.workload import Arrival, ClassMix, Workload
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step
from slice_ros.scheduling.registry import POLICIES
from slice_ros.slo import SloClass

SLO = SloClass('a', tpot_ms=20)
TRACE = tuple(Arrival(time, SLO, 10 + i, 5, 9) for i, time in enumerate((4, 5, 8, 9)))


def test_a_trace_is_turned_by_its_seed_and_scaled_to_a_rate():
    regime = Regime('t', TRACE)
    # Gaps of 1, 3 and 1 s, and the mean of them back to the beginning: 4 requests in 6.67 s.
    straight = regime.draw(.6, 10, 0)
    assert [a.time for a in straight] == pytest.approx([0, 1, 4, 5])
    assert [a.prompt_tokens for a in straight] == [10, 11, 12, 13]
    turned = regime.draw(1.2, 3, 5)                      # half of the way on, twice as fast
    assert [a.time for a in turned] == pytest.approx([0, .5, .5 + 5 / 6])
    assert [a.prompt_tokens for a in turned] == [12, 13, 10]


def test_saturation_is_the_rate_that_the_least_work_fills():
    latency = LatencyModel('l', ((1, 10), (2, 14), (3, 30)), prefill_base_ms=20,
                           prefill_token_ms=1)
    # 30 ms, and 4 decodes at 7 ms: a batch of two keeps 20 ms a token, one of three costs 10 each.
    workload = Workload('w', (ClassMix(SLO, 1.0, (10, 10), (5, 5)),))
    assert Regime('w', workload).saturation(latency) == pytest.approx(1 / .058)
    assert Regime('t', (Arrival(0.0, SLO, 10, 5, 9),) * 2).saturation(latency) == pytest.approx(
        1 / .058)


def test_a_folder_adds_what_is_new_in_it(tmp_path):
    def line(time, prompt=8):
        return json.dumps({'arrival': time, 'class': 'control', 'prompt_tokens': prompt,
                           'output_tokens': 3}) + '\n'
    deep = tmp_path / 'deep'
    deep.mkdir()
    (deep / 'a.jsonl').write_text(line(0) + line(1))
    (deep / 'b.jsonl').write_text(line(0) + line(2))             # the same, slower
    (tmp_path / 'c.jsonl').write_text(line(0) + line(2, 9))
    shutil.copy(config_file('workloads', 'published'), tmp_path / 'copy.yaml')
    shutil.copy(config_file('profiles', 'flat-gpu'), tmp_path / 'known.yaml')
    (tmp_path / 'new.yaml').write_text('name: mine\ndecode_ms: [[1, 5]]\n')
    (tmp_path / 'w.yaml').write_text('classes: {control: {share: 1, prompt_tokens: [1, 2], '
                                     'output_tokens: [1, 2]}}')
    regimes, profiles = read_folder(tmp_path, shipped_regimes(), shipped_profiles())
    assert [r.name for r in regimes[len(files_of('workloads')):]] == ['c', 'a', 'w']
    assert [p.name for p in profiles] == ['slice-authors-rtx4060ti', 'linear-edge-gpu',
                                          'flat-gpu', 'mine']
    (tmp_path / 'bad.yaml').write_text('classes: 3')
    with pytest.raises(ValueError, match='bad.yaml'):
        read_folder(tmp_path, [], [])
    (tmp_path / 'none').mkdir()
    with pytest.raises(ValueError, match='holds no'):
        read_folder(tmp_path / 'none', [], [])


def regimes(tmp_path, *flags):
    out = tmp_path / 'out.json'
    status = main(['regimes', '--jobs', '1', '--json', str(out), *flags])
    return status, json.loads(out.read_text())


def test_the_command_fails_where_a_line_fails(tmp_path, capsys):
    flags = ['--only', 'realtime_heavy', '--profiles', 'slice-authors-rtx4060ti', '--loads', '2',
             '--seeds', '1,2', '--requests', '40']
    plot = tmp_path / 'grid.png'
    status, good = regimes(tmp_path, *flags, '--policies', 'orca', '--plot', str(plot))
    assert (status, good['ours']) == (0, 'slice')
    assert {(run['policy'], run['seed']) for run in good['runs']} == {
        (policy, seed) for policy in ('slice', 'orca') for seed in (1, 2)}
    assert imread(plot).std() > .05
    assert 'realtime_heavy' in capsys.readouterr().out
    status, bad = regimes(tmp_path, *flags, '--ours', 'orca', '--policies', 'slice')
    assert status == 1
    assert [line['holds'] for line in bad['lines'] if line['what'].startswith('utility')] == [
        False]


def test_sections_are_chosen_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr('slice_ros.bench.regimes.burst_search.TRIALS', 5)
    _, found = regimes(tmp_path, '--only', 'nine,first_token', '--seeds', '1')
    assert {line['what'].split(':')[0] for line in found['lines']} == {
        'bursts of nine', 'a control request that misses its TTFT'}
    assert not found['runs']


@pytest.mark.parametrize('flags, sentence', [
    (['--only', 'nothing'], "--only 'nothing': no section and no regime; there are grid"),
    (['--profiles', 'none'], '--profiles: none is none of slice-authors-rtx4060ti'),
    (['--ours', 'none'], "unknown policy 'none'"),
    (['--dir', '/nonexistent'], '/nonexistent holds no .yaml'),
])
def test_a_fault_is_a_sentence(capsys, flags, sentence):
    assert main(['regimes', '--seeds', '1', *flags]) == 2
    assert sentence in capsys.readouterr().err


class Ordered(Policy):
    """Prefills whoever `chosen` names before anybody decodes, then decodes alike."""

    def plan(self, now, requests, latency):
        new = [r for r in requests if not r.generated]
        one = self.chosen(requests)
        if one in new:
            return Step(prefill=(PrefillChunk(one, min(one.pending, 512)),))
        if new and not self.waits:
            return Step(prefill=(PrefillChunk(new[0], min(new[0].pending, 512)),))
        return Step(decode=tuple(r for r in requests if r.ready)[:16])


class NewestFirst(Ordered):
    """Serves the newest first."""

    waits = False

    def chosen(self, requests):
        return requests[-1]


class OldestAlone(Ordered):
    """Starts nothing before the oldest has ended."""

    waits = True

    def chosen(self, requests):
        return requests[0]


def test_a_late_control_request_may_wait_for_one_step_alone(monkeypatch):
    monkeypatch.setitem(POLICIES, 'newest', NewestFirst)
    monkeypatch.setitem(POLICIES, 'oldest', OldestAlone)
    for seed in range(1, 5):
        assert max(late_first_token(Case('newest', seed))) <= 1e-9
        alone, beside = late_first_token(Case('oldest', seed))
        assert alone <= 1e-9 and beside > .1


class FloodAlone(Policy):
    """Serves nobody else while there is a flood."""

    def plan(self, now, requests, latency):
        flood = [r for r in requests if r.slo.name == 'flood'] or requests
        started = tuple(r for r in flood if r.generated)
        if len(started) < min(16, len(flood)):
            one = next(r for r in flood if not r.generated)
            return Step(prefill=(PrefillChunk(one, one.pending),))
        return Step(decode=started)


def test_a_flood_leaves_the_others_what_the_policy_gives_them(monkeypatch):
    monkeypatch.setitem(POLICIES, 'flood_alone', FloodAlone)
    monkeypatch.setattr('slice_ros.bench.regimes.special_cases.FLOOD', 400)
    assert flood(Case('flood_alone', 1)) == (0, 0)
    share, moved = flood(Case('orca', 1))
    assert share > .02 and moved == 5


def test_a_burst_is_compared_with_the_best_that_a_search_finds(monkeypatch):
    monkeypatch.setattr('slice_ros.bench.regimes.burst_search.TRIALS', 20)
    for seed in (4, 6):
        ours, found, most = burst(Case('orca', seed))
        assert 0 <= ours < found <= most + 1e-3


def test_a_search_finds_the_optimum_that_no_fixed_order_has():
    """The least useful of three has to go first, in time for its own deadline."""
    latency = LatencyModel('l', ((1, 10), (2, 20)), prefill_base_ms=30)
    arrivals = [Arrival(0.0, SloClass(name, deadline_ms=deadline, utility=utility), 5, 2, 2)
                for name, deadline, utility in (('a', 130, 9), ('b', 45, 1), ('c', 90, 5))]
    assert best_found(arrivals, latency, Capacity(), 15.0, 1) == 15


def test_a_loose_limit_costs_a_policy_that_ignores_it_nothing():
    for early, later in (loosened(Loose('orca', 1, 60, who)) for who in ('control', 'all')):
        assert early[0] == early[1] and later[0] == later[1]
    early, later = loosened(Loose('slice_static', 1, 60, 'control'))
    assert len(early) == len(later) == 2
