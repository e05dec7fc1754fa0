# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A model loaded and served as on a GPU: on one if there is one, else in Triton's interpreter."""

from dataclasses import replace
import gc
import random
import re

from conftest import use_kernels
from gpu_runners import DEVICE
import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.checkpoints import hf_directory
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.kv import memory
from slice_ros.engine.kv.slots import page_table
from slice_ros.engine.models.families import describe
from slice_ros.engine.runners import choose, torch_paths
from slice_ros.engine.runners.cuda.gpu_linear import sixteen_bits
from slice_ros.engine.runners.cuda.graph_runner import GraphRunner
from slice_ros.engine.runners.runner_spec import RunnerSpec
from slice_ros.engine.runners.torch.linear import DTYPES
from slice_ros.errors import ModelError
import tiny
import torch

pytestmark = [pytest.mark.usefixtures('quick_checks'), pytest.mark.gpu(needed=False)]


def live(engine):
    """Serve requests with chunks, evictions and shared prefixes; return these and how it went."""
    chance, log = random.Random(4), []
    left = [[5] * 40 + [n] * chance.randrange(20, 48) for n in range(7)]
    requests, live = [], []
    while left or live:
        if left and len(live) < 4:
            live.append(engine.open(left.pop(), 6, Sampling()))
            requests.append(live[-1])
        if chance.random() < 0.4:
            engine.evict(chance.choice(live))
        log += [engine.adopt(s) for s in live]
        work = [(s, min(s.pending, chance.choice((20, 64)))) for s in live]
        while True:
            try:
                engine.step(work)
                break
            except MemoryError:
                engine.evict(work.pop()[0])
                log.append('full')
        for s in live:
            if s.finish_reason:
                engine.close(s)
        live = [s for s in live if not s.finish_reason]
    return [s.tokens for s in requests], log


def test_a_gpu_with_few_pages_serves_what_the_plain_pass_serves(tmp_path, monkeypatch):
    """Chunks and rows together, prefixes shared and adopted again, pages running out."""
    tiny.save(tmp_path, tiny.llama(num_hidden_layers=1))
    page = 2 * 2 * 16 * 32 * 4
    weights = Tensors(tmp_path).nbytes
    config = EngineConfig(str(tmp_path), DEVICE.type, 'fp32', max_context=96, slots=4,
                          max_batch=2, memory_fraction=1.0)
    use_kernels(monkeypatch, 'torch')
    engines = []
    for free in (100, 9):
        monkeypatch.setattr(memory, '_available_memory', lambda: weights + free * page)
        engines.append(load_engine(replace(config, device='cpu')))
    monkeypatch.setattr(memory, '_free_on_gpu', lambda device: 9 * page)
    monkeypatch.setattr(choose, '_flat_batch', torch_paths.on_gpu)
    engines.append(load_engine(config))
    assert all('torch attention' in e.info.kernels for e in engines[:2])
    assert isinstance(engines[-1]._runner, GraphRunner)
    assert [e.info.kv_bytes for e in engines] == [12 * page, 9 * page, 9 * page]
    (texts, _), (few, log), (recorded, same) = map(live, engines)
    assert few == recorded == texts
    assert log == same
    assert 'full' in log and sum(n >= 40 for n in log if n != 'full') > 3


def test_a_small_gpu_keeps_its_slots_and_shares_fewer_pages(monkeypatch, tmp_path):
    config, cuda = EngineConfig(slots=32, memory_fraction=0.5), 'cuda'
    for free, pages in ((8000, 320), (1000, 50)):  # 10 pages of 10 bytes hold a full context
        monkeypatch.setattr(memory, '_free_on_gpu', lambda device: free)
        assert memory.kv_pages(tmp_path, 1 << 40, cuda, 10, 320, config) == pages
    monkeypatch.setattr(memory, '_free_on_gpu', lambda device: 800)
    with pytest.raises(ModelError, match='shorter max_context'):
        memory.kv_pages(tmp_path, 1 << 40, cuda, 10, 320, config)


@pytest.mark.parametrize('reason, warned', [
    ('The NVIDIA driver on your system is too old (found version 11040)', True),
    ('Found no NVIDIA driver on your system. Please check', False),
    ('No CUDA GPUs are available', False)])
def test_a_driver_that_torch_cannot_use_is_named(reason, warned, monkeypatch, caplog):
    def refuse():
        raise RuntimeError(reason)
    monkeypatch.setattr(choose, '_has_driver', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'init', refuse)
    monkeypatch.setattr(torch.version, 'cuda', '12.8')
    assert choose.choose_device('cpu') == choose.choose_device('auto') == 'cpu'
    assert [record.levelname for record in caplog.records] == ['WARNING'] * warned
    assert not warned or reason in caplog.text
    with pytest.raises(ModelError, match=re.escape(reason)):
        choose.choose_device('cuda')


def test_loading_for_a_gpu_puts_it_all_together(tiny_directory, monkeypatch):
    """With a CPU in the place of the GPU, in every precision that it has."""
    model_config = hf_directory.read_config(tiny_directory)
    integers = DTYPES[sixteen_bits(DEVICE)]
    for weights, dtype in (('fp32', torch.float32), ('int8', integers), ('int4', integers)):
        table = page_table(4, 64)
        runner = torch_paths.on_gpu(
            RunnerSpec(path=tiny_directory, model=model_config, made=describe(model_config),
                       tensors=Tensors(tiny_directory), weights=weights, device=DEVICE,
                       max_context=64, table=table, config=EngineConfig(slots=4, max_batch=2)),
            lambda share: None)
        assert isinstance(runner, GraphRunner)
        assert runner.cache.table is table and table.shape == (4, 2)
        assert runner.info.pages == 8 and runner.cache.data.dtype == dtype
        assert runner.info.kv_bytes == runner.cache.data.nbytes * 8 // 9


@pytest.mark.gpu
def test_the_engine_on_a_gpu_says_what_it_says_on_a_cpu(tiny_directory):
    """Greedy, in float32, requests coming and going."""
    texts = []
    for device in ('cuda', 'cpu'):
        engine = load_engine(EngineConfig(str(tiny_directory), device, 'fp32', max_context=128,
                                          slots=4, max_batch=4))
        assert device == 'cpu' or 'CUDA graphs' in engine.info.kernels
        live = [engine.open(engine.encode(f'request {n}'), 8 + 8 * n, Sampling())
                for n in range(4)]
        while any(not s.finish_reason for s in live):
            engine.step([(s, s.pending) for s in live if not s.finish_reason])
        texts.append([s.tokens for s in live])
    assert texts[0] == texts[1]


@pytest.mark.gpu
def test_an_engine_that_is_dropped_gives_its_memory_back(tiny_directory):
    free = []
    for _ in range(2):
        load_engine(EngineConfig(str(tiny_directory), 'cuda', slots=1024, max_context=256))
        gc.collect()
        torch.cuda.empty_cache()
        free.append(torch.cuda.mem_get_info()[0])
    assert free[1] > free[0] - (64 << 20)
