"""Decode steps as a GPU runs them: on it where there is one, else in Triton's interpreter."""

import os
from pathlib import Path
import subprocess
import sys

import pytest
from slice_ros.engine import EngineConfig, gpu_kernels, graph_runner, llama, load_engine, Sampling
from slice_ros.engine.graph_runner import gpu_runner, GraphRunner
from slice_ros.engine.kv_cache import KvCache
from slice_ros.engine.runner import FlatBatchRunner, Segment
import tiny
import torch

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
CONTEXT = 256
SHAPES = (tiny.llama, tiny.llama3_rope, tiny.qwen2, tiny.mistral, tiny.all_biases)
ROOT = Path(__file__).resolve().parents[3]

# Compiles each kernel for the GPU of a Jetson Orin (8.7) and an H100 (9.0), which needs neither.
COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from slice_ros.engine import gpu_kernels as k
rows = {'slots': '*i64', 'positions': '*i64'}
for kernel, pointers, numbers, constants in (
        (k._rope_and_store, 'qkv cos sin slots positions queries cache',
         'heads kv_heads context', {'DIM': 64, 'HALF': 32}),
        (k._attend_split, 'queries cache slots positions part most total',
         'kv_heads context scale', {'GROUP': 7, 'ROWS': 16, 'DIM': 64, 'WIDE': 64, 'KEYS': 64,
                                    'SPLITS': 8}),
        (k._join_splits, 'part most total out', '', {'DIM': 128, 'WIDE': 128, 'SPLITS': 32}),
        (k._add_and_norm, 'h delta norm out', 'hidden eps', {'WIDE': 4096}),
        (k._silu_and_mul, 'gate_up out', 'intermediate', {'COLUMNS': 1024})):
    for half in ('bf16', 'fp16'):
        types = {name: rows.get(name, '*fp32' if name in ('part', 'most', 'total') else '*' + half)
                 for name in pointers.split()}
        types |= {name: 'fp32' if name in ('scale', 'eps') else 'i32' for name in numbers.split()}
        types |= {name: 'constexpr' for name in constants}
        for capability in (87, 90):
            made = compile(ASTSource(kernel, types, constexprs=constants),
                           target=GPUTarget('cuda', capability, 32))
            assert len(made.asm['cubin']) > 1000
            print('compiled')
"""


def runners(config, slots=5, max_batch=5):
    """Return the plain and the recorded pass of a random model of that shape, in float32."""
    weights = llama.build(config, dict(tiny.model(config).state_dict()), 'fp32', DEVICE, CONTEXT,
                          lambda share: None)
    caches = [KvCache(config.num_hidden_layers, slots + 1, weights.kv_heads, CONTEXT,
                      weights.head_dim, torch.float32, DEVICE) for _ in range(2)]
    return FlatBatchRunner(weights, caches[0]), GraphRunner(weights, caches[1], max_batch)


@pytest.mark.parametrize('shape', SHAPES, ids=lambda shape: shape.__name__)
def test_a_recorded_step_gives_what_the_plain_one_gives(shape, monkeypatch):
    """Any subset of rows, at any context, keys and values of earlier recorded steps included."""
    monkeypatch.setattr(graph_runner, '_PROGRAMS', 12)  # fewer splits: it is slow
    plain, recorded = runners(shape())
    lengths = (3, 70, 200)
    for slot, length in enumerate(lengths):
        ids = [(slot + 11 * i) % 256 for i in range(length)]
        for runner in (plain, recorded):
            runner.forward([Segment(slot, 0, ids, True)])
    for step in range(2):
        rows = [Segment(slot, length + step, [7 * slot + step], True)
                for slot, length in enumerate(lengths)]
        for some in (rows, rows[1:2], rows[::-2]):
            wanted = plain.forward(some)
            torch.testing.assert_close(recorded.forward(some), wanted, atol=2e-4, rtol=2e-4)


def test_a_step_touches_nobody_elses_keys():
    """The rows that pad a step write to the slot beyond the last, and nowhere else."""
    _, recorded = runners(tiny.llama())
    before = recorded.cache.data.normal_().clone()
    recorded.forward([Segment(slot, 9, [1], True) for slot in (0, 2, 3)])
    changed = (recorded.cache.data != before).any(-1).nonzero()
    assert {(int(slot), int(position)) for _, slot, _, position in changed} == {
        (0, 9), (2, 9), (3, 9), (5, 0)}


def test_kernels_that_compute_wrongly_are_found_when_the_model_loads(monkeypatch):
    attend = gpu_kernels.attend
    monkeypatch.setattr(gpu_kernels, 'attend', lambda *given: attend(*given).roll(1, -1))
    with pytest.raises(ValueError, match='other logits'):
        runners(tiny.llama())


def test_without_recording_the_plain_pass_serves_and_says_so(monkeypatch, caplog):
    plain, _ = runners(tiny.llama())
    monkeypatch.setattr(gpu_kernels, 'attend', None)
    found = gpu_runner(plain.weights, 3, 4, 2, CONTEXT, torch.float32, 4)
    assert type(found) is FlatBatchRunner
    assert 'not recorded' in caplog.text


def test_every_kernel_compiles_for_a_robots_gpu_and_a_servers():
    env = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    done = subprocess.run([sys.executable, '-c', COMPILE], cwd=ROOT, env=env, capture_output=True,
                          text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('compiled') == 20


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
