# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The gate opened only when somebody is due: same rates, few ticks, and it never falls shut."""

from itertools import pairwise

import pytest
from slice_ros.request import Request
from slice_ros.serving import Gate, RateControl
from slice_ros.slo import SloClass

TICK, STALL = 0.005, 0.5


def serve(seconds, *paces_ms, speed=1.0, step=0.01, mode='paced'):
    """Serve requests of these paces, one step for all that are due; return (times, ticks, shut).

    A timer on the clock of the node, which runs at `speed`, waits for what `Gate.left` says, or
    for a fifth of the time that the gate stays open.
    """
    wall, ros, ticks, shut = 50.0, 1e9, 0, 0
    gate = Gate(RateControl(mode, TICK, STALL), lambda: wall)
    requests = [Request(str(n), SloClass('x', tpot_ms=ms), wall, 1, 10_000, generated=1, cached=1)
                for n, ms in enumerate(paces_ms)]
    times = [[] for _ in requests]
    gate.open(ros)
    computing, done_at = [], 0.0
    while wall < 50.0 + seconds:
        period = max(min(gate.left(), STALL / 5 * gate.speed), TICK)
        wall, ros, ticks = wall + period / speed, ros + period, ticks + 1
        if computing and wall < done_at:
            gate.open(ros)
            continue
        for n in computing:
            requests[n].advance(1, wall)
        shut += gate.shut(wall)
        gate.open(ros)
        gate.update(requests, wall)
        computing = [n for n, request in enumerate(requests) if request.ready]
        done_at = wall + step
        for n in computing:
            times[n].append(wall)
    return times, ticks, shut


@pytest.mark.parametrize('paces', [[100.0], [50.0], [250.0, 100.0], [100.0] * 8])
def test_the_rate_is_kept_with_a_few_ticks_a_step(paces):
    times, ticks, shut = serve(30.0, *paces)
    for one, ms in zip(times, paces):
        steady = [t for t in one if t > 60.0]
        rate = (len(steady) - 1) / (steady[-1] - steady[0])
        assert rate == pytest.approx(1e3 / ms, rel=0.01)
        assert all(abs(b - a - ms / 1e3) <= 0.0161 for a, b in pairwise(steady))
    steps = len({t for one in times for t in one})
    assert ticks < 6 * steps + 10 * 30 and ticks < 0.6 * 30 / TICK and not shut


@pytest.mark.parametrize('speed', [0.05, 0.5, 2.0])
@pytest.mark.parametrize('mode', ['paced', 'work_conserving'])
def test_a_slow_clock_does_not_let_the_gate_fall_shut(mode, speed):
    (times,), _, shut = serve(60.0, 1000.0, speed=speed, step=0.01, mode=mode)
    assert not shut
    if mode == 'paced':
        steady = times[len(times) // 4:]
        assert (len(steady) - 1) / (steady[-1] - steady[0]) == pytest.approx(speed, rel=0.05)
        return
    assert len(times) > 100


def test_what_is_computed_needs_ticks_until_all_wait_again():
    gate = Gate(RateControl('paced', TICK, STALL), lambda: 50.0)
    gate.open(1e9)
    paced = Request('paced', SloClass('x', tpot_ms=100), 50.0, 1, 9, generated=1, cached=1)
    gate.update([paced], 50.0)
    assert paced.gated and 0.03 < gate.left() < 0.1
    fresh = Request('fresh', SloClass('x', tpot_ms=100), 50.0, 1, 9)
    gate.update([paced, fresh], 50.0)
    assert gate.left() == 0
    gate.update([paced], 50.0)
    assert gate.left() > 0
    gate.await_opening()
    assert gate.left() == 0
