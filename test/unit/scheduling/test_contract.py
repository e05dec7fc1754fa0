# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Each way in which a step breaks the contract is named with the policy."""

import math
from types import SimpleNamespace

import pytest
from slice_ros.request import Request, State
from slice_ros.scheduling.contract import check_capacity, check_step, PolicyError
from slice_ros.scheduling.policy import Capacity, PrefillChunk, Step
from slice_ros.scheduling.registry import make_policy
from slice_ros.slo import SloClass

POLICY = make_policy('orca', Capacity(max_batch=2))


def running(name):
    return Request(name, SloClass('a'), 0.0, 10, 50, cached=10, generated=1, first_token_at=0.0,
                   last_token_at=0.0)


NEW = Request('new', SloClass('a'), 0.0, 10, 50)
ONE, TWO, THREE, GATED, DEAD = (running(name) for name in ('one', 'two', 'three', 'gated', 'dead'))
GATED.gated = True
DEAD.end(State.FINISHED, 1.0)
LIVE = (NEW, ONE, TWO, THREE, GATED)


def chunk(request, tokens):
    return PrefillChunk(request, tokens)


@pytest.mark.parametrize('step', [
    Step(), Step(wake_at=3), Step(wake_at=math.inf), Step(drop=(NEW,)),
    Step(decode=(ONE, TWO), prefill=(chunk(NEW, 10),), evict=(THREE, GATED))])
def test_a_step_that_keeps_it_passes(step):
    check_step(POLICY, step, LIVE)


@pytest.mark.parametrize('step, sentence', [
    (None, 'returned None, which is no Step'),
    ((ONE,), 'which is no Step'),
    (SimpleNamespace(decode=()), 'which is no Step'),
    (Step(decode=(NEW,)), 'decodes new before its prefill'),
    (Step(decode=(GATED,)), 'decodes gated, which rate control has gated'),
    (Step(decode=(DEAD,)), r'names dead, which is not live \(finished\)'),
    (Step(decode=(running('other'),)), r'names other, which is not live \(waiting\)'),
    (Step(decode=(ONE, ONE)), 'names a request twice'),
    (Step(decode=(ONE,), evict=(ONE,)), 'names a request twice'),
    (Step(drop=(ONE, ONE)), 'names a request twice'),
    (Step(drop=(DEAD,)), 'names dead, which is not live'),
    (Step(evict=(DEAD,)), 'names dead, which is not live'),
    (Step(prefill=(chunk(DEAD, 1),)), 'names dead, which is not live'),
    (Step(prefill=(chunk(NEW, 5), chunk(NEW, 5))), 'names a request twice'),
    (Step(prefill=(chunk(ONE, 1),)), 'prefills one, which is decoding'),
    (Step(prefill=(chunk(NEW, 0),)), 'feeds 0 of 10 tokens of new'),
    (Step(prefill=(chunk(NEW, 11),)), 'feeds 11 of 10 tokens of new'),
    (Step(prefill=(chunk(NEW, 2.5),)), 'feeds 2.5 of 10 tokens of new'),
    (Step(prefill=(NEW,)), 'which is no PrefillChunk'),
    (Step(prefill=(chunk(None, 1),)), 'wrong type'),
    (Step(decode=(ONE, TWO, THREE)), 'decodes 3 requests, over 2'),
    (Step(wake_at=math.nan), 'wake_at=nan, which is no number'),
    (Step(wake_at='soon'), "wake_at='soon', which is no number"),
    (Step(decode=[ONE]), 'not a tuple'),
    (Step(decode=(3,)), 'wrong type'),
    (Step(decode=({},)), 'wrong type'),
    (Step(drop=None), 'wrong type'),
])
def test_a_step_that_breaks_it_is_refused_in_a_sentence_with_the_name(step, sentence):
    with pytest.raises(PolicyError, match=f'^policy orca .*{sentence}'):
        check_step(POLICY, step, LIVE)


def small(**limits):
    """Return a policy whose engine has room for what LIVE has cached, and one slot more."""
    return make_policy('orca', Capacity(**{'max_batch': 4, 'slots': 5, 'kv_tokens': 46,
                                           'prefill_chunk': 6, **limits}))


@pytest.mark.parametrize('limits, step, sentence', [
    ({}, Step(decode=(ONE,), prefill=(chunk(NEW, 5),)), ''),
    ({}, Step(decode=(ONE,), prefill=(chunk(NEW, 6),)), 'uses 47 tokens of KV cache, over 46'),
    ({}, Step(prefill=(chunk(NEW, 7),)), 'prefills 7 tokens, over 6'),
    ({'slots': 4}, Step(prefill=(chunk(NEW, 5),)), 'uses 5 KV slots, over 4'),
    ({'slots': 4}, Step(prefill=(chunk(NEW, 5),), evict=(TWO,)), ''),
    ({'kv_tokens': 40}, Step(decode=(ONE, TWO)), 'uses 42 tokens of KV cache, over 40'),
    ({'kv_tokens': 40}, Step(decode=(ONE, TWO), drop=(THREE,)), '')])
def test_a_step_fits_the_capacity(limits, step, sentence):
    if not sentence:
        check_capacity(small(**limits), step, LIVE)
        return
    with pytest.raises(PolicyError, match=f'^policy orca {sentence}$'):
        check_capacity(small(**limits), step, LIVE)


def test_a_policy_that_leaves_everybody_waiting_is_at_fault():
    """Nothing would wake it: no step ends, no time comes, no gate opens."""
    with pytest.raises(PolicyError, match='^policy orca does nothing, and 2 requests wait'):
        check_capacity(POLICY, Step(), (NEW, ONE))
    check_capacity(POLICY, Step(wake_at=2.0), (NEW, ONE))
    check_capacity(POLICY, Step(), (NEW, GATED))
