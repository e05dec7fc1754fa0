# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which requests are evicted for which."""

from slice_ros.request import Request
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.policy import Capacity, PrefillChunk
from slice_ros.slo import SloClass


def make(count, cached=0, prompt=10):
    requests = [Request(f'r{i}', SloClass('free'), 0.0, prompt, 10) for i in range(count)]
    for request in requests:
        if cached:
            request.advance(cached, 0.0)
    return requests


def test_a_step_that_fits_is_left_alone():
    requests = make(3, cached=10)
    step = fit_step(Capacity(slots=3, kv_tokens=33), requests, requests)
    assert (step.decode, step.evict) == (tuple(requests), ())


def test_the_least_useful_gives_up_its_tokens():
    requests = make(3, cached=10)
    step = fit_step(Capacity(kv_tokens=31), requests, requests)
    assert (step.decode, step.evict) == (tuple(requests[:2]), (requests[2],))


def test_the_least_useful_gives_up_its_slot():
    running, new = make(2, cached=10), make(1)
    chunk = PrefillChunk(new[0], 10)
    step = fit_step(Capacity(slots=2), [running[0], new[0], running[1]], [running[0]], [chunk])
    assert (step.decode, step.prefill, step.evict) == (
        (running[0],), (chunk,), (running[1],))


def test_a_more_useful_request_is_never_evicted():
    running, new = make(2, cached=10), make(1)
    step = fit_step(Capacity(slots=2), running + new, running, [PrefillChunk(new[0], 10)])
    assert (step.decode, step.prefill, step.evict) == (tuple(running), (), ())


def test_a_prefill_is_not_begun_where_its_whole_context_has_no_room():
    running, new = make(1, cached=10), make(1, prompt=20)
    step = fit_step(Capacity(kv_tokens=30), running + new, running, [PrefillChunk(new[0], 5)])
    assert (step.decode, step.prefill, step.evict) == (tuple(running), (), ())


def test_nobody_is_evicted_for_one_that_finds_no_room_even_so():
    running, (large, small) = make(2, cached=10), make(2, prompt=25)
    ranked = [running[0], large, running[1], small]
    chunks = [PrefillChunk(large, 25), PrefillChunk(small, 25)]
    step = fit_step(Capacity(kv_tokens=30), ranked, [running[0]], chunks)
    assert (step.decode, step.prefill, step.evict) == ((running[0],), (), ())
