# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Percentiles, class summaries and what an unserved request counts."""

import math

import pytest
from rich.console import Console
from slice_ros.bench.report import (
    attainment, class_summary, class_table, completion, load_table, percentile, share_of,
    tardiness, utility_attainment)
from slice_ros.slo import DEFAULT_CLASSES, SloClass, SloReport

CONTROL, _, DIALOGUE = DEFAULT_CLASSES
NAN = math.nan


def report(slo=CONTROL, served=True, ttft=.1, tpot=.04, end=1.0, gap=.05, tokens=20, elapsed=None):
    return SloReport('r', slo, served, 32, tokens, ttft, tpot, end, gap,
                     end if elapsed is None else elapsed)


UNSERVED = report(served=False, ttft=NAN, tpot=NAN, end=NAN, tokens=0, elapsed=.3)


@pytest.mark.parametrize('share, value', [(0, 1), (.5, 5), (.9, 9), (.99, 10), (1, 10)])
def test_percentile_is_the_nearest_rank(share, value):
    assert percentile(range(10, 0, -1), share) == value


def test_percentile_of_nothing_measured():
    assert percentile([NAN, NAN], .5) is None
    assert percentile([NAN, 3.0], .5) == 3.0


@pytest.mark.parametrize('what, seconds', [
    (report(), 1.0),
    (UNSERVED, 1.5),                                     # its deadline is later than its end
    (report(served=False, end=.5, elapsed=2.5), 2.5),    # its end is later than its deadline
    (report(DIALOGUE, served=False, end=NAN, elapsed=.3), .3),
])
def test_an_unserved_request_counts_its_deadline_or_its_end_whichever_is_later(what, seconds):
    assert completion(what) == seconds


FREE = SloClass('free')
PACED = SloClass('paced', tpot_ms=50)


@pytest.mark.parametrize('what, seconds', [
    (report(), 0.0),
    (report(ttft=.75), .25),                              # TTFT 0.5 s
    (report(end=2.0), .5),                                # deadline 1.5 s
    (report(ttft=.6, end=2.0), .5),                       # the most of both
    (report(PACED, ttft=.2, tpot=.06, end=1.34), .19),    # due at 0.2 + 19 * 0.05 = 1.15 s
    (report(PACED, ttft=9.0, tpot=.05, end=9.95), 0.0),   # TPOT counts from the first token on
    (report(FREE, ttft=50.0, end=99.0), 0.0),
    (report(FREE, tokens=1, tpot=0.0), 0.0),
    (UNSERVED, 0.0),                                      # given up before any was exceeded
    (report(served=False, ttft=NAN, tpot=NAN, end=NAN, tokens=0, elapsed=4.0), 3.5),
    # Four tokens came: the fifth was due at 0.2 + 4 * 0.05 s, and had not come after 3 s.
    (report(PACED, served=False, ttft=.2, end=.4, tokens=4, elapsed=3.0), 2.6),
    (report(served=False, ttft=NAN, tpot=NAN, end=NAN, tokens=0, elapsed=NAN), 0.0),
])
def test_tardiness_is_the_time_beyond_the_objective_exceeded_most(what, seconds):
    assert tardiness(what) == pytest.approx(seconds)


def test_shares_of_a_bound():
    assert share_of(.3, .6) == .5
    assert share_of(0.0, 0.0) == 1.0


def test_a_cell_can_show_two_figures(capsys):
    runs = [{'policy': 'p', 'rate': 2, 'a': a, 'b': b} for a, b in ((1.0, 5.0), (2.0, None))]
    Console(width=80).print(load_table(runs, lambda run: run['a'], 'title', 1,
                                       beside=lambda run: run['b']))
    assert '1.50 / 5.00' in capsys.readouterr().out


def test_attainment_counts_every_request_and_weighs_by_utility():
    reports = [report(), report(ttft=.6), report(DIALOGUE), UNSERVED]
    assert attainment(reports) == .5
    assert utility_attainment(reports) == pytest.approx(101 / 301)


def test_class_summary():
    summary = class_summary([report(DIALOGUE, end=9.0), report(), report(ttft=.6, end=2.0),
                             UNSERVED])
    assert list(summary) == ['control', 'dialogue']
    control = summary['control']
    assert (control['requests'], control['attained']) == (3, 1)
    assert control['attainment'] == pytest.approx(1 / 3)
    assert (control['ttft_p50'], control['ttft_p99']) == (.1, .6)
    assert control['completion_mean'] == pytest.approx((1.0 + 2.0 + 1.5) / 3)
    assert control['completion_p99'] == 2.0
    assert control['max_gap_p99'] == .05
    assert (control['tardiness_p50'], control['tardiness_p99']) == (0.0, pytest.approx(.5))


def test_one_token_has_no_tpot():
    (summary,) = class_summary([report(tokens=1, tpot=0.0, gap=0.0)]).values()
    assert summary['tpot_p50'] is summary['max_gap_p99'] is None


def test_class_table_prints_every_class(capsys):
    console = Console(width=120)
    console.print(class_table(class_summary([report(), report(DIALOGUE, ttft=2.0), UNSERVED])))
    text = capsys.readouterr().out
    assert '1 (50%)' in text and '0 (0%)' in text and '100 ms' in text and '2.00 s' in text
