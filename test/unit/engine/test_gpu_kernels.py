# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a GPU runs, piece by piece: launched with shapes alone, on pages in any order."""

import random

from gpu_runners import build, CONTEXT, DEVICE, PAGES, runners
import pytest
from slice_ros.engine import Sampling
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import page_table, PAGE_TOKENS
from slice_ros.engine.models.families import describe
from slice_ros.engine.runners.cuda import graph_runner, kernels as gpu_kernels
from slice_ros.engine.runners.cuda.graph_runner import GraphRunner
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.runners.torch.attention import TorchAttention
from slice_ros.engine.runners.torch.linear import make_embedding, make_linear
from slice_ros.engine.text.device_sampling import choose_at_once
from slice_ros.engine.text.sampling import Sampler
import tiny
import torch
from torch.nn import functional as F

pytestmark = [pytest.mark.usefixtures('quick_checks'), pytest.mark.gpu(needed=False)]

KERNELS = ('_rope_and_store', '_attend_split', '_join_splits', '_add_and_norm', '_silu_and_mul')


def shapes_only(monkeypatch):
    """Have kernels note what Triton would compile them for instead of running; return these."""
    compiled = set()

    def launched(name):
        def launch(*given, **constants):
            # Not `v.device == DEVICE`: cuda:0 is not equal to cuda.
            kind = [v.data_ptr() % 16 == 0
                    if isinstance(v, torch.Tensor) and v.device.type == DEVICE.type
                    else (v == 1, v % 16 == 0, v < 1 << 31) if isinstance(v, int) else None
                    for v in given]
            compiled.add((name, *kind, *sorted(constants.items())))
        return type('Kernel', (), {
            '__getitem__': lambda self, grid: launch})()
    for name in KERNELS:
        monkeypatch.setattr(gpu_kernels, name, launched(name))
    monkeypatch.setattr(graph_runner, '_compare', lambda *given: None)
    return compiled


def test_nothing_is_compiled_once_the_model_is_loaded(monkeypatch):
    """Triton compiles anew for other alignments, for 1, and for multiples of 16: for a second."""
    compiled = shapes_only(monkeypatch)
    # Sizes that are no multiples of anything.
    _, recorded = runners(tiny.llama(num_hidden_layers=2, num_attention_heads=9, head_dim=20,
                                     num_key_value_heads=3, hidden_size=72),
                          max_batch=7, slots=16)
    loaded = set(compiled)
    assert {name for name, *_ in loaded} == set(KERNELS)
    chance = random.Random(1)
    for _ in range(60):
        sizes = [chance.choice((1, 1, 2, 3, 17)) for _ in range(chance.randrange(1, 12))]
        recorded.forward([Segment(slot, chance.randrange(50), [1] * size, chance.random() < .7)
                          for slot, size in enumerate(sizes)])
        recorded.greedy([Segment(slot, 3, [1], True) for slot in range(chance.randrange(1, 12))])()
    assert compiled == loaded


def test_nothing_in_a_step_waits_for_the_device(monkeypatch):
    """Tensors without data, as a device has them while it has not come so far: reading raises."""
    shapes_only(monkeypatch)
    monkeypatch.setattr(GraphRunner, '_check', lambda self: None)
    meta = torch.device('meta')
    weights = build(tiny.qwen2(), 'bf16', meta, make_linear=make_linear,
                    make_embedding=make_embedding)
    cache = KvCache(3, page_table(5, CONTEXT), 5 * PAGES, 2, weights.made.head_dim,
                    torch.bfloat16, meta)
    runner = GraphRunner(weights, cache, 4)
    rows = [Segment(slot, 9, [1], True) for slot in range(3)]
    chunks = [Segment(3, 0, [1, 2], False), Segment(4, 7, [1, 2], True)]
    for segments, wanted in ((rows, 3), (rows[1:] + chunks, 3), (chunks[:1] + rows, 3),
                             (rows + chunks[1:], 4), (chunks[:1], 0), (chunks, 1)):
        found = runner.forward(segments)
        assert (found.device, len(found)) == (meta, wanted)
    chosen = [choose_at_once(runner.forward(rows), [Sampler(Sampling(heat, seed=1), [1])] * 3, {})
              for heat in (0.0, 0.7)]
    for arrived in (runner.greedy(rows), runner.greedy(rows[1:] + chunks), *chosen):
        with pytest.raises(NotImplementedError):
            arrived()  # does read


def test_attention_does_not_depend_on_which_pages_hold_the_keys():
    """To the bit, in the recorded step's kernels and in the plain pass."""
    torch.manual_seed(1)
    lengths, dim = (3, 70, 200), 24
    caches = [KvCache(1, page_table(3, CONTEXT), 3 * PAGES, 2, dim, torch.float32, DEVICE)
              for _ in range(2)]
    for number, cache in enumerate(caches):
        cache.table[:] = torch.randperm(3 * PAGES).view(3, PAGES)
        cache.data.fill_(float('nan'))  # pages of no slot
    queries = torch.randn(3, 4, dim, device=DEVICE)
    made = describe(tiny.llama(head_dim=dim, num_hidden_layers=1))
    cached = [torch.randn(length, 4, dim, device=DEVICE) for length in lengths]
    results, wanted = [], []
    for cache in caches:
        for slot, kv in enumerate(cached):
            places = cache.places(slot, torch.arange(len(kv)).numpy())
            cache.write(0, torch.from_numpy(places).to(DEVICE), kv)
        pages = torch.from_numpy(cache.table).to(DEVICE)
        last = torch.tensor(lengths, dtype=torch.int32, device=DEVICE) - 1
        results.append([
            gpu_kernels.attend(queries, cache.data[0], last, pages, 4),
            TorchAttention(cache, made).prepare([
                Segment(slot, length - 1, [1], True) for slot, length in enumerate(lengths)],
                pages)(0, queries)])
    for kernel, other in zip(*results):
        assert torch.equal(kernel, other)
    for query, kv in zip(queries, cached):
        keys, values = (part.repeat_interleave(2, 1).transpose(0, 1) for part in kv.split(2, 1))
        wanted.append(F.scaled_dot_product_attention(query[:, None], keys, values).view(-1))
    for found in results[0]:
        torch.testing.assert_close(found, torch.stack(wanted), atol=1e-5, rtol=1e-5)


def test_a_tile_of_keys_lies_in_one_page():
    for wide in (16, 32, 64, 128, 256, 512):
        for dtype in (torch.float32, torch.bfloat16):
            keys = gpu_kernels.tile_keys(wide, dtype)
            assert keys >= 16 and PAGE_TOKENS % keys == 0
