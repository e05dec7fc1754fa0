# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Fewer bits: as good as the file they come from, the same in any company, refused."""

import logging

from conftest import NATIVE, use_kernels
import gguf_files
import numpy as np
import pytest
from slice_ros.bench.engine.accuracy import engine_perplexity, perplexity, text_tokens
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.runners.runner import Segment
from slice_ros.errors import ModelError
import tiny
import torch

FEW_BITS = [] if NATIVE is None else ['int8', 'int4']


def test_a_gguf_file_keeps_its_own_precision_where_the_kernels_are(kernels):
    info = load_engine(EngineConfig(max_context=64, slots=1)).info
    assert info.weights == ('fp16' if kernels == 'torch' else 'int4')


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """Return a GGUF file of three types."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(GgufFile, 'tokenizer', lambda self: tiny.tokenizer())
    config = tiny.llama()
    gguf_files.write(tmp_path / 'mixed.gguf', 'llama', config, tiny.model(config).state_dict(),
                     types=[('down_proj', 'Q5_1'), ('_proj', 'Q5_0'), ('', 'Q8_0')])
    return tmp_path / 'mixed.gguf'


@pytest.mark.skipif(NATIVE is None, reason='no native kernels')
def test_a_file_of_many_types_keeps_each_and_says_so(mixed, caplog):
    def logits(weights):
        engine = load_engine(EngineConfig(str(mixed), weights=weights, max_context=64, slots=1))
        engine._slots.reserve([(0, 20)])
        logits = engine._runner.forward([Segment(0, 0, range(20), True)])
        return engine, torch.as_tensor(logits).clone()
    caplog.set_level(logging.INFO)
    want = logits('fp32')[1]
    caplog.clear()
    engine, kept = logits('auto')
    assert engine.info.weights == 'int8'
    assert 'Q5_0 as int8, Q5_1 as int8, Q8_0 as int8' in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and 'round' in r.msg]
    # What remains are activations in 8 bits.
    assert (kept - want).abs().max() < 0.05 * want.abs().max()
    for weights, warnings in (('int8', 0), ('int4', 1)):
        caplog.clear()
        assert logits(weights)[0].info.weights == weights
        warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        said = f"weights '{weights}' round the codes of Q5_0 and Q5_1 again"
        assert sum(said in sentence for sentence in warned) == warnings


def test_few_bits_without_the_kernels_are_refused(tiny_directory, monkeypatch):
    use_kernels(monkeypatch, 'torch')
    with pytest.raises(ModelError, match='native kernels'):
        load_engine(EngineConfig(str(tiny_directory), weights='int8'))


@pytest.mark.parametrize('weights', FEW_BITS)
def test_few_bits_predict_nearly_as_well_and_do_not_mind_company(weights):
    exact = load_engine(EngineConfig(weights='fp16', max_context=256, slots=2, threads=2))
    tokens = text_tokens(exact)[:512]
    expected = engine_perplexity(exact, tokens)
    engine = load_engine(EngineConfig(weights=weights, max_context=256, slots=4, threads=2))
    assert engine_perplexity(engine, tokens) < 1.02 * expected
    engine._slots.reserve((slot, 64) for slot in range(3))

    def run(*segments):
        return torch.as_tensor(engine._runner.forward(segments)).clone()
    prompt = tokens[:50]
    alone = run(Segment(0, 0, prompt, True))[-1]
    run(Segment(1, 0, tokens[60:90], False))
    run(Segment(0, 0, prompt[:21], False))
    both = run(Segment(1, 30, tokens[90:91], True), Segment(0, 21, prompt[21:], True),
               Segment(2, 0, tokens[:5], True))
    assert torch.equal(both[1], alone)


def test_perplexity_of_what_is_known_by_heart_and_of_what_is_not():
    tokens = [2, 0, 1, 2, 0, 1, 2]

    def sure(part):
        return 50.0 * np.eye(3, dtype=np.float32)[[(t + 1) % 3 for t in part]]
    assert perplexity(tokens, sure, 4) == pytest.approx(1.0)
    assert perplexity(tokens, lambda part: np.zeros((len(part), 3), np.float32), 4) \
        == pytest.approx(3.0)
