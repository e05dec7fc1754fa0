# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Embeddings are those of transformers, in chunks, in company, and after an eviction."""

from conftest import use_kernels
from formats import GREEDY
import numpy as np
import pytest
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.pooling import Pooling
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request
from slice_ros.slo import SloClass
import tiny
import torch
from transformers import AutoModel

TEXT = [5, 9, 200, 31, 77, 8, 120, 44, 13, 90] * 6
SLO = SloClass('memory')


@pytest.fixture(scope='module', params=['native', 'torch'])
def engine(request, tiny_directory):
    with pytest.MonkeyPatch.context() as patch:
        use_kernels(patch, request.param)
        return load_engine(EngineConfig(str(tiny_directory), weights='fp32', max_context=128,
                                        slots=4))


@pytest.fixture(scope='module')
def reference(tiny_directory):
    """Return a function that gives the states of tokens, by transformers."""
    model = AutoModel.from_pretrained(tiny_directory, dtype=torch.float32).eval()

    def states(tokens):
        with torch.inference_mode():
            return model(torch.tensor([tokens])).last_hidden_state[0].numpy()
    return states


def begun(engine, kind='mean', tokens=TEXT):
    return engine.open_embedding(tokens, Pooling(kind), Request('e', SLO, 0.0, len(tokens), 1))


def embedded(engine, sequence, chunk=1000, others=()):
    """Return the embedding, and the outputs of the sequence."""
    outputs = []
    while not sequence.finish_reason:
        work = [(sequence, min(chunk, sequence.pending)), *[(s, s.pending) for s in others]]
        outputs += [o for o in engine.collect(engine.launch(work)).outputs
                    if o.sequence is sequence]
    engine.close(sequence)
    return sequence.pooling.vector(), outputs


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize('kind, pooled', [('mean', lambda states: states.mean(0)),
                                          ('last', lambda states: states[-1])])
@pytest.mark.parametrize('chunk', [1000, 7, 1])
def test_it_is_that_of_transformers(engine, reference, kind, pooled, chunk):
    vector, outputs = embedded(engine, begun(engine, kind), chunk)
    np.testing.assert_allclose(vector, unit(pooled(reference(TEXT))), atol=2e-6)
    assert vector.dtype == np.float32 and vector.shape == (engine.info.hidden,)
    assert [(o.number, o.text, o.finish_reason) for o in outputs] == [(1, '', 'stop')]


def test_company_changes_neither(engine):
    alone, _ = embedded(engine, begun(engine), 20)
    plain = engine.open(TEXT[:9], 4, GREEDY)
    while not plain.finish_reason:
        engine.step([(plain, plain.pending)])
    engine.close(plain)
    other = engine.open(TEXT[:9], 4, GREEDY)
    beside, _ = embedded(engine, begun(engine), 20, [other])
    while not other.finish_reason:
        engine.step([(other, other.pending)])
    engine.close(other)
    np.testing.assert_allclose(beside, alone, atol=1e-6)
    assert other.tokens == plain.tokens


def test_one_whose_cache_was_taken_begins_again(engine):
    whole, _ = embedded(engine, begun(engine))
    sequence = begun(engine)
    engine.step([(sequence, 25)])
    engine.evict(sequence)
    assert sequence.cached == 0 and engine.adopt(sequence) == 0
    np.testing.assert_allclose(embedded(engine, sequence, 25)[0], whole, atol=1e-6)


def test_it_leaves_nothing_in_the_cache(engine):
    prompt = engine.open(TEXT, 1, GREEDY)
    engine.step([(prompt, prompt.pending)])
    engine.close(prompt)
    kept = dict(engine._slots._kept)
    embedded(engine, begun(engine, tokens=TEXT[::-1]))
    assert engine._slots._kept == kept


@pytest.mark.parametrize('kind', ['', 'max', 3])
def test_another_pooling_is_none(kind):
    with pytest.raises(ValueError, match='mean, last'):
        Pooling(kind)


def test_a_model_that_runs_through_transformers_makes_none(tmp_path):
    tiny.save(tmp_path, tiny.gpt2())
    with pytest.raises(RequestError, match='transformers') as caught:
        begun(load_engine(EngineConfig(str(tmp_path), weights='fp32', max_context=64, slots=2)))
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_texts_about_one_thing_are_nearer_than_others():
    engine = load_engine(EngineConfig(max_context=128, slots=2, threads=1))
    cup, mug, lift = (embedded(engine, begun(engine, tokens=engine.encode(text)))[0] for text in (
        'The red cup is on the kitchen table.', 'A mug stands on the table in the kitchen.',
        'The elevator is out of order until Monday.'))
    assert cup @ mug > max(cup @ lift, mug @ lift)
