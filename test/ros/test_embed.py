# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""~/embed with the real model: vectors, refusals, and answers that are due beside it."""

import math

from action_msgs.msg import GoalStatus
from conftest import get
import numpy as np
import pytest
from slice_ros.client import InvalidRequest
from slice_ros.engine.pooling import Pooling
from slice_ros.errors import ErrorCode
from slice_ros.request import Request
from slice_ros.slo import SloClass

TEXTS = ['The red cup is on the kitchen table.', 'A mug stands on the table in the kitchen.',
         'The elevator is out of order until Monday.']


def vectors(response):
    assert not response.error_code, response.error_msg
    return [np.array(embedding.values) for embedding in response.embeddings]


def test_texts_come_back_as_vectors_of_length_one(caller, node):
    response = caller.call(caller.embedder, texts=TEXTS)
    cup, mug, lift = vectors(response)
    assert all(len(v) == node.engine.info.hidden for v in (cup, mug, lift))
    assert all(math.isclose(np.linalg.norm(v), 1, abs_tol=1e-5) for v in (cup, mug, lift))
    assert cup @ mug > max(cup @ lift, mug @ lift)
    assert list(response.tokens) == [len(node.engine.encode(text)) for text in TEXTS]
    assert response.model == node.engine.info.model
    last, = vectors(caller.call(caller.embedder, texts=TEXTS[:1], pooling='last'))
    assert abs(last @ cup) < 0.99


def test_a_long_text_is_that_of_one_pass(caller, node):
    text = ' '.join(TEXTS) * 12
    got, = vectors(caller.call(caller.embedder, texts=[text], slo_class='navigation'))
    engine, tokens, pooling = node.engine, node.engine.encode(text), Pooling('mean')
    request = Request('e', SloClass('e'), 0.0, len(tokens), 1)
    sequence = engine.open_embedding(tokens, pooling, request)
    engine.step([(sequence, len(tokens))])   # no request is live: the loop waits
    engine.close(sequence)
    np.testing.assert_array_equal(got, pooling.vector())


def test_answers_that_are_due_come_first(caller, node):
    """A list of long texts beside control goals: all of them are served, in their time."""
    before = node.server.snapshot().classes['control']
    embedded = caller.embedder.call_async(caller.embedder.srv_type.Request(
        texts=[' '.join(TEXTS) * 8] * 12))
    for _ in range(6):
        status, result = caller.ask(slo_class='control', prompt='Stop or go?', max_tokens=4,
                                    ttft_ms=20000.0, deadline_ms=60000.0)
        assert status == GoalStatus.STATUS_SUCCEEDED and result.report.attained
    assert len(vectors(get(embedded, 120))) == 12
    after = node.server.snapshot().classes
    assert after['control'].received - before.received == 6 and 'embed' not in after


@pytest.mark.parametrize('request_, code, word', [
    ({'texts': []}, ErrorCode.INVALID_REQUEST, '1 to 64'),
    ({'texts': ['a'] * 65}, ErrorCode.INVALID_REQUEST, '65 texts'),
    ({'texts': ['a', '']}, ErrorCode.INVALID_REQUEST, 'empty'),
    ({'texts': ['a'], 'pooling': 'max'}, ErrorCode.INVALID_REQUEST, 'mean, last'),
    ({'texts': ['a'], 'pooling': 'x' * 999}, ErrorCode.INVALID_REQUEST, 'pooling'),
    ({'texts': ['a'], 'slo_class': 'nobody'}, ErrorCode.UNKNOWN_SLO_CLASS, 'nobody'),
    ({'texts': ['word ' * 4000]}, ErrorCode.PROMPT_TOO_LONG, 'shorten'),
    ({'texts': ['x' * (1 << 20)] * 3}, ErrorCode.PROMPT_TOO_LONG, 'bytes')])
def test_what_cannot_be_embedded_gets_a_code_and_a_sentence(caller, request_, code, word):
    response = caller.call(caller.embedder, **request_)
    assert response.error_code == code and word in response.error_msg
    assert not response.embeddings and not response.tokens and not response.model


def test_the_client_library_embeds_any_number_of_texts(client, play, caller):
    many = [f'Shelf {number} has a box.' for number in range(66)]
    found = play(client.embed(many))
    assert len(found) == 66
    assert all(math.isclose(np.linalg.norm(v), 1, abs_tol=1e-5) for v in found)
    last, = vectors(caller.call(caller.embedder, texts=many[-1:]))
    np.testing.assert_array_equal(found[-1], last)
    assert play(client.embed([])) == []
    for texts, options in ((['a', ''], {}), (['a', 3], {}), (None, {}),
                           (['a'], {'pooling': 'max'}), (['a'], {'slo_class': 'nobody'})):
        with pytest.raises(InvalidRequest):
            play(client.embed(texts, **options))
