# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Every runner keeps the protocol, and states what it can do as data."""

import inspect

from conftest import KERNELS, use_kernels
import pytest
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.runners.cuda.graph_runner import GraphRunner
from slice_ros.engine.runners.native.native_runner import NativeRunner
from slice_ros.engine.runners.runner import Runner, RunnerInfo
from slice_ros.engine.runners.torch.linear import fp16_kernels, make_linear
from slice_ros.engine.runners.torch.torch_runner import TorchRunner
from slice_ros.engine.runners.transformers import TransformersRunner
import tiny
import torch

METHODS = ('forward', 'greedy', 'share', 'forget', 'fill')


@pytest.mark.parametrize('runner', [NativeRunner, TorchRunner, GraphRunner, TransformersRunner])
@pytest.mark.parametrize('method', METHODS)
def test_a_runner_has_the_methods_of_the_protocol(runner, method):
    wanted = inspect.signature(getattr(Runner, method)).parameters
    assert inspect.signature(getattr(runner, method)).parameters == wanted


@pytest.mark.parametrize('kernels', KERNELS)
def test_the_flat_batch_shares_prefixes_in_the_pages_of_the_one_table(kernels, tmp_path,
                                                                      monkeypatch):
    use_kernels(monkeypatch, kernels)
    tiny.save(tmp_path, tiny.llama())
    engine = load_engine(EngineConfig(str(tmp_path), device='cpu', max_context=64, slots=4))
    info = engine._runner.info
    assert isinstance(info, RunnerInfo)
    assert info.shares_prefixes and not info.asynchronous and not engine.info.asynchronous
    assert info.pages == 8 and info.weight_bytes > 0 and info.kv_bytes > 0
    cache = engine._runner._pages if kernels == 'native' else engine._runner.cache
    assert cache.table is engine._slots._table


def test_transformers_keeps_a_cache_for_each_slot_and_shares_nothing(tmp_path):
    tiny.save(tmp_path, tiny.gpt2())
    engine = load_engine(EngineConfig(str(tmp_path), device='cpu', max_context=64, slots=4))
    info = engine._runner.info
    assert info.path == 'transformers' and not info.shares_prefixes
    # Counted, so that `Slots` bounds the tokens: float32, 2 layers of 64, once more for a batch.
    assert (info.pages, info.kv_bytes) == (8, 8 * 32 * 2 * 2 * 2 * 64 * 4)
    with pytest.raises(NotImplementedError):
        engine._runner.share(0, 1, 32)


@pytest.mark.skipif(not fp16_kernels(), reason="torch has fbgemm's fp16 linears on x86-64")
def test_a_row_of_an_fp16_linear_is_the_same_bits_among_any_number():
    """Remainders of each size are in it: fbgemm has kernels for one row, two and more."""
    torch.manual_seed(1)
    x, weight = torch.randn(40, 96), torch.randn(64, 96)
    run = make_linear([weight], torch.randn(64), 'fp16', torch.device('cpu'))
    alone = torch.cat([run(row[None]) for row in x])
    for rows in range(1, 41):
        assert torch.equal(run(x[:rows]), alone[:rows])
