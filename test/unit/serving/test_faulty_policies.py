# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever a policy of another package does wrong, callers are answered and the loop goes on."""

import math

import pytest
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request, State
from slice_ros.scheduling import roll_out as module
from slice_ros.scheduling.baselines.orca import Orca
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity
from slice_ros.scheduling.prediction import Prediction
from slice_ros.scheduling.registry import POLICIES
from slice_ros.scheduling.roll_out import roll_out

from .conftest import FakeEngine
from .test_server import ask, CONTROL

FAULTS = [RuntimeError('no idea'), SystemExit(3), GeneratorExit()]


@pytest.fixture
def faulty():
    """Return a function that registers a subclass of Orca with some attributes replaced."""
    def register(**attributes):
        POLICIES['faulty'] = type('Faulty', (Orca,), attributes)
        return POLICIES['faulty']
    yield register
    POLICIES.pop('faulty', None)


def raising(error):
    def method(*given):
        raise error
    return method


@pytest.mark.parametrize('error', FAULTS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize('method', ['plan', 'finished', 'on_idle', 'inherit'])
def test_a_method_that_raises_ends_no_thread(make_server, faulty, method, error):
    faulty(**{method: raising(error)})
    server = make_server(FakeEngine(), policy='faulty')
    server.reconfigure(server.config)   # the next plan inherits
    _, consumer = ask(server, max_tokens=3)
    expected = ErrorCode.ENGINE_FAILURE if method == 'plan' else ErrorCode.NONE
    assert consumer.last.error is expected
    assert method != 'plan' or 'policy faulty' in consumer.last.message
    assert server.alive and server.snapshot().policy_failures


def test_a_policy_that_cannot_be_made_again_stays(make_server, faulty):
    made = []

    def init(self, capacity, options=None):
        made.append(self)
        if len(made) > 1:
            raise OSError('only once')
        Orca.__init__(self, capacity, options)
    faulty(__init__=init, finished=raising(RuntimeError('no idea')))
    server = make_server(FakeEngine(), policy='faulty')
    for _ in range(3):
        assert ask(server, max_tokens=2)[1].last.error is ErrorCode.NONE
    assert server.alive and server.snapshot().policy_failures >= 3


@pytest.mark.parametrize('attributes', [
    {'predict': raising(SystemExit(1))}, {'fresh': raising(OSError('no'))},
    {'finished': raising(RuntimeError('no'))}, {'predict': lambda *given: 3},
    {'predict': lambda *given: Prediction(None, 'soon', 1.0, '')},
    {'predict': lambda *given: Prediction(1.0, 1.0, 1.0, None)}])
def test_a_prediction_that_fails_is_an_answer(make_server, faulty, attributes):
    faulty(**attributes)
    server = make_server(FakeEngine(), policy='faulty', admission='reject')
    for question in (lambda: server.predict(CONTROL, 4, 4), lambda: ask(server, max_tokens=4)):
        with pytest.raises(RequestError, match='policy faulty') as refusal:
            question()
        assert refusal.value.code is ErrorCode.ENGINE_FAILURE


@pytest.mark.parametrize('ratio', [
    property(raising(RuntimeError('no'))), property(raising(SystemExit(1))), 'half', None])
def test_the_status_outlives_a_bad_capacity_ratio(make_server, faulty, ratio):
    faulty(capacity_ratio=ratio)
    assert math.isnan(make_server(FakeEngine(), policy='faulty').snapshot().capacity_ratio)


def test_a_request_that_ends_while_it_is_copied_is_left_out(monkeypatch):
    """The loop may end it between two looks of a prediction in another thread."""
    live = Request('live', CONTROL, 0.0, 4, 4, cached=4, generated=1)
    copy = module._copy

    def ended_meanwhile(request):
        if request is live and not request.ended:
            request.end(State.FINISHED, 0.0)
        return copy(request)
    monkeypatch.setattr(module, '_copy', ended_meanwhile)
    latency = LatencyModel('flat', ((1, 1.0),), prefill_token_ms=0.1)
    served = roll_out(Orca(Capacity()), 0.0, Request('', CONTROL, 0.0, 4, 4), [live], latency)
    assert served.state is State.FINISHED
