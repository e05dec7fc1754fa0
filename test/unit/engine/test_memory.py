# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Peak memory while a model is loaded, and memory that measuring returns."""

from contextlib import contextmanager
import tracemalloc
import weakref

import gguf_files
import numpy as np
import pytest
from safetensors.torch import save_file
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.checkpoints import tensor_files
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.memory import spare_heap
from slice_ros.engine.kv.slots import page_table
from slice_ros.engine.models.families import describe
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.profile import Probe
from slice_ros.engine.runners.native import build, load_library, packing
from slice_ros.engine.runners.native.gguf_decoder import NativeDecoder
from slice_ros.engine.runners.native.native_runner import StoredWeights
import tiny
import torch

VOCABULARY = 4096
LIBRARY, _ = load_library()
needs_kernels = pytest.mark.skipif(LIBRARY is None, reason='the native kernels are not built')


@contextmanager
def peak_memory():
    """Yield a function that returns the most bytes allocated at once so far (numpy's count)."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.fixture(scope='module')
def model():
    """Return a config whose embedding is by far its largest tensor, and the weights."""
    config = tiny.llama(vocab_size=VOCABULARY, hidden_size=256, num_attention_heads=4)
    return config, tiny.model(config).state_dict()


@needs_kernels
@pytest.mark.parametrize('stored, kind', [
    ('float32', 'fp16'), ('float16', 'fp16'), ('float16', 'int8'), ('float16', 'bf16'),
    ('Q8_0', 'int8'), ('Q4_1', 'int4'), ('Q4_1', 'fp16')])
def test_packing_holds_less_than_one_more_copy_of_the_largest_tensor(
        model, tmp_path, monkeypatch, stored, kind):
    config, state = model
    monkeypatch.setattr(packing, '_PIECE', 1 << 14)
    if stored.startswith('float'):
        state = {name: tensor.to(getattr(torch, stored)) for name, tensor in state.items()
                 if name != 'lm_head.weight'}
        save_file(state, tmp_path / 'model.safetensors')
        files = tensor_files.Tensors(tmp_path)
        largest = max(tensor.nbytes for tensor in state.values())
    else:
        gguf_files.write(tmp_path / 'model.gguf', 'llama', config, state, types=[('', stored)])
        source = GgufFile(tmp_path / 'model.gguf')
        files = GgufTensors(source, np.float16, NativeDecoder(LIBRARY))
        largest = max(tensor.nbytes for _, tensor in source.named())
    made = describe(config)
    tensors = StoredWeights(ModelTensors(made, files))
    angles = np.ones((1, 64, 32), np.float32)
    # What the model keeps beside its weights comes when these are packed.
    monkeypatch.setattr(build, 'NativeModel', lambda *parts: parts)
    with peak_memory() as peak:
        build.build_model(LIBRARY, made, tensors, kind, angles, angles,
                          table=page_table(1, 64), pages=2, threads=1)
        assert peak() < largest


@needs_kernels
def test_measuring_gives_its_keys_and_values_back_and_spares_those_in_use(tiny_directory):
    engine = load_engine(EngineConfig(str(tiny_directory), weights='fp16', max_context=128,
                                      slots=4))
    pages = engine._runner._pages

    def answer():
        sequence = engine.open(list(range(1, 60)), 4, Sampling())
        reused = engine.adopt(sequence)
        while not sequence.finish_reason:
            engine.step([(sequence, sequence.pending)])
        return sequence, reused, sequence.tokens

    with Probe(engine, 2) as probe:
        probe.decode(2, 40)
        assert pages.keys.any()
    assert not pages.keys.any() and not pages.values.any()
    first, reused, tokens = answer()
    assert reused == 0
    engine.close(first)  # its prefix is kept
    with Probe(engine, 2) as probe:
        probe.decode(2, 40)
    second, reused, again = answer()
    assert reused >= 32
    assert again == tokens
    engine.close(second)


def test_keys_and_values_without_the_kernels_go_back_with_the_last_page():
    cache = KvCache(2, page_table(2, 256), 16, 2, 64, torch.float32, torch.device('cpu'))
    cache.table[:, 0] = 3, 5
    cache.fill([0, 1], 20)
    cache.table[0] = -1
    cache.forget()
    assert cache.data[:, :, 5].any()
    cache.table[1] = -1
    cache.forget()
    assert not cache.data[:, :, 5].any()


def test_an_earlier_engine_is_collected_before_the_next_is_loaded(tiny_directory):
    class Engine:
        pass
    engine = Engine()
    engine.itself = engine
    ended = weakref.ref(engine)
    spare_heap()
    del engine
    load_engine(EngineConfig(str(tiny_directory), max_context=64, slots=1))
    assert ended() is None
