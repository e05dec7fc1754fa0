"""Steps as a GPU runs them: on it where there is one, else in Triton's interpreter."""

from concurrent.futures import ThreadPoolExecutor
import gc
import os
from pathlib import Path
import random
import subprocess
import sys

import pytest
from slice_ros.engine import (
    EngineConfig, gpu_int8, gpu_kernels, graph_runner, hf_directory, llama, load_engine, loading,
    memory, Sampling)
from slice_ros.engine.gpu_int8 import int8_linear
from slice_ros.engine.graph_runner import gpu_runner, GraphRunner
from slice_ros.engine.kv_cache import KvCache
from slice_ros.engine.runner import FlatBatchRunner, Segment
from slice_ros.engine.tensor_files import Tensors
from slice_ros.errors import ModelError
import tiny
import torch
from torch.nn import functional as F

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
CONTEXT = 256
SHAPES = (tiny.llama, tiny.llama3_rope, tiny.qwen2, tiny.mistral, tiny.all_biases)
KERNELS = ('_rope_and_store', '_attend_split', '_join_splits', '_add_and_norm', '_silu_and_mul')
ROOT = Path(__file__).resolve().parents[3]

# Compiles kernels for the GPUs of a Jetson Orin (8.7), an H100 (9.0) and an RTX 50 (12.0), which
# needs none of them, and says how much shared memory a program has.
COMPILE = """
from triton import compile, next_power_of_2
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import torch
from slice_ros.engine import gpu_int8, gpu_kernels as k
rows = {'slots': '*i64', 'positions': '*i64'}
def attention(dim, group):
    wide = max(next_power_of_2(dim), 16)
    return (k._attend_split, 'queries cache slots positions part most total',
            'kv_heads context scale', {
                'GROUP': group, 'ROWS': max(next_power_of_2(group), 16), 'DIM': dim, 'WIDE': wide,
                'KEYS': k.tile_keys(wide, torch.bfloat16), 'SPLITS': 8})
multiply = (gpu_int8._multiply, 'x weight scale bias out', 'rows columns inner',
            {'BIAS': True, 'ROWS': 16, 'COLUMNS': 16, 'INNER': 512})
others = [
    (k._rope_and_store, 'qkv cos sin slots positions queries cache',
     'heads kv_heads context', {'DIM': 64, 'HALF': 32}),
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
                       target=GPUTarget('cuda', capability, 32))
        assert len(made.asm['cubin']) > 1000
        print(made.metadata.shared)
"""


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """Check a model behind fewer tokens, and split attention, where that is slow or for a GPU."""
    if DEVICE.type == 'cpu':
        monkeypatch.setattr(graph_runner, '_PROGRAMS', 12)
        monkeypatch.setattr(graph_runner, '_CHECKED', 4)


def runners(config, weights='fp32', max_batch=4, slots=4, tensors=None):
    """Return the plain and the recorded pass of a random model of that shape."""
    tensors = tensors or dict(tiny.model(config).state_dict())
    weights = llama.build(config, tensors, weights, DEVICE, CONTEXT, lambda share: None)
    caches = [KvCache(config.num_hidden_layers, slots + 1, weights.kv_heads, CONTEXT,
                      weights.head_dim, weights.embedding.dtype, DEVICE) for _ in range(2)]
    return FlatBatchRunner(weights, caches[0]), GraphRunner(weights, caches[1], max_batch)


def filled(config, lengths, **options):
    """Return `runners` whose slots hold the same tokens, of these lengths."""
    plain, recorded = runners(config, **options)
    plain.forward([Segment(slot, 0, [(slot + 11 * i) % 256 for i in range(length)], False)
                   for slot, length in enumerate(lengths) if length])
    recorded.cache.data.copy_(plain.cache.data)
    return plain, recorded


def near(found, wanted):
    # A GPU's libraries add in another order for every size of a product.
    limit = 2e-4 if DEVICE.type == 'cpu' else 2e-3
    torch.testing.assert_close(found, wanted, atol=limit, rtol=limit)


