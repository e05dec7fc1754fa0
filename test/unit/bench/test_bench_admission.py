# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Refusals are checked by serving the refused request after all."""

import json

from slice_ros.bench.cli import main
from slice_ros.bench.config_files import config_file
from slice_ros.bench.schedule.admission_bench import _wrong, check, Refusing
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.errors import ErrorCode
from slice_ros.scheduling.latency import load_profile
from slice_ros.scheduling.policy import Capacity

LATENCY = load_profile(config_file('profiles', 'slice-authors-rtx4060ti'))
CROWD = generate(load_workload(config_file('workloads', 'published')), 6.0, 160, 1)


def test_no_request_is_refused_alone_and_many_in_a_crowd():
    alone, crowd = Refusing(Capacity()), Refusing(Capacity())
    simulate(alone, LATENCY, CROWD[:1])
    result = simulate(crowd, LATENCY, CROWD)
    assert not alone.refused and crowd.refused
    ended = {r.id for r in result.requests if r.error is ErrorCode.DEADLINE_MISSED}
    assert ended == crowd.refused


def test_the_admitted_request_is_not_refused():
    first = Refusing(Capacity())
    simulate(first, LATENCY, CROWD)
    name = min(first.refused)
    again = Refusing(Capacity(), name)
    result = simulate(again, LATENCY, CROWD)
    assert name not in again.refused
    assert next(r for r in result.requests if r.id == name).generated


def test_a_refusal_is_wrong_only_if_it_cost_no_request_of_its_utility():
    before = {'a': (False, 10.0), 'b': (True, 10.0), 'c': (True, 1.0)}
    assert not _wrong('a', before, {'a': (False, 10.0), 'b': (True, 10.0), 'c': (True, 1.0)})
    assert not _wrong('a', before, {'a': (True, 10.0), 'b': (False, 10.0), 'c': (True, 1.0)})
    assert _wrong('a', before, {'a': (True, 10.0), 'b': (True, 10.0), 'c': (False, 1.0)})


def test_counts_add_up():
    counts = check(LATENCY, Capacity(), CROWD, 3, 1)
    assert counts['requests'] == 160 and counts['checked'] == 3
    assert 0 <= counts['wrong'] <= 3 <= counts['refused'] < 160


def test_json(tmp_path):
    out = tmp_path / 'out.json'
    assert main(['admission', '--rates', '6', '--requests', '40', '--seeds', '1', '--replays',
                 '1', '--json', str(out)]) == 0
    (run,) = json.loads(out.read_text())['runs']
    assert run['rate'] == 6 and run['seed'] == 1 and run['checked'] <= 1
