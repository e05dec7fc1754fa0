# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench sensitivity``: the constants it finds and changes, and what it makes of runs."""

import json

import pytest
from slice_ros.bench.cli import main
from slice_ros.bench.regimes import policy_constants as found_by, sensitivity
from slice_ros.bench.regimes.policy_constants import changed, Constant, policy_constants
from slice_ros.bench.regimes.sensitivity import changes_table, compare, Run, simulate_run
from slice_ros.scheduling import lengths
from slice_ros.scheduling.contract import PolicyError
from slice_ros.scheduling.slice import limits, rate_allocation
from slice_ros.scheduling.slice.slice_policy import Slice


def constant(name):
    (found,) = (c for c in policy_constants() if c.name == name)
    return found


def test_the_constants_of_every_module_are_found():
    found = {(c.module.rpartition('.')[2], c.name): c.value for c in policy_constants()}
    assert found['lengths', 'UNLIKELY'] == lengths.UNLIKELY
    assert found['limits', 'CHEAP'] == limits.CHEAP
    assert found['limits', 'PACE_SHARE'] == limits.PACE_SHARE
    # Each once, where it is assigned: not where it is imported.
    assert len({name for _, name in found}) == len(found)
    assert ('rate_allocation', 'CHEAP') not in found
    assert len(found) <= 10


def test_numbers_alone_are_constants(tmp_path, monkeypatch):
    room = tmp_path / 'scheduling'
    (room / 'slice').mkdir(parents=True)
    (room / 'lengths.py').write_text('KEEP = 3\nkeep = 4\nTABLE = (1, 2)\nFLAG = True\n'
                                     'def f():\n    INNER = 1\n    return INNER\n')
    (room / 'slice' / 'parts.py').write_text(
        'from spied.lengths import KEEP as KEPT\nSHARE: float = 0.75\nTWICE = 2 * SHARE\n')
    (room / 'other.py').write_text('from spied.lengths import KEEP\nALONE = 7\n')
    for folder in (room, room / 'slice'):
        (folder / '__init__.py').write_text('')
    room.rename(tmp_path / 'spied')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(found_by, 'ROOM', tmp_path / 'spied')
    monkeypatch.setattr(found_by, 'PACKAGE', 'spied')
    share, keep = policy_constants()   # TWICE follows from SHARE
    assert (share.name, share.value) == ('SHARE', .75)
    assert keep.value == 3 and set(keep.names) == {
        ('spied.lengths', 'KEEP'), ('spied.slice.parts', 'KEPT'), ('spied.other', 'KEEP')}


@pytest.mark.parametrize('value, half, double', [
    (8, 4, 16), (3, 2, 6), (1, 1, 2),     # whole numbers stay so, at least 1
    (2.0, 1.0, 4.0), (30.0, 15.0, 60.0), (.05, .025, .1),
    (.65, .325, .99), (.995, .4975, .995),     # a share stays below 1
    (1.5, 1.25, 2.0), (1.1, 1.05, 1.2)])       # 1 + x
def test_half_and_double(value, half, double):
    changing = Constant('m', 'N', value, ())
    assert (changing.half, changing.double) == pytest.approx((half, double))
    assert type(changing.half) is type(changing.double) is type(value)


def test_a_constant_is_changed_under_all_its_names_and_restored():
    # No value of the policy itself: what is seen is what was set.
    cheap, spy = constant('CHEAP'), 1.23456
    assert limits.CHEAP == rate_allocation.CHEAP == cheap.value
    with pytest.raises(KeyError), changed(cheap, spy):
        assert limits.CHEAP == rate_allocation.CHEAP == spy
        raise KeyError
    assert limits.CHEAP == rate_allocation.CHEAP == cheap.value


def a_run(monkeypatch, seen, changing, value):
    """Simulate a run in which `plan` notes the value of UNSET; `changing` may be changed."""
    plan = Slice.plan

    def noting(policy, now, requests, latency):
        seen.add(limits.UNSET)
        return plan(policy, now, requests, latency)
    monkeypatch.setattr(Slice, 'plan', noting)
    regime = next(r for r in sensitivity.shipped_regimes() if r.name == 'published')
    (cell,) = sensitivity.cells([regime], sensitivity.shipped_profiles()[:1], [1.0], 10, [1],
                                ['slice'])
    return simulate_run(Run(cell, changing, value))


