# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a GPU runs, piece by piece: compiled for several, launched with shapes alone, in int8."""

import os
from pathlib import Path
import random
import subprocess
import sys

from gpu_runners import build, CONTEXT, DEVICE, PAGES, runners
import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import page_table, PAGE_TOKENS
from slice_ros.engine.models.families import describe
from slice_ros.engine.runners.cuda import (
    graph_runner, int8_linear as gpu_int8, kernels as gpu_kernels)
from slice_ros.engine.runners.cuda.graph_runner import GraphRunner
from slice_ros.engine.runners.cuda.int8_linear import int8_linear
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.runners.torch.attention import TorchAttention
from slice_ros.engine.runners.torch.linear import make_linear
from slice_ros.engine.text.device_sampling import choose_at_once
from slice_ros.engine.text.sampling import Sampler
from slice_ros.errors import ModelError
import tiny
import torch
from torch.nn import functional as F

pytestmark = [pytest.mark.usefixtures('quick_checks'), pytest.mark.gpu(needed=False)]

KERNELS = ('_rope_and_store', '_attend_split', '_join_splits', '_add_and_norm', '_silu_and_mul')
ROOT = Path(__file__).resolve().parents[3]

# Compiles kernels for the GPUs of a Jetson Orin (8.7), an H100 (9.0) and an RTX 50 (12.0), which
# needs none of them, and says how much shared memory a program has.
COMPILE = """
from triton import compile, next_power_of_2
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import torch
from slice_ros.engine.runners.cuda import int8_linear as gpu_int8
from slice_ros.engine.runners.cuda import kernels as k
rows = dict.fromkeys(('positions', 'places', 'pages'), '*i32')
def attention(dim, group):
    wide = max(next_power_of_2(dim), 16)
    return (k._attend_split, 'queries cache positions pages part most total',
            'kv_heads room columns scale', {
                'GROUP': group, 'ROWS': max(next_power_of_2(group), 16), 'DIM': dim, 'WIDE': wide,
                'PAGE': 32, 'KEYS': k.tile_keys(wide, torch.bfloat16), 'SPLITS': 8})
multiply = (gpu_int8._multiply, 'x weight scale bias out', 'rows columns inner',
            {'BIAS': True, 'ROWS': 16, 'COLUMNS': 16, 'INNER': 512})
others = [
    (k._rope_and_store, 'qkv cos sin positions places queries cache',
     'heads kv_heads room', {'DIM': 64, 'HALF': 32}),
    (k._join_splits, 'part most total out', '', {'DIM': 128, 'WIDE': 128, 'SPLITS': 32}),
    (k._add_and_norm, 'h delta norm out', 'hidden eps', {'WIDE': 4096}),
    (k._silu_and_mul, 'gate_up out', 'intermediate', {'COLUMNS': 1024})]
wide = ('part', 'most', 'total', 'cos', 'sin', 'h', 'norm', 'scale', 'bias')
rows['weight'] = '*i8'
for kernels, half, capability in (
        ([attention(64, 7), attention(128, 4), attention(256, 16), *others], 'bf16', 87),
        ([attention(96, 1), multiply], 'fp16', 87), ([attention(64, 3), *others], 'fp16', 90),
        ([attention(128, 8)], 'bf16', 120)):
    for kernel, pointers, numbers, constants in kernels:
        types = {name: rows.get(name, '*fp32' if name in wide else '*' + half)
                 for name in pointers.split()}
        types |= {name: 'fp32' if name in ('scale', 'eps') else 'i32'
                  for name in numbers.split()}
        types |= {name: 'constexpr' for name in constants}
        made = compile(ASTSource(kernel, types, constexprs=constants),
                       target=GPUTarget('cuda', capability, 32),
                       options={'num_stages': k._STAGES if kernel is k._attend_split else 3})
        assert len(made.asm['cubin']) > 1000
        print(made.metadata.shared)
"""


