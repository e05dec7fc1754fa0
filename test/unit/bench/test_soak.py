# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_bench soak without a node: its plan, what it counts, when it fails."""

from collections import Counter
from dataclasses import asdict

import pytest
from slice_ros.bench.cli import main
from slice_ros.bench.ros.soak import table
from slice_ros.bench.ros.soak_client import ANSWER_WITHIN, CHUNKS_WITHIN, Live, UNAVAILABLE_WITHIN
from slice_ros.bench.ros.soak_plan import (
    CANCEL_WITHIN, chunk_faults, CLASSES, Goal, kill_instants, make_plan, missed_bars, Tally,
    UNKNOWN_CLASS, warm_and_last, WAYS)


def test_a_plan_is_its_seed():
    assert make_plan(500, 50, 3) == make_plan(500, 50, 3) != make_plan(500, 50, 4)


def test_a_plan_mixes_everything_and_has_as_many_cancels_as_asked_for():
    plan = make_plan(5000, 500, 1)
    cancels = [goal.cancel_after for goal in plan if goal.cancel_after is not None]
    assert [goal.number for goal in plan] == list(range(5000))
    assert len(cancels) == 500 and 0 <= min(cancels) < .05 and .5 < max(cancels) <= CANCEL_WITHIN
    assert {goal.way for goal in plan} == set(WAYS)
    assert {goal.slo_class for goal in plan} == {*CLASSES, UNKNOWN_CLASS}
    assert all(goal.streamed for goal in plan if goal.way == 'topic')
    for some in (lambda g: g.session_id, lambda g: g.choices, lambda g: g.temperature):
        assert 100 < sum(bool(some(goal)) for goal in plan) < 4000
    assert Counter(goal.way for goal in plan).most_common(1)[0][0] == 'action'


def test_the_node_is_killed_early_and_clients_at_any_time():
    clients, nodes = kill_instants(10_000, 20, 1)
    assert len(clients) == len(nodes) == 20
    assert clients == sorted(clients) and nodes == sorted(nodes)
    assert 1 <= nodes[0] and nodes[-1] < 3000 < clients[-1] < 10_000
    assert kill_instants(1, 2, 1)[1] == [1, 1]


@pytest.mark.parametrize('numbers, last, faults', [
    ([0, 1, 2], True, (0, 0)),
    ([0, 2], True, (1, 0)),
    ([0, 1], False, (1, 0)),          # the last one is missing
    ([], False, (1, 0)),
    ([0, 2, 1, 3], True, (0, 1)),
    ([0, 1, 1, 2], True, (0, 1)),     # one came twice
])
def test_chunks_that_were_lost_or_came_out_of_order(numbers, last, faults):
    assert chunk_faults(numbers, last) == faults


def live(way='action', slo_class='dialogue'):
    return Live(Goal(7, way, slo_class, 'Go.', 3), now=0.0)


def test_a_request_is_over_with_its_answer_and_its_last_chunk():
    one = live()
    one.numbers, one.last_chunks = [0, 1], 1
    assert one.fate(1.0) == ''
    one.answer('NONE')
    assert one.fate(1.0) == 'ended'
    assert one.row('ended') == {
        'number': 7, 'way': 'action', 'fate': 'ended', 'code': 'NONE', 'lost': 0, 'reordered': 0,
        'wait_s': one.answered_at, 'cancelled': False, 'twice': False}


def test_a_last_chunk_that_does_not_come_is_lost():
    one = live()
    one.numbers = [0]
    one.answer('NONE')
    assert one.fate(one.answered_at + CHUNKS_WITHIN / 2) == ''
    assert one.fate(one.answered_at + CHUNKS_WITHIN + 1) == 'ended'
    assert one.row('ended')['lost'] == 1


