# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Workloads and traces: what is drawn, and what is refused."""

from collections import Counter
import json
from statistics import fmean

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.bench.schedule.workload import ClassMix, generate, Phase, Workload
from slice_ros.bench.schedule.workload_file import load_trace, load_workload
from slice_ros.slo import DEFAULT_CLASSES
import yaml

NAMES = ('published', 'realtime_heavy', 'chat_heavy', 'bursts', 'warehouse_day', 'tpot_only',
         'deadline_only', 'ttft_only', 'no_objectives', 'equal_utilities', 'long_prompts')


@pytest.mark.parametrize('name', NAMES)
def test_every_shipped_workload_draws_from_its_ranges(name):
    workload = load_workload(config_file('workloads', name))
    assert workload.name == name
    assert sum(c.share for c in workload.classes) == pytest.approx(1)
    arrivals = generate(workload, 2.0, 3000, seed=1)
    assert [a.time for a in arrivals] == sorted(a.time for a in arrivals)
    assert len(arrivals) / arrivals[-1].time == pytest.approx(2.0, rel=.15)
    spans = {c.slo.name: c for c in workload.classes}
    for a in arrivals:
        mix = spans[a.slo.name]
        assert mix.prompt_tokens[0] <= a.prompt_tokens <= mix.prompt_tokens[1]
        assert mix.output_tokens[0] <= a.output_tokens <= mix.output_tokens[1]
        assert a.max_tokens == mix.output_tokens[1]


def test_the_published_mix():
    workload = load_workload(config_file('workloads', 'published'))
    assert [(c.slo, c.share, c.prompt_tokens, c.output_tokens) for c in workload.classes] == [
        (DEFAULT_CLASSES[0], .4, (32, 96), (10, 25)),
        (DEFAULT_CLASSES[1], .3, (64, 160), (30, 60)),
        (DEFAULT_CLASSES[2], .3, (32, 128), (60, 160))]
    drawn = Counter(a.slo.name for a in generate(workload, 1.0, 5000, seed=3))
    assert drawn['control'] / 5000 == pytest.approx(.4, abs=.02)
    lengths = [a.output_tokens for a in generate(workload, 1.0, 5000, 3)
               if a.slo.name == 'control']
    assert set(lengths) == set(range(10, 26))


def test_a_seed_draws_the_same_requests_at_every_rate():
    workload = load_workload(config_file('workloads', 'published'))
    slow, fast = (generate(workload, rate, 50, seed=1) for rate in (1.0, 4.0))
    assert [a.time for a in slow] == pytest.approx([a.time * 4 for a in fast])
    assert [a.prompt_tokens for a in slow] == [a.prompt_tokens for a in fast]
    assert generate(workload, 1.0, 50, seed=2) != slow


def test_phases_change_rate_and_mix():
    classes = tuple(ClassMix(slo, .5, (1, 1), (1, 1)) for slo in DEFAULT_CLASSES[:2])
    workload = Workload('w', classes, (Phase(10, 1, {'control': 1.0}), Phase(10, 3)))
    arrivals = generate(workload, 20.0, 4000, seed=1)
    quiet = [a for a in arrivals if a.time % 20 < 10]
    assert {a.slo.name for a in quiet} == {'control'}
    assert len(quiet) / len(arrivals) == pytest.approx(.25, abs=.02)
    assert fmean(a.slo.name == 'navigation' for a in arrivals) == pytest.approx(.375, abs=.03)


def test_mix_and_objectives_can_be_changed():
    workload = load_workload(config_file('workloads', 'published'))
    mixed = workload.with_mix({'control': 7, 'dialogue': 3})
    assert [c.share for c in mixed.classes] == [.7, 0, .3]
    assert {a.slo.name for a in generate(mixed, 1.0, 200, 1)} == {'control', 'dialogue'}
    assert workload.scaled(2.0).classes[0].slo.tpot_ms == 100
    with pytest.raises(ValueError, match="unknown class 'chat'"):
        workload.with_mix({'chat': 1})
    with pytest.raises(ValueError, match='more than 0'):
        workload.with_mix({'control': 0})


@pytest.mark.parametrize('rate', [0, -1, float('nan'), float('inf')])
def test_a_rate_is_above_zero(rate):
    with pytest.raises(ValueError, match='rate must be above 0'):
        generate(load_workload(config_file('workloads', 'published')), rate, 1, 1)


GOOD = {'classes': {'control': {'share': 1, 'prompt_tokens': [1, 2], 'output_tokens': [3, 4]}}}


def write(tmp_path, data):
    path = tmp_path / 'w.yaml'
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def changed(**change):
    return {'classes': {'control': {**GOOD['classes']['control'], **change}}}


