# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench simulate`` from its flags to its JSON."""

import json
import math

import pytest
from slice_ros.bench.cli import main, SUBCOMMANDS
from slice_ros.scheduling.baselines.orca import Orca

RUN_KEYS = {'policy', 'rate', 'seed', 'requests', 'attainment', 'utility_attainment',
            'bound', 'utility_bound', 'bound_share', 'utility_bound_share', 'plan_us_p50',
            'plan_us_p99', 'classes'}
CLASS_KEYS = {'requests', 'attainment', 'ttft_p50', 'ttft_p99', 'tpot_p50', 'tpot_p99',
              'completion_mean', 'completion_p99', 'max_gap_p99', 'tardiness_p50', 'tardiness_p99'}


def simulate(tmp_path, *flags):
    out = tmp_path / 'out.json'
    status = main(['simulate', '--requests', '30', '--jobs', '1', '--json', str(out), *flags])
    assert status == 0
    return json.loads(out.read_text())['runs']


def test_json_holds_every_field_of_every_run(tmp_path, capsys):
    runs = simulate(tmp_path, '--profile', 'slice-authors-rtx4060ti', '--rates', '1,4',
                    '--mix', 'control=0.4,navigation=0.3,dialogue=0.3', '--seeds', '1,2',
                    '--policies', 'orca,fastserve,slice_static,slice_static:capacity_ratio=0.5')
    assert len(runs) == 4 * 2 * 2
    assert {(run['policy'], run['rate'], run['seed']) for run in runs} == {
        (policy, rate, seed) for rate in (1, 4) for seed in (1, 2)
        for policy in ('orca', 'fastserve', 'slice_static', 'slice_static:capacity_ratio=0.5')}
    for run in runs:
        assert RUN_KEYS == set(run)
        assert run['requests'] == 30 == sum(c['requests'] for c in run['classes'].values())
        assert 0 <= run['attainment'] <= run['bound'] <= 1
        assert 0 <= run['utility_attainment'] <= run['utility_bound'] <= 1
        assert run['attainment'] == pytest.approx(run['bound_share'] * run['bound'])
        assert run['utility_attainment'] == pytest.approx(
            run['utility_bound_share'] * run['utility_bound'])
        for figures in run['classes'].values():
            assert CLASS_KEYS <= set(figures)
            assert all(math.isfinite(value) for value in figures.values())
    assert 'attained, % of requests (mean ± standard deviation over 2 seeds)' in \
        capsys.readouterr().out


def test_the_same_flags_give_the_same_figures_on_one_process_and_on_two(tmp_path):
    flags = ['--rates', '3', '--policies', 'orca', '--noise', '0.3', '--seeds', '1,2']
    once = simulate(tmp_path, *flags)
    again = simulate(tmp_path, *flags, '--jobs', '2')
    for run in once + again:
        del run['plan_us_p50'], run['plan_us_p99']
    assert once == again


def test_flags_change_the_figures(tmp_path):
    base = ['--rates', '2', '--seeds', '1', '--policies', 'orca']
    (plain,) = simulate(tmp_path, *base)
    (loose,) = simulate(tmp_path, *base, '--slo-scale', '100')
    (slow,) = simulate(tmp_path, *base, '--burst-every', '0.01')
    (control,) = simulate(tmp_path, *base, '--mix', 'control=1')
    assert plain['attainment'] < loose['attainment'] == 1
    assert slow['classes']['dialogue']['tpot_p50'] > plain['classes']['dialogue']['tpot_p50']
    assert list(control['classes']) == ['control']


def test_all_policies_are_those_built_in_each_once_and_in_columns_of_one_line(tmp_path, capsys):
    runs = simulate(tmp_path, '--rates', '2', '--seeds', '1,2', '--policies',
                    'orca,all,sarathi:order=class')
    assert [run['policy'] for run in runs[::2]] == [
        'orca', 'density', 'edf', 'fastserve', 'priority', 'sarathi', 'scorpio', 'slice_static',
        'tempo', 'slice', 'sarathi:order=class']
    table = capsys.readouterr().out.partition('mean ± standard deviation')[2]
    (figures,) = [line for line in table.split('plan, median')[0].splitlines()
                  if line.startswith('│     2 │')][:1]
    assert figures.count('±') == 11 + 1   # and the bound


def test_revealed_lengths_reach_the_policy(tmp_path):
    # A class with a deadline alone is decoded at deadline / max_tokens: the lengths matter.
    flags = ['--rates', '4', '--seeds', '1', '--policies', 'slice_static', '--workload',
             str(tmp_path / 'w.yaml')]
    (tmp_path / 'w.yaml').write_text(
        'classes: {a: {share: 1, prompt_tokens: [8, 8], output_tokens: [2, 80], '
        'slo: {deadline_ms: 4000}}}')
    (hidden,) = simulate(tmp_path, *flags)
    (shown,) = simulate(tmp_path, *flags, '--reveal-lengths')
    assert hidden['classes'] != shown['classes']


def test_revealed_lengths_are_also_passed_to_the_policy(tmp_path, monkeypatch):
    known = []
    monkeypatch.setattr(Orca, 'reveal', lambda self, request, tokens: known.append(
        (tokens, request.max_tokens)))
    flags = ['--rates', '4', '--seeds', '1', '--policies', 'orca']
    simulate(tmp_path, *flags)
    assert not known
    simulate(tmp_path, *flags, '--reveal-lengths')
    assert len(known) == 30 and all(tokens == most for tokens, most in known)


def test_a_trace_is_replayed(tmp_path):
    trace = tmp_path / 't.jsonl'
    trace.write_text('\n'.join(json.dumps(
        {'arrival': 7 + i, 'class': 'control', 'prompt_tokens': 40, 'output_tokens': 12})
        for i in range(11)))
    (run,) = simulate(tmp_path, '--trace', str(trace), '--policies', 'orca', '--seeds', '1')
    assert (run['requests'], run['rate'], run['attainment']) == (11, 1.1, 1.0)


@pytest.mark.parametrize('flags, sentence', [
    (['--policies', 'sjf'], "unknown policy 'sjf': choose one of density, edf"),
    (['--policies', 'orca:x=1'], 'policy orca'),
    (['--policies', 'slice_static:0.5'], 'expected option=value'),
    (['--policies', 'slice_static:capacity_ratio=7'], 'capacity_ratio must be in'),
    (['--profile', 'none'], "'none' is neither a file nor one of the profiles"),
    (['--workload', 'none'], "'none' is neither a file nor one of the workloads"),
    (['--mix', 'control'], 'expected class=share'),
    (['--mix', 'x=1'], "unknown class 'x'"),
    (['--trace', '/nonexistent'], '/nonexistent is not a trace'),
    (['--json', '/nonexistent/x.json', '--requests', '5'], '/nonexistent'),
])
def test_a_fault_is_reported_in_a_sentence(capsys, flags, sentence):
    assert main(['simulate', '--rates', '2', '--seeds', '1', '--jobs', '1', '--policies', 'orca',
                 *flags]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize('flags', [['--rates', '0'], ['--rates', 'x'], ['--seeds', '1.5'],
                                   ['--requests', '-3'], ['--nope']])
def test_a_flag_that_cannot_be_is_refused(capsys, flags):
    with pytest.raises(SystemExit) as ended:
        main(['simulate', *flags])
    assert ended.value.code == 2
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize('name', sorted(SUBCOMMANDS))
def test_every_subcommand_has_its_help(capsys, name):
    with pytest.raises(SystemExit) as ended:
        main([name, '--help'])
    assert ended.value.code == 0
    assert '--json' in capsys.readouterr().out
