# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A policy of another package: found by its entry point, imported on demand, named at fault."""

import os
from pathlib import Path
import subprocess
import sys

import pytest
from site_folder import install
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.request import Request, State
from slice_ros.scheduling.admission import predict
from slice_ros.scheduling.contract import PolicyError
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.registry import make_policy, policy_class, policy_names
from slice_ros.slo import DEFAULT_CLASSES

ROOT = Path(__file__).resolve().parents[3]
LATENCY = LatencyModel('flat', ((1, 10), (16, 160)), prefill_base_ms=20, prefill_token_ms=1)
WORK = [Arrival(.1 * n, DEFAULT_CLASSES[0], 30, 5, 20) for n in range(4)]
MODULE = """
from dataclasses import dataclass
from slice_ros.scheduling.policy import Policy, PrefillChunk, Step


class Newest(Policy):
    @dataclass(frozen=True)
    class Options(Policy.Options):
        share: float = 1.0
        batch: int = 4
        greedy: bool = True
        title: str = ''

    def plan(self, now, requests, latency):
        request = [r for r in requests if not r.gated][-1]
        if request.ready:
            return Step(decode=(request,))
        return Step(prefill=(PrefillChunk(request, request.pending),))


class Raises(Policy):
    def plan(self, now, requests, latency):
        raise KeyError('no such row')


class Nonsense(Policy):
    def plan(self, now, requests, latency):
        return 'everybody'


class PredictsNonsense(Newest):
    def predict(self, now, request, live, latency):
        return 3.0


class CannotBeMade(Newest):
    def __init__(self, capacity):
        super().__init__(capacity)


class Abstract(Policy):
    pass


NO_POLICY = 3
"""
POINTS = """[slice_ros.policies]
theirs = their_policies:Newest
raises = their_policies:Raises
nonsense = their_policies:Nonsense
guesses = their_policies:PredictsNonsense
unmade = their_policies:CannotBeMade
abstract = their_policies:Abstract
number = their_policies:NO_POLICY
missing = their_policies:Nobody
absent = no_such_module_of_theirs:Policy
broken = their_broken:Policy
orca = their_policies:Newest
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Install a distribution into a folder of `sys.path`; return the folder."""
    modules = {'their_policies': MODULE,
               'their_broken': 'raise RuntimeError("not on this robot")'}
    install(tmp_path, 'their-robot', modules, POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in modules:
        sys.modules.pop(name, None)


def bench(site, *flags):
    return subprocess.run(
        [sys.executable, '-m', 'slice_ros.bench', 'simulate', '--requests', '20', '--rates', '1',
         '--seeds', '1', '--jobs', '1', *flags], cwd=ROOT, capture_output=True, text=True,
        timeout=60, env={**os.environ, 'PYTHONPATH': f'{site}{os.pathsep}{ROOT}'})


def test_it_is_listed_without_being_imported_and_is_made_by_name(site):
    assert {'theirs', 'broken', 'slice'} <= set(policy_names())
    assert 'their_policies' not in sys.modules
    policy = make_policy('theirs', share=2, batch=3)
    assert (policy.name, policy.options.share, policy.options.batch) == ('theirs', 2, 3)
    assert type(policy).__name__ == 'Newest'


def test_a_built_in_name_wins(site):
    assert policy_class('orca').__module__ == 'slice_ros.scheduling.baselines.orca'
    assert policy_names().count('orca') == 1


def test_it_serves_in_the_simulator(site):
    result = simulate(make_policy('theirs'), LATENCY, WORK)
    assert [r.state for r in result.requests] == [State.FINISHED] * 4


def test_it_is_asked_by_a_fresh_one_of_its_kind(site):
    policy = make_policy('theirs', batch=2)
    request = Request('r', DEFAULT_CLASSES[0], 0.0, 30, 5)
    prediction = predict(policy, 0.0, request, (), LATENCY)
    assert prediction.feasible and prediction.ttft == pytest.approx(LATENCY.prefill(30))
    again = policy.fresh()
    assert (again.name, again.options, again.capacity) == ('theirs', policy.options,
                                                           policy.capacity)


def test_slice_bench_simulates_it(site):
    done = bench(site, '--policies', 'theirs:share=0.5:greedy=false:title=a,orca')
    assert done.returncode == 0, done.stderr
    assert 'theirs' in done.stdout


@pytest.mark.parametrize('name, sentence', [
    ('raises', "policy raises raised KeyError: 'no such row'"),
    ('nonsense', "policy nonsense returned 'everybody', which is no Step"),
])
def test_a_faulty_one_is_named_by_the_simulator_and_its_program(site, name, sentence):
    with pytest.raises(PolicyError, match=sentence):
        simulate(make_policy(name), LATENCY, WORK)
    done = bench(site, '--policies', name)
    assert done.returncode == 2
    assert done.stderr.startswith(f'slice_bench: {sentence}') and done.stderr.count('\n') == 1


@pytest.mark.parametrize('name', ['raises', 'nonsense', 'guesses'])
def test_a_faulty_one_is_named_where_it_is_asked(site, name):
    request = Request('r', DEFAULT_CLASSES[0], 0.0, 30, 5)
    with pytest.raises(PolicyError, match=f'policy {name} (raised|returned|predicted)'):
        predict(make_policy(name), 0.0, request, (), LATENCY)


@pytest.mark.parametrize('name, sentence', [
    ('absent', r'policy absent \(no_such_module_of_theirs:Policy of their-robot\) cannot be '
               'imported: ModuleNotFoundError'),
    ('missing', r'their_policies:Nobody of their-robot\) cannot be imported: AttributeError'),
    ('broken', r'their_broken:Policy of their-robot\) cannot be imported: RuntimeError: not on'),
    ('number', r'their_policies:NO_POLICY of their-robot\) is no subclass of'),
    ('unmade', 'policy unmade cannot be made: TypeError'),
    ('abstract', 'policy abstract cannot be made: TypeError'),
])
def test_one_that_cannot_be_had_is_named_with_its_origin(site, name, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_policy(name)


@pytest.mark.parametrize('spec, sentence', [
    ('theirs:share=much', "policy theirs: share must be a number, not 'much'"),
    ('theirs:batch=1.5', "policy theirs: batch must be a whole number, not '1.5'"),
    ('theirs:greedy=maybe', "policy theirs: greedy must be true or false, not 'maybe'"),
    ('theirs:speed=1', "policy theirs: unknown option 'speed': choose one of share, batch"),
    ('orca:speed=1', "policy orca: unknown option 'speed': it has none"),
])
def test_a_wrong_option_is_named(site, spec, sentence):
    from slice_ros.bench.schedule.options import spec_options
    with pytest.raises(ValueError, match=sentence):
        spec_options(spec)


@pytest.mark.parametrize('options', [{'share': '1'}, {'batch': 1.0}, {'batch': True},
                                     {'greedy': 1}, {'title': None}])
def test_a_value_of_another_type_is_named(site, options):
    (name,) = options
    with pytest.raises(ValueError, match=f'policy theirs: {name} must be'):
        make_policy('theirs', **options)