@pytest.mark.parametrize('data, sentence', [
    ('[', 'is not a workload'),
    ('', 'a workload must be a mapping'),
    ('- 1', 'a workload must be a mapping'),
    ({'classes': {}}, 'classes must map'),
    ({'classes': {'control': None}}, 'classes.control.share is missing'),
    ({'classes': {'control': {'share': 1}}}, 'classes.control.prompt_tokens is missing'),
    ({**GOOD, 'color': 1}, "unknown key 'color'"),
    (changed(tokens=1), "classes.control: unknown key 'tokens'"),
    (changed(share=-1), 'share.control must be a number'),
    (changed(share=0), 'more than 0'),
    (changed(prompt_tokens=[5, 2]), 'classes.control.prompt_tokens: 5 is above 2'),
    (changed(prompt_tokens=[0, 2]), 'classes.control.prompt_tokens must be a whole number'),
    (changed(prompt_tokens=7), r'prompt_tokens must be \[least, most\]'),
    (changed(output_tokens=[1.5, 2]), 'classes.control.output_tokens must be a whole number'),
    (changed(slo={'tpot_ms': -5}), 'control.tpot_ms must be finite'),
    (changed(slo={'tpot': 5}), "classes.control.slo: unknown key 'tpot'"),
    ({'classes': {'pick': GOOD['classes']['control']}}, 'classes.pick needs slo'),
    ({'classes': {'a b': {**GOOD['classes']['control'], 'slo': {}}}}, 'class name'),
    ({**GOOD, 'phases': 5}, 'phases must be a list'),
    ({**GOOD, 'phases': [{'seconds': 0, 'rate': 1}]}, r'phases\[0\]: seconds and rate'),
    ({**GOOD, 'phases': [{'seconds': 1}]}, r'phases\[0\].rate must be a number'),
    ({**GOOD, 'phases': [{'seconds': 1, 'rate': 1, 'mix': {'x': 1}}]}, r'mix: unknown class'),
])
def test_a_bad_workload_is_refused_by_file_and_field(tmp_path, data, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        load_workload(write(tmp_path, data))
    assert 'w.yaml' in str(caught.value)


def test_a_good_workload(tmp_path):
    workload = load_workload(write(tmp_path, GOOD))
    assert (workload.name, workload.classes[0].slo) == ('w', DEFAULT_CLASSES[0])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match='neither a file nor one of the workloads: bursts'):
        config_file('workloads', str(tmp_path / 'none'))
    with pytest.raises(ValueError, match='is not a workload'):
        load_workload(tmp_path)


ROW = {'arrival': 1.5, 'class': 'control', 'prompt_tokens': 40, 'output_tokens': 12}


def trace(tmp_path, *rows):
    path = tmp_path / 't.jsonl'
    path.write_text('\n'.join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def test_a_trace_is_replayed_in_order_with_the_longest_answer_as_the_limit(tmp_path):
    first, second, third = load_trace(trace(
        tmp_path, ROW, '', {**ROW, 'arrival': 0.5, 'output_tokens': 20},
        {**ROW, 'arrival': 2, 'max_tokens': 64}))
    assert [a.time for a in (first, second, third)] == [.5, 1.5, 2]
    assert [a.max_tokens for a in (first, second, third)] == [20, 20, 64]
    assert (second.slo, second.prompt_tokens, second.output_tokens) == (DEFAULT_CLASSES[0], 40, 12)


@pytest.mark.parametrize('row, sentence', [
    ('{', 't.jsonl:2'),
    ('[]', 't.jsonl:2: a trace line must be a mapping'),
    ('{"class": "a", "slo": {"tpot_ms": -1}}', 'a.tpot_ms must be finite and not negative'),
    ('{"class": "a", "slo": 3}', 'slo must be a mapping'),
    ('{"class": 3, "slo": {}}', 'class name 3'),
    ({**ROW, 'class': 'chat'}, "class 'chat' is none of control"),
    ({**ROW, 'arrival': -1}, 'arrival must be a number'),
    ({**ROW, 'arrival': float('nan')}, 'arrival must be a number'),
    ({**ROW, 'prompt_tokens': 0}, 'prompt_tokens must be a whole number'),
    ({**ROW, 'output_tokens': '9'}, 'output_tokens must be a whole number'),
    ({**ROW, 'max_tokens': True}, 'max_tokens must be a whole number'),
    ({**ROW, 'prompt': 'hi'}, "unknown key 'prompt'"),
    ({**ROW, 'class': ['control']}, 'class .* is none of'),
])
def test_a_bad_trace_line_is_refused_by_number(tmp_path, row, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_trace(trace(tmp_path, ROW, row))


def test_an_empty_trace_is_refused(tmp_path):
    with pytest.raises(ValueError, match='holds no request'):
        load_trace(trace(tmp_path, ''))
