# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_bench abuse without a node: its corpus, what it counts, when it fails."""

import json

import pytest
from slice_ros.bench.cli import main
from slice_ros.bench.ros.abuse import (
    fault_of, Outcome, overlapping, summary, table, Wait, worst_of_families)
from slice_ros.bench.ros.abuse_corpus import CORPUS, growing, nested, one, wide
from slice_ros.bench.ros.abuse_sender import code_name, DEFAULTS, filled, floor_ms, WAYS

FAMILIES = {case.family for case in CORPUS}


def outcome(name='a', family='a', extra_ms=1.0, fault='', floor_ms=0.0):
    return Outcome(name, family, 'NONE', '', 0.1, 1, 1, extra_ms, floor_ms, fault)


def test_the_corpus_has_names_of_its_own_and_ways_that_exist():
    assert len(FAMILIES) >= 40
    assert len({case.name for case in CORPUS}) == len(CORPUS)
    assert {case.way for case in CORPUS} <= set(WAYS)
    assert {case.way for case in CORPUS} == set(WAYS)   # and no way is without an input


@pytest.mark.parametrize('word', [
    'prompt', 'messages', 'regex', 'schema', 'choice', 'stop', 'request id', 'session id',
    'class name', 'NaN', 'infinite', '8 MB', 'at once', 'by topic', 'parameter', 'transition',
    'cancel of an unknown', 'the same request id'])
def test_every_kind_of_input_is_there(word):
    assert any(word in case.name for case in CORPUS)


def test_every_request_can_be_made_twice_and_is_the_same():
    for case in CORPUS:
        first, again = case.requests(), case.requests()
        assert first and len(first) == len(again)
        assert repr(first[0]) == repr(again[0]), case.name   # NaN differs from itself


def test_sizes_double_from_the_first_to_the_last():
    cases = list(growing('growing', 'text', 4, 32, lambda n: {'prompt': 'a' * n}))
    assert [case.name for case in cases] == [f'growing, {n}' for n in (4, 8, 16, 32)]
    assert [len(case.requests()[0]['prompt']) for case in cases] == [4, 8, 16, 32]
    assert {case.family for case in cases} == {'growing'}


def test_small_generators():
    assert json.loads(nested(3, 'a')) == [[['a']]]
    assert sum(len(o['properties']) for o in wide(2)['properties'].values()) == 200
    (case,) = one('name', 'parameters', {'b': 2}, **{'a.b': 1})
    assert (case.requests(), case.restore) == ([{'a.b': 1}], {'b': 2})


def test_messages_are_filled_from_fields():
    action = pytest.importorskip('slice_ros.action')
    goal = filled(action.Generate.Goal(), DEFAULTS | {
        'prompt': '', 'messages': [{'role': 'user', 'content': 'go'}],
        'sampling': {'top_k': 3}, 'stop': ['a', 'b']})
    assert (goal.messages[0].role, goal.messages[0].content) == ('user', 'go')
    assert goal.sampling.top_k == 3 and list(goal.stop) == ['a', 'b']
    assert (goal.slo_class, goal.max_tokens) == ('dialogue', 4)


def test_codes_have_names():
    assert (code_name(5), code_name(4711)) == ('QUEUE_FULL', '4711')


def test_waits_count_that_were_under_way_at_the_first_message_or_later():
    waits = [Wait(0.0, 0.5, 0), Wait(1.0, 3.0, 0), Wait(5.0, 0.1, 0)]
    assert overlapping(waits, 2.0) == waits[1:]


def test_faults_of_answers_and_of_the_neighbour():
    served, refused, missing = Wait(0, 1, 0), Wait(0, 1, 5), Wait(0, 1, None)
    assert fault_of(3, 3, [served]) == ''
    assert fault_of(3, 1, [refused]) == '2 without an answer'
    assert fault_of(1, 1, [served, refused]) == 'the neighbour was refused: QUEUE_FULL'
    assert fault_of(1, 1, [missing]) == 'the neighbour had no answer'


def test_a_bar_is_missed_by_a_long_wait_by_a_fault_and_by_an_input_that_was_not_sent():
    idle, names = [0.030, 0.040, 0.070], ['a', 'b']
    kept = summary([outcome(), outcome('b', extra_ms=100.0)], names, idle, 100.0)
    assert kept['missed'] == [] and kept['worst_extra_ms'] == 100.0
    assert kept['idle'] == {'requests': 3, 'median_ms': 40.0,
                            'worst_extra_ms': pytest.approx(30.0)}
    late = summary([outcome(), outcome('b', extra_ms=100.1)], names, idle, 100.0)
    (sentence,) = late['missed']
    assert '100 ms' in sentence
    read = summary([outcome(), outcome('b', extra_ms=190.0, floor_ms=90.0)], names, idle, 100.0)
    assert read['missed'] == []
    assert (read['worst_extra_ms'], read['worst_beyond_ms']) == (190.0, 100.0)
    fault = summary([outcome(), outcome('b', fault='the node ended')], names, idle, 100.0)
    assert fault['missed'] == ['b: the node ended']
    short = summary([outcome()], names, idle, 100.0)
    assert short['not_sent'] == ['b'] and len(short['missed']) == 1
    json.dumps([kept, late, fault, short], allow_nan=False)


def test_the_table_has_the_worst_of_each_family_first_faults_before_waits():
    outcomes = [outcome('a, 1', 'a', 10), outcome('a, 2', 'a', 30), outcome('b', 'b', 20),
                outcome('c, 1', 'c', 1, 'the node ended'), outcome('c, 2', 'c', 99),
                outcome('d', 'd', 200, floor_ms=190)]
    assert [o.name for o in worst_of_families(outcomes)] == ['c, 1', 'a, 2', 'b', 'd']
    shown = table(outcomes, 25.0)
    assert list(shown.columns[0].cells) == ['c, 1', 'a, 2', 'b', 'd']
    assert list(shown.columns[5].cells) == ['the node ended', 'MISSED', 'kept', 'kept']


def test_the_floor_of_an_input_grows_with_its_list():
    pytest.importorskip('slice_ros.action')
    by_name = {case.name: case for case in CORPUS}
    floors = [floor_ms(by_name[name]) for name in ('messages, 16', 'messages, 65536')]
    assert 0 < 100 * floors[0] < floors[1]
    assert floor_ms(by_name['8 MB of prompt']) == floor_ms(by_name['goals, 200 at once']) == 0


@pytest.mark.parametrize('flags, word', [
    (['--seconds', '0'], '--seconds'), (['--limit-ms', 'nan'], '--limit-ms'),
    (['--only', 'no such input'], 'no such input')])
def test_flags_that_make_no_sense_are_named(flags, word, capsys):
    assert main(['abuse', *flags]) == 2
    assert word in capsys.readouterr().err