@pytest.mark.parametrize('shape', SHAPES, ids=lambda shape: shape.__name__)
def test_a_recorded_step_gives_what_the_plain_one_gives(shape):
    """Any subset of rows, at any context, keys and values of earlier recorded steps included."""
    lengths = (3, 70, 200)
    plain, recorded = filled(shape(), lengths, max_batch=3)
    for step in range(2):
        rows = [Segment(slot, length + step, [7 * slot + step], True)
                for slot, length in enumerate(lengths)]
        for some in (rows, rows[::-2]):
            near(recorded.forward(some), plain.forward(some))
    assert recorded.greedy(rows[1:]) == plain.greedy(rows[1:])


@pytest.mark.parametrize('shape', (tiny.qwen2, tiny.mistral), ids=lambda shape: shape.__name__)
def test_prefill_chunks_and_rows_share_a_step_in_any_order(shape):
    plain, recorded = filled(shape(), (90, 20, 0, 5))
    steps = [
        [Segment(1, 20, [1, 2, 3], False), Segment(0, 90, [4], True),
         Segment(2, 0, [5] * 6, True)],
        [Segment(3, 5, [9], False), Segment(2, 6, [6, 7], True), Segment(1, 23, [8], True)],
        [Segment(3, 6, [9], False)],
        [Segment(n, 40 + n, [n], True) for n in range(4)] + [Segment(0, 91, [3, 3], True)]]
    for segments in steps:
        near(recorded.forward(segments), plain.forward(segments))
    near(recorded.cache.data[:, :4, :, :20], plain.cache.data[:, :4, :, :20])


def test_a_step_touches_nobody_elses_keys():
    """The rows that pad a step write to the slot beyond the last, and nowhere else."""
    _, recorded = runners(tiny.llama(num_hidden_layers=1))
    before = recorded.cache.data.normal_().clone()
    recorded.forward([Segment(slot, 9, [1], True) for slot in (0, 2, 3)])
    changed = (recorded.cache.data != before).any(-1).nonzero()
    assert {(int(slot), int(position)) for _, slot, _, position in changed} == {
        (0, 9), (2, 9), (3, 9), (4, 0)}


@pytest.mark.parametrize('kernel', ('attend', 'silu_and_mul'))
def test_kernels_that_compute_wrongly_are_found_when_the_model_loads(kernel, monkeypatch):
    right = getattr(gpu_kernels, kernel)
    monkeypatch.setattr(gpu_kernels, kernel, lambda *given: right(*given).roll(1, -1))
    with pytest.raises(ValueError, match='other logits'):
        runners(tiny.llama(num_hidden_layers=2), max_batch=1)


def test_without_recording_the_plain_pass_serves_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(gpu_kernels, 'attend', None)
    weights = llama.build(tiny.llama(), dict(tiny.model(tiny.llama()).state_dict()), 'fp32',
                          DEVICE, CONTEXT, lambda share: None)
    found = gpu_runner(weights, 3, 4, 2, CONTEXT, torch.float32, 4)
    assert type(found) is FlatBatchRunner
    assert 'not recorded' in caplog.text


def shapes_only(monkeypatch):
    """Have kernels note what Triton would compile them for instead of running; return these."""
    compiled = set()

    def launched(name):
        def launch(*given, **constants):
            kind = [v.data_ptr() % 16 == 0 if isinstance(v, torch.Tensor) and v.device == DEVICE
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
        recorded.greedy([Segment(slot, 3, [1], True) for slot in range(chance.randrange(1, 12))])
    assert compiled == loaded


def test_a_step_that_samples_nothing_takes_as_long_as_the_gpu(monkeypatch):
    """Else the scheduler would learn that prefill chunks are quick, and what follows slow."""
    both = runners(tiny.llama(), max_batch=1)
    waits = []
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: type(
        'Stream', (), {'synchronize': lambda self: waits.append(device)})())
    for runner in both:
        calls = []
        monkeypatch.setattr(runner, '_waited', lambda x: calls.append(x) or x.new_empty(0, 0))
        assert runner.forward([Segment(0, 0, [1, 2], False)]).numel() == 0
        assert len(calls) == 1
        runner.forward([Segment(0, 2, [1, 2], True)])
        assert len(calls) == 1
        runner.device = torch.device('cuda')
        assert type(runner)._waited(runner, torch.empty(2, 3)).numel() == 0
    assert waits == [torch.device('cuda')] * 2