def test_a_request_without_an_answer_and_one_with_two():
    one = live()
    assert one.fate(ANSWER_WITHIN - 1) == '' and one.fate(ANSWER_WITHIN + 1) == 'unanswered'
    for twice in (live(), live()):
        twice.answer('NONE')
        twice.last_chunks = 1
        assert not twice.row('ended')['twice']
    twice.answer('NONE')
    assert twice.row('ended')['twice']


def test_a_kill_of_the_node_cuts_bare_requests_and_must_be_noticed_by_the_client_library():
    bare, library = live(), live('client')
    bare.cut_at = library.cut_at = 0.5
    assert bare.fate(1.0) == 'cut' and library.fate(1.0) == ''
    assert library.fate(1.0 + UNAVAILABLE_WITHIN) == 'unanswered'
    library.answer('NOT_READY')
    assert library.fate(1.0) == 'cut'


def row(**changes):
    return {'number': 1, 'way': 'topic', 'fate': 'ended', 'code': 'NONE', 'lost': 0,
            'reordered': 0, 'wait_s': 1.0, 'cancelled': False, 'twice': False} | changes


def test_rows_are_counted():
    tally = Tally()
    for one in (row(), row(code='QUEUE_FULL'), row(lost=2, reordered=1),
                row(twice=True, wait_s=7.0), row(cancelled=True, code='CANCELLED'),
                row(fate='unanswered'), row(fate='cut', lost=5), {'again': True}):
        tally.add(one)
    tally.cut_by_client = 3
    assert tally == Tally(ended=5, unanswered=1, ended_twice=2, lost=2, reordered=1, cancels=1,
                          longest_wait_s=7.0, cut_by_node=1, cut_by_client=3,
                          codes={'NONE': 3, 'QUEUE_FULL': 1, 'CANCELLED': 1},
                          unanswered_ways={'topic': 1})
    assert tally.over == 10


def test_memory_is_compared_after_warm_up():
    flat = [(over, 500) for over in range(0, 3001, 10)]
    warming = [(over, min(over, 900)) for over in range(0, 3001, 10)]
    leaking = [(over, 1000 + over) for over in range(0, 3001, 10)]
    assert warm_and_last(flat) == (500, 500)
    assert warm_and_last(warming) == (900, 900)
    before, after = warm_and_last(leaking)
    assert after / before > 1.5
    assert warm_and_last(flat[:50]) is None and warm_and_last([]) is None


def figures(**changes):
    return {'goals': 10, 'concurrent': 4, 'seed': 1, 'tiny': True, **asdict(Tally(ended=10)),
            'not_sent': 0, 'resident_mb': [500, 505], 'resident_growth': 0.01,
            'quiet_ttft_ms': [5.0, 5.0], 'left_live': 0, 'seconds': 60.0} | changes


@pytest.mark.parametrize('name, value', [
    ('unanswered', 1), ('ended_twice', 1), ('lost', 1), ('reordered', 1), ('left_live', 1),
    ('not_sent', 1), ('resident_growth', 0.02)])
def test_each_bar_can_be_missed(name, value):
    assert missed_bars(figures()) == []
    assert len(missed_bars(figures(**{name: value}))) == 1
    cells = list(table(figures(**{name: value})).columns[3].cells)
    assert cells.count('MISSED') == (name != 'not_sent')


def test_growth_that_was_not_measured_misses_no_bar():
    assert missed_bars(figures(resident_mb=None, resident_growth=None)) == []
    assert 'MISSED' not in table(
        figures(resident_mb=None, resident_growth=None)).columns[3].cells


@pytest.mark.parametrize('flags, word', [
    (['--goals', '0'], '--goals'), (['--goals', '5', '--cancels', '6'], '--cancels'),
    (['--concurrent', '1'], '--concurrent'), (['--minutes', 'nan'], '--minutes'),
    (['--tiny', '--model', 'x'], '--model')])
def test_flags_that_make_no_sense_are_named(flags, word, capsys):
    assert main(['soak', *flags]) == 2
    assert word in capsys.readouterr().err
