# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of a planned step whose chunks would part images that must be fed whole."""

import pytest
from slice_ros.engine.sequence import TokenSequence
from slice_ros.request import Request
from slice_ros.scheduling.policy import PrefillChunk, Step
from slice_ros.serving.job import Job, with_whole_images
from slice_ros.slo import SloClass

SPANS = ((10, 26),)


def job(name, joined=SPANS, cached=0):
    request = Request(name, SloClass('any'), 0.0, 60, 5, cached=cached)
    return Job(request, TokenSequence(request, [7] * 60, 5, None, None, joined=joined), print)


def planned(*chunks):
    """Return the chunks of a step of (job, tokens) as they are fed, by request id."""
    jobs = {job.request.id: job for job, _ in chunks}
    step = with_whole_images(Step(prefill=tuple(
        PrefillChunk(job.request, tokens) for job, tokens in chunks)), jobs)
    return {chunk.request.id: chunk.tokens for chunk in step.prefill}


@pytest.mark.parametrize('cached, tokens, fed', [
    (0, 8, 8), (0, 15, 10), (0, 26, 26), (10, 3, 16), (10, 40, 40), (26, 3, 3)])
def test_a_chunk_ends_outside_of_images(cached, tokens, fed):
    assert planned((job('a', cached=cached), tokens)) == {'a': fed}


def test_one_chunk_of_a_step_becomes_longer_and_others_wait():
    assert planned((job('a', cached=10), 3), (job('b', cached=10), 3), (job('c'), 15),
                   (job('d', joined=()), 12)) == {'a': 16, 'c': 10, 'd': 12}


def test_a_step_without_such_images_is_the_same():
    step = Step(decode=(Request('x', SloClass('any'), 0.0, 1, 1),))
    assert with_whole_images(step, {}) is step
    other = job('a', joined=())
    step = Step(prefill=(PrefillChunk(other.request, 13),))
    assert with_whole_images(step, {'a': other}) is step
