# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Keys and values in 8 bits: who has them, what they take, and how near they stay."""

from conftest import NATIVE
import pytest
from slice_ros.engine import EngineConfig, load_engine, profile
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.kv import memory
from slice_ros.engine.runners import choose
from slice_ros.engine.runners.runner import Segment
from slice_ros.errors import ModelError
from slice_ros.scheduling.latency import LatencyModel
import tiny
import torch

needs_kernels = pytest.mark.skipif(NATIVE is None, reason='the native kernels are not built')
HEADS, SIZE, LAYERS, PAGE = 2, 16, 3, 32   # of tiny.llama
# Windows, two ropes, one key-value head, soft caps, sinks, norms of queries and keys, no ropes.
NAMES = ('qwen3', 'gemma2', 'gemma3_text', 'gpt_oss', 'smollm3', 'phi3', 'olmo3', 'cohere2')
# Rounding adds 0.5 % of noise to normal numbers: a step of 1/127 of the largest of 32, which is
# 2.1 deviations away, over sqrt(12). Keys and values of three layers: 1.2 % of the logits, if
# these came from attention alone and scores were 1. Several times that is a fault. It holds for
# most tokens: where two experts are nearly alike, one may choose the other.
NEAR = 0.03


def engine_of(path, kv, **options):
    return load_engine(EngineConfig(str(path), kv=kv, **{
        'device': 'cpu', 'max_context': 128, 'slots': 2, 'threads': 1} | options))


def logits(engine, tokens):
    """Return the logits after each of `tokens`, which are one chunk."""
    slot = engine._slots.take()
    engine._slots.reserve([(slot, len(tokens))])
    rows = [Segment(slot, at, [token], True) for at, token in enumerate(tokens)]
    return torch.as_tensor(engine._runner.forward(rows)).clone()


@needs_kernels
@pytest.mark.parametrize('name', [*NAMES, *tiny.RECURRENT])
def test_8_bits_stay_near_16(name, tmp_path):
    tiny.save(tmp_path, (tiny.FAMILIES | tiny.RECURRENT)[name]())
    tokens = [(11 * n) % 250 for n in range(90)]
    want, got = (logits(engine_of(tmp_path, kv, weights='fp32'), tokens) for kv in ('16', '8'))
    away = (got - want).square().mean(1).sqrt().median() / want.std()
    assert 1e-5 < away < NEAR


@needs_kernels
@pytest.mark.parametrize('weights, kv, bits', [
    ('fp32', 'auto', 32), ('fp16', 'auto', 16), ('int4', 'auto', 16), ('fp32', '16', 16),
    ('fp32', '8', 8), ('int4', '8', 8)])
def test_the_bits_are_named_and_taken(weights, kv, bits, tiny_directory, caplog):
    with caplog.at_level('INFO'):
        engine = engine_of(tiny_directory, kv, weights=weights)
    info = engine.info
    assert info.kv_bits == bits and f'keys and values in {bits} bits' in info.sentence()
    assert f'keys and values in {bits} bits' in caplog.text
    scales = 2 if bits == 8 else 0   # bytes, for each 32 numbers
    numbers = 2 * LAYERS * HEADS * PAGE
    assert info.kv_bytes == 8 * numbers * (SIZE * bits // 8 + scales)


@needs_kernels
def test_about_twice_as_many_tokens_fit(tiny_directory, monkeypatch):
    page = 2 * LAYERS * HEADS * PAGE * SIZE * 2
    weights = Tensors(tiny_directory).nbytes
    monkeypatch.setattr(memory, '_available_memory', lambda: weights + 2 * 100 * page)
    pages = [engine_of(tiny_directory, kv, slots=64, weights='fp16')._runner.info.pages
             for kv in ('16', '8')]
    assert pages == [100, int(100 * 32 / 18)]   # heads of 16: 16 codes and a scale


@needs_kernels
def test_profiles_of_both_are_kept(tiny_directory, tmp_path, monkeypatch):
    measured = []

    def measure(engine, progress):
        measured.append(engine.info.kv_bits)
        return LatencyModel('any', ((1, 1e9),))
    monkeypatch.setattr(profile, 'cache_root', lambda: tmp_path)
    monkeypatch.setattr(profile, 'measure', measure)
    monkeypatch.setattr(profile, '_share', lambda engine, model: 1.0)
    for kv in ('16', '8', '16', '8'):
        engine_of(tiny_directory, kv, weights='fp16').profile()
    assert measured == [16, 8]


def test_other_runners_refuse_8_bits(tiny_directory, tmp_path, kernels):
    tiny.save(tmp_path, tiny.OTHER['gpt2']())
    with pytest.raises(ModelError, match=r"8 bits \(engine.kv\) need the native .*use 'auto'"):
        engine_of(tmp_path, '8')
    for kv in ('auto', '16'):
        assert engine_of(tmp_path, kv).info.kv_bits == 32   # as the model computes
    if kernels == 'torch':
        with pytest.raises(ModelError, match=r"need the native kernels.*: use 'auto'"):
            engine_of(tiny_directory, '8')
        assert engine_of(tiny_directory, 'auto').info.kv_bits == 32


def test_what_other_kernels_keep_instead_is_said(tmp_path, monkeypatch, caplog):
    tiny.save(tmp_path, tiny.llama())
    monkeypatch.setattr(choose, 'load_library', lambda: (None, 'there are none'))
    engine = load_engine(EngineConfig(str(tmp_path), weights='fp32', kv='16', max_context=64,
                                      slots=1))
    assert engine.info.kv_bits == 32
    assert 'keys and values have 32 bits, not the 16 of engine.kv' in caplog.text
