# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Who waits longest is served in turn, for a small share of the time, beside any flood."""

from dataclasses import replace

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.request import Request, State
from slice_ros.scheduling.latency import load_profile
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.registry import make_policy
from slice_ros.scheduling.slice.starvation import STARVED_AFTER, STARVED_SHARE
from slice_ros.slo import DEFAULT_CLASSES, SloClass

LATENCY = load_profile(config_file('profiles', 'slice-authors-rtx4060ti'))
CONTROL, NAVIGATION, _ = DEFAULT_CLASSES
FLOOD = SloClass('flood', ttft_ms=1000, tpot_ms=100, deadline_ms=6000, utility=1e9)
LATE = SloClass('late', ttft_ms=1)   # its first token cannot be in time
AT_ONCE, TOKENS = 24, 40    # flood requests that are live at any time, and their length
SINCE, UNTIL = 5.0, 120.0   # seconds: the flood is steady when the others arrive


def flooded(others, seconds):
    """Serve `others` beside a flood that never ends.

    Return the seconds by which the others made steps longer, (end of step, id) of every part they
    took in one, and the flood requests that ended.
    """
    policy, now, number = make_policy('slice', Capacity()), 0.0, 0
    flood, ended, turns = [], [], []
    spent = 0.0
    while now < seconds:
        while len(flood) < AT_ONCE:
            flood.append(Request(f'flood-{number}', FLOOD, now, 96, 60))
            number += 1
        live = [r for r in others if r.arrival <= now] + flood
        live.sort(key=lambda r: r.arrival)
        step = policy.plan(now, tuple(live), LATENCY)
        took = LATENCY.step(*step.shape)
        now += took
        fed = [(r, 1) for r in step.decode] + [(c.request, c.tokens) for c in step.prefill]
        mine = [r for r, _ in fed if r in others]
        turns += [(now, r.id) for r in mine]
        chunks = [c for c in step.prefill if c.request not in mine]
        rows = tuple(r for r in step.decode if r not in mine)
        spent += took - LATENCY.step(*replace(step, decode=rows, prefill=chunks).shape)
        for request, tokens in fed:
            request.advance(tokens, now)
            if request.slo is FLOOD and request.generated == TOKENS:
                request.end(State.FINISHED, now)
                flood.remove(request)
                ended.append(request)
                policy.finished(request)
    return spent, turns, ended


@pytest.fixture(scope='module')
def five():
    others = [Request(f'other-{n}', LATE, SINCE, 64, 300) for n in range(5)]
    return others, *flooded(others, UNTIL)


def test_five_that_starve_are_each_served_in_turn(five):
    others, _, turns, _ = five
    assert all(request.generated for request in others)
    first = list(dict.fromkeys(name for _, name in turns))
    assert first == [r.id for r in others]   # the one that came first is the first
    least, most = (f(r.generated for r in others) for f in (min, max))
    assert most <= least + 1


def test_they_have_the_share_of_the_time_that_is_owed_and_no_more(five):
    _, spent, turns, _ = five
    assert .9 * (UNTIL - SINCE - STARVED_AFTER) < spent / STARVED_SHARE < UNTIL
    assert all(time > SINCE + STARVED_AFTER for time, _ in turns)


def test_the_flood_loses_next_to_nothing(five):
    _, _, alone = flooded([], UNTIL)
    attained = [sum(r.report().attained for r in ended) for ended in (five[3], alone)]
    assert attained[0] > .97 * attained[1] > 100


def test_whoever_comes_late_to_a_flood_starves_no_longer_than_the_others():
    others = [Request('first', CONTROL, 5.0, 64, 300), Request('second', NAVIGATION, 8.0, 64, 300),
              Request('third', SloClass('free', utility=1e-9), 11.0, 64, 300)]
    _, turns, _ = flooded(others, 90.0)
    names = [name for time, name in turns if time > SINCE + STARVED_AFTER]
    assert list(dict.fromkeys(names)) == ['first', 'second', 'third']
    assert sorted(names[-3:]) == sorted(names[-6:-3]) == ['first', 'second', 'third']