def test_every_kernel_compiles_for_a_robots_gpu_and_a_servers():
    env = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    done = subprocess.run([sys.executable, '-c', COMPILE], cwd=ROOT, env=env, capture_output=True,
                          text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    shared = [int(line) for line in done.stdout.split()]
    assert len(shared) == 15
    assert max(shared) <= 99 * 1024  # of an RTX; others have more


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
    weights = build(tiny.qwen2(), 'bf16', meta, make_linear=make_linear)
    cache = KvCache(3, page_table(5, CONTEXT), 5 * PAGES, 2, weights.made.head_dim,
                    torch.bfloat16, meta)
    runner = GraphRunner(weights, cache, 4)
    rows = [Segment(slot, 9, [1], True) for slot in range(3)]
    chunks = [Segment(3, 0, [1, 2], False), Segment(4, 7, [1, 2], True)]
    for segments, wanted in ((rows, 3), (rows[1:] + chunks, 3), (chunks[:1], 0), (chunks, 1)):
        found = runner.forward(segments)
        assert (found.device, len(found)) == (meta, wanted)
    chosen = [choose_at_once(runner.forward(rows), [Sampler(Sampling(heat, seed=1), [1])] * 3, {})
              for heat in (0.0, 0.7)]
    for arrived in (runner.greedy(rows), runner.greedy(rows[1:] + chunks), *chosen):
        with pytest.raises(NotImplementedError):
            arrived()  # does read


def test_int8_weights_halve_the_bytes_and_are_near_what_they_round_to():
    config = tiny.llama3_rope()
    tensors = dict(tiny.model(config).state_dict())
    rounded = {name: rounded_rows(t) if t.dim() > 1 and 'embed' not in name else t
               for name, t in tensors.items()}
    exact, _ = runners(config, max_batch=1, tensors=rounded)
    plain, recorded = runners(config, 'int8', max_batch=2, tensors=tensors)
    assert recorded.info.streamed_bytes < 0.3 * exact.info.streamed_bytes
    assert 'int8' in recorded.info.kernels
    for segments in ([Segment(0, 0, [5, 6] * 34, True), Segment(1, 0, [3, 4], True)],
                     [Segment(0, 68, [7], True), Segment(1, 2, [8], True)]):
        wanted = exact.forward(segments)
        for runner in (plain, recorded):
            assert (runner.forward(segments) - wanted).norm() < 0.01 * wanted.norm()


def rounded_rows(weight):
    scale = weight.abs().amax(1, True) / 127
    return (weight / scale).round() * scale


@pytest.mark.parametrize('rows', (1, 16, 19, 64, 65))
def test_an_int8_linear_is_that_of_the_rounded_weights(rows):
    torch.manual_seed(rows)
    weight, bias = torch.randn(50, 530), torch.randn(50)
    for b in (None, bias):
        linear, x = int8_linear(weight, b, DEVICE), torch.randn(rows, 530)
        wanted = F.linear(x.half().float(), rounded_rows(weight), b)
        found = linear(x.to(DEVICE)).cpu()
        assert found.dtype == torch.float16
        assert (found - wanted).norm() < 0.002 * wanted.norm()


def test_a_gpu_without_int8_is_one_sentence(monkeypatch):
    monkeypatch.setattr(gpu_int8, '_TOLERANCE', -1)
    with pytest.raises(ModelError, match="int8.*other numbers.*'auto'"):
        runners(tiny.llama(), 'int8')


@pytest.mark.gpu
def test_int8_on_a_gpu_writes_text_like_fp32(tiny_directory):
    logits = []
    for weights in ('int8', 'fp32'):
        engine = load_engine(EngineConfig(str(tiny_directory), 'cuda', weights, max_context=128))
        assert 'CUDA graphs' in engine.info.kernels
        engine._slots.reserve([(engine._slots.take(), 3)])
        logits.append(engine._runner.forward([Segment(0, 0, [1, 2, 3], True)]).clone())
    assert (logits[0] - logits[1]).norm() < 0.1 * logits[1].norm()


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