def test_the_policy_runs_with_the_changed_constant(monkeypatch):
    seen = set()
    row = a_run(monkeypatch, seen, constant('UNSET'), 7)
    assert seen == {7} and limits.UNSET != 7
    assert (row['constant'], row['value'], row['regime'], row['seed']) == (
        'UNSET', 7, 'published', 1)
    assert 0 <= row['requests'] <= 1 and row['completion'] > 0
    seen.clear()
    assert a_run(monkeypatch, seen, None, 0)['constant'] == ''
    assert seen == {limits.UNSET}


def test_a_policy_that_raises_names_the_constant(monkeypatch):
    with pytest.raises(PolicyError, match='CHEAP = 0.5: policy slice'):
        a_run(monkeypatch, set(), constant('CHEAP'), .5)   # no step is cheap
    assert limits.CHEAP > 1


def row(name, value, regime, seed, utility, completion=1.0):
    return {'module': 'm' if name else '', 'constant': name, 'value': value, 'regime': regime,
            'profile': 'p', 'load': 1.0, 'seed': seed, 'requests': utility / 2,
            'utility': utility, 'completion': completion}


def test_differences_are_of_the_same_requests():
    changing = Constant('m', 'N', 4, ())
    rows = [row('', None, regime, seed, .5 + .1 * seed)
            for regime in ('a', 'b') for seed in (1, 2)]
    rows += [row('N', 2, 'a', 1, .62, 1.5), row('N', 2, 'a', 2, .74, 1.5),
             row('N', 2, 'b', 1, .6), row('N', 2, 'b', 2, .7)]
    rows += [replaced | {'value': 8, 'utility': replaced['utility'] - .1 * (
        replaced['regime'] == 'b')} for replaced in rows[4:]]
    half, double = compare([changing], rows)
    # Seed 1 gains 0.01 over both regimes, seed 2 0.02: 0.015 ± 0.005.
    assert half['utility'] == pytest.approx((.015, .005))
    assert half['requests'] == pytest.approx((.0075, .0025))
    assert half['completion'] == pytest.approx((.25, 0))
    assert half['worst']['regime'] == 'b' and half['worst']['utility'] == 0
    assert (double['value'], double['worst']['regime']) == (8, 'b')
    assert double['worst']['utility'] == pytest.approx(-.1)
    assert [cell.split('[')[0] for cell in changes_table([half, double], 2).columns[5].cells] == [
        '-', '-10.0 ']
    without = [replaced | {'completion': None} for replaced in rows]
    half, _ = compare([changing], without)
    assert half['completion'] is None
    assert list(changes_table([half], 2).columns[4].cells) == ['-']


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sensitivity, 'REGIMES', ('published', 'bursts'))
    out, share = tmp_path / 'out.json', limits.PACE_SHARE
    status = main(['sensitivity', '--only', 'PACE_SHARE', '--seeds', '1,2', '--requests', '40',
                   '--jobs', '1', '--json', str(out)])
    assert status == 0
    found = json.loads(out.read_text())
    assert [(c['constant'], c['change'], c['value']) for c in found['changes']] == [
        ('PACE_SHARE', 'half', pytest.approx(share / 2)), ('PACE_SHARE', 'double', .99)]
    assert len(found['runs']) == 3 * 2 * 3 * 2 * 2
    assert found['changes'][0]['requests'] != [0, 0]    # the change was made
    printed = capsys.readouterr().out
    assert f'PACE_SHARE = {share}' in printed and 'standard error over 2 seeds' in printed


def test_an_unknown_constant_is_a_sentence(capsys):
    assert main(['sensitivity', '--only', 'NOTHING']) == 2
    assert "--only 'NOTHING': no constant; there are" in capsys.readouterr().err
