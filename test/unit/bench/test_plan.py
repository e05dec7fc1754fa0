# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``plan``: each timed plan has that many live requests, and the growth is computed from them."""

import importlib.util
import json

import pytest
from slice_ros.bench.cli import main
from slice_ros.bench.config_files import config_file
from slice_ros.bench.schedule.plan import growth, time_plans
from slice_ros.scheduling.baselines.orca import Orca
from slice_ros.scheduling.latency import load_profile
from slice_ros.scheduling.registry import policy_names

LATENCY = load_profile(config_file('profiles', 'slice-authors-rtx4060ti'))


def test_every_plan_has_the_stated_number_of_requests(monkeypatch):
    seen = []
    plan = Orca.plan
    monkeypatch.setattr(Orca, 'plan', lambda self, now, requests, latency: (
        seen.append((len(requests), sum(r.decoding for r in requests))),
        plan(self, now, requests, latency))[1])
    times = time_plans('orca', 40, LATENCY, 25)
    assert len(times) == 25 and min(times) > 0
    assert {live for live, _ in seen} == {40}
    assert all(5 <= decoding <= 20 for _, decoding in seen)


@pytest.mark.parametrize('name', policy_names())
def test_every_policy_can_be_timed(name):
    assert len(time_plans(name, 24, LATENCY, 60)) == 60


def test_growth_is_the_exponent_between_the_largest_two():
    rows = [{'policy': 'p', 'live': n, 'us_p50': t} for n, t in ((16, 9), (1000, 50), (4000, 800))]
    assert growth(rows, 'p') == pytest.approx(2.0)


def test_json(tmp_path):
    out = tmp_path / 'plan.json'
    assert main(['plan', '--policies', 'orca', '--live', '4,8', '--steps', '5',
                 '--json', str(out)]) == 0
    rows = json.loads(out.read_text())['plans']
    assert [(row['policy'], row['live']) for row in rows] == [('orca', 4), ('orca', 8)]
    assert all(0 < row['us_p50'] <= row['us_p99'] for row in rows)


@pytest.mark.skipif(importlib.util.find_spec('vllm') is not None, reason='vLLM is installed')
def test_without_vllm_its_costs_are_refused_in_a_sentence(capsys):
    assert main(['plan', '--engine', 'vllm', '--live', '4', '--steps', '5']) == 2
    assert '--engine vllm needs vLLM, see docs/scaling.md' in capsys.readouterr().err