def test_nothing_in_a_step_waits_for_the_device(monkeypatch):
    """Tensors without data, as a device has them while it has not come so far: reading raises."""
    shapes_only(monkeypatch)
    monkeypatch.setattr(GraphRunner, '_check', lambda self: None)
    meta = torch.device('meta')
    weights = llama.build(tiny.qwen2(), dict(tiny.model(tiny.qwen2()).state_dict()), 'bf16', meta,
                          CONTEXT, lambda share: None)
    cache = KvCache(3, 5, 2, CONTEXT, weights.head_dim, torch.bfloat16, meta)
    runner = GraphRunner(weights, cache, 4)
    rows = [Segment(slot, 9, [1], True) for slot in range(3)]
    chunks = [Segment(3, 0, [1, 2], False), Segment(4, 7, [1, 2], True)]
    for segments, wanted in ((rows, 3), (rows[1:] + chunks, 3), (chunks[:1], 0), (chunks, 1)):
        found = runner.forward(segments)
        assert (found.device, len(found)) == (meta, wanted)
    with pytest.raises(NotImplementedError):
        runner.greedy(rows)  # does read


def test_every_kernel_compiles_for_a_robots_gpu_and_a_servers():
    env = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    done = subprocess.run([sys.executable, '-c', COMPILE], cwd=ROOT, env=env, capture_output=True,
                          text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    shared = [int(line) for line in done.stdout.split()]
    assert len(shared) == 15
    assert max(shared) <= 99 * 1024  # of an RTX; others have more


@pytest.mark.parametrize('large', (False, True))
def test_steps_in_16_bits_stay_near_those_in_32(large, monkeypatch):
    """Weights and cache as a GPU has them; residuals may grow too large for 16 bits."""
    def linear(weight, bias, weights, device):
        weight = weight.to(device, torch.float16)
        bias = None if bias is None else bias.to(device, torch.float16)
        return lambda x: F.linear(x.half(), weight, bias)
    config = tiny.all_biases()
    tensors = dict(tiny.model(config).state_dict())
    for layer in range(3):
        tensors[f'model.layers.{layer}.mlp.down_proj.bias'].sign_().mul_(3e4 if large else .3)
    wanted, _ = runners(config, max_batch=1, tensors=tensors)
    monkeypatch.setattr(llama, 'make_linear', linear)
    plain, recorded = runners(config, 'fp16', max_batch=1, tensors=tensors)
    for segments in ([Segment(0, 0, [1, 2, 3, 7], True)], [Segment(0, 4, [7], True)]):
        exact = wanted.forward(segments)
        for runner in (plain, recorded):
            assert (runner.forward(segments) - exact).norm() < 0.03 * exact.norm()


def test_int8_weights_halve_the_bytes_and_are_near_what_they_round_to():
    config = tiny.llama3_rope()
    tensors = dict(tiny.model(config).state_dict())
    rounded = {name: rounded_rows(t) if t.dim() > 1 and 'embed' not in name else t
               for name, t in tensors.items()}
    exact, _ = runners(config, max_batch=1, tensors=rounded)
    plain, recorded = runners(config, 'int8', max_batch=2, tensors=tensors)
    assert recorded.streamed_bytes < 0.3 * exact.streamed_bytes
    assert 'int8' in recorded.kernels
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


def test_a_gpu_without_int8_is_told_of_in_a_sentence(monkeypatch):
    monkeypatch.setattr(gpu_int8, '_TOLERANCE', -1)
    with pytest.raises(ModelError, match="int8.*other numbers.*'auto'"):
        runners(tiny.llama(), 'int8')


def test_a_head_that_is_tied_to_the_embedding_takes_no_memory_of_its_own():
    tied, own = (llama.build(config, dict(tiny.model(config).state_dict()), 'bf16', DEVICE,
                             CONTEXT, lambda share: None)
                 for config in (tiny.llama(), tiny.llama3_rope()))
    assert own.nbytes - tied.nbytes == own.embedding.nbytes
    assert own.streamed_bytes == tied.streamed_bytes == tied.nbytes
    tied.embedding.zero_()
    assert not tied.head(torch.ones(1, 64, device=DEVICE)).any()


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
@pytest.mark.parametrize('dim, heads, kv_heads', [(64, 14, 2), (128, 8, 2), (256, 4, 1)])
def test_16_bit_steps_agree_within_rounding_whatever_their_company(dim, heads, kv_heads):
    """Alone, together, beside a prefill chunk, and in the plain pass."""
    lengths = (3, 70, 200)
    plain, recorded = filled(
        tiny.llama(head_dim=dim, num_attention_heads=heads, num_key_value_heads=kv_heads,
                   hidden_size=heads * dim), lengths, weights='bf16')
    rows = [Segment(slot, length, [7 * slot], True) for slot, length in enumerate(lengths)]
    wanted = plain.forward(rows)
    alone = torch.cat([recorded.forward([row]).clone() for row in rows])
    beside = recorded.forward([Segment(3, 0, [1] * 40, False), *rows])
    for found in (alone, recorded.forward(rows), beside):
        assert ((found - wanted).norm(dim=-1) < 0.05 * wanted.norm(dim=-1)).all()


@pytest.mark.gpu
def test_a_step_without_logits_comes_back_when_it_is_done():
    for runner in runners(tiny.llama()):
        runner.forward([Segment(0, 0, [1] * 100, False)])
        assert torch.cuda.current_stream().query()


@pytest.mark.gpu
def test_int8_on_a_gpu_writes_text_like_fp32(tiny_directory):
    logits = []
    for weights in ('int8', 'fp32'):
        engine = load_engine(EngineConfig(str(tiny_directory), 'cuda', weights, max_context=128))
        assert 'CUDA graphs' in engine.info.kernels
        engine._slots.reserve([(engine._slots.take(), 3)])
        logits.append(engine._runner.forward([Segment(0, 0, [1, 2, 3], True)]).clone())
    assert (logits[0] - logits[1]).norm() < 0.1 * logits[1].norm()


@pytest.mark.gpu
def test_what_one_thread_recorded_another_replays():
    lengths = (3, 70, 200)
    rows = [Segment(slot, length, [1], True) for slot, length in enumerate(lengths)]
    with ThreadPoolExecutor(1) as loads, ThreadPoolExecutor(1) as serves:
        plain, recorded = loads.submit(filled, tiny.llama(), lengths).result()
        found = serves.submit(recorded.forward, rows).result()
        near(found, plain.forward(rows))


@pytest.mark.gpu
def test_an_engine_that_is_dropped_gives_its_memory_back(tiny_directory):
    free = []
    for _ in range(2):
        load_engine(EngineConfig(str(tiny_directory), 'cuda', slots=1024, max_context=256))
        gc.collect()
        torch.cuda.empty_cache()
        free.append(torch.cuda.mem_get_info()[0])
    assert free[1] > free[0] - (64 << 20)


def test_a_small_gpu_holds_fewer_requests_and_says_so(monkeypatch, caplog):
    config, cuda = EngineConfig(slots=32, memory_fraction=0.5), torch.device('cuda')
    monkeypatch.setattr(memory, '_free_on_gpu', lambda device: 8000)
    assert memory.gpu_slots(cuda, 10, 320, config) == 32  # 100 bytes a request
    assert not caplog.text
    monkeypatch.setattr(memory, '_free_on_gpu', lambda device: 1000)
    assert memory.gpu_slots(cuda, 10, 320, config) == 4   # and one that pads
    assert '4 requests of 320 tokens' in caplog.text
    monkeypatch.setattr(memory, '_free_on_gpu', lambda device: 300)
    with pytest.raises(ModelError, match='shorter max_context'):
        memory.gpu_slots(cuda, 10, 320, config)


def test_loading_for_a_gpu_puts_it_all_together(tiny_directory, monkeypatch):
    """With a CPU in the place of the GPU: as many slots as fit, in every precision it has."""
    monkeypatch.setattr(memory, '_free_on_gpu', lambda device: 4 << 20)
    model_config = hf_directory.read_config(tiny_directory)
    for weights, dtype in (('fp32', torch.float32), ('int8', torch.float16)):
        runner, pages = loading._on_gpu(
            tiny_directory, model_config, Tensors(tiny_directory), weights, DEVICE, 64,
            EngineConfig(slots=4, max_batch=2), lambda share: None, dtype,
            2 * 3 * 2 * 16 * dtype.itemsize * 32)
        assert isinstance(runner, GraphRunner)
        assert len(runner.table) == 4 and pages == 8 and runner.cache.data.shape[1] == 5
        assert runner.kv_bytes == runner.cache.data.nbytes * 4 // 5
