# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which node a request is sent to, and what is left of its objectives; no ROS graph."""

import math

import pytest
from slice_ros.action import Generate
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.msg import SloClass as SloMessage
from slice_ros.router.node_choice import bucket, Forecast, left_of, objectives, soonest
from slice_ros.slo import SloClass

CONTROL = SloClass('control', ttft_ms=500, tpot_ms=50, deadline_ms=1500)
KNOWN = SloMessage(name='control', ttft_ms=500.0, tpot_ms=50.0, deadline_ms=1500.0, utility=9.0)
NAN = math.nan


@pytest.mark.parametrize('near, far, chosen', [
    # Each: feasible, TTFT, completion, and the delay of the link, in ms.
    ((True, 20, 100, 1), (True, 20, 100, 1), 'near'),
    ((True, 20, 100, 1), (True, 20, 95, 1), 'near'),         # a tie: within a step
    ((True, 20, 100, 1), (True, 20, 80, 1), 'far'),
    ((True, 20, 100, 1), (True, 20, 50, 60), 'near'),        # the link takes the gain
    ((False, 600, 700, 1), (True, 20, 900, 1), 'far'),
    ((True, 20, 1400, 1), (True, 20, 1300, 400), 'near'),    # over the link it would be late
    ((False, 600, 1700, 1), (True, 450, 700, 100), 'far'),   # neither can: the sooner one
    ((False, 600, NAN, 1), (False, 900, NAN, 1), 'near'),    # no completion: by its first token
    ((False, NAN, NAN, 1), (False, 900, NAN, 1), 'far'),
    ((False, NAN, NAN, 1), (False, NAN, NAN, 1), 'near')])
def test_the_node_that_meets_the_objectives_soonest(near, far, chosen):
    forecasts = {name: (Forecast(*each[:3]), each[3])
                 for name, each in (('near', near), ('far', far))}
    assert soonest(forecasts, CONTROL) == chosen


def test_what_is_left_of_an_objective():
    assert left_of(500.0, 120.0) == 380.0
    assert left_of(500.0, 500.0) == math.inf and left_of(0.0, 1.0) == math.inf


def test_the_objectives_of_a_goal():
    def found(known=KNOWN, **fields):
        slo = objectives(Generate.Goal(slo_class='control', **fields), known)
        return slo.ttft_ms, slo.tpot_ms, slo.deadline_ms
    assert found() == (500.0, 50.0, 1500.0)
    assert found(ttft_ms=9.0, deadline_ms=math.inf) == (9.0, 50.0, 0.0)
    assert found(known=None, tpot_ms=7.0) == (0.0, 7.0, 0.0)
    for wrong in ({'ttft_ms': -1.0}, {'tpot_ms': NAN}):
        with pytest.raises(RequestError) as caught:
            found(**wrong)
        assert caught.value.code is ErrorCode.INVALID_REQUEST
    with pytest.raises(RequestError) as caught:
        objectives(Generate.Goal(slo_class='a/b'), None)
    assert caught.value.code is ErrorCode.UNKNOWN_SLO_CLASS


def test_one_answer_is_good_for_requests_of_a_size():
    def of(text, **fields):
        return bucket(Generate.Goal(slo_class='control', prompt=text, **fields))
    assert of('a' * 40) == of('b' * 50) != of('a' * 400)
    assert of('a') != of('a', max_tokens=9) and of('a') != of('a', ttft_ms=9.0)
