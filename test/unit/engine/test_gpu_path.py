# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Steps as a GPU runs them: on it where there is one, else in Triton's interpreter."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

from conftest import sampled
from gpu_runners import build, CONTEXT, DEVICE, filled, near, PAGES, runners
import pytest
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import page_table
from slice_ros.engine.models.architecture import within
from slice_ros.engine.runners.cuda import graph_runner, kernels as gpu_kernels
from slice_ros.engine.runners.cuda.failure import cuda_failure
from slice_ros.engine.runners.cuda.graph_runner import gpu_runner, GraphRunner
from slice_ros.engine.runners.fetch import fetch
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.runners.torch.linear import Linear
from slice_ros.engine.runners.torch.torch_runner import TorchRunner
import tiny
import torch
from torch.nn import functional as F

pytestmark = [pytest.mark.usefixtures('quick_checks'), pytest.mark.gpu(needed=False)]


def own_head_size():
    """Return a Mistral config whose attention sees all tokens of these tests."""
    return tiny.mistral(sliding_window=None)


SHAPES = (tiny.llama, tiny.llama3_rope, tiny.qwen2, own_head_size, tiny.all_biases)


@pytest.mark.parametrize('shape', sampled(SHAPES, (tiny.qwen2, own_head_size)),
                         ids=lambda shape: shape.__name__)
def test_a_recorded_step_gives_what_the_plain_one_gives(shape):
    """Any subset of rows, at any context, keys and values of earlier recorded steps included."""
    lengths = (3, 70, 200)
    plain, recorded = filled(shape(), lengths, max_batch=3)
    for step in range(2):
        rows = [Segment(slot, length + step, [7 * slot + step], True)
                for slot, length in enumerate(lengths)]
        for some in (rows, rows[::-2]):
            near(recorded.forward(some), plain.forward(some))
    assert recorded.greedy(rows[1:])() == plain.greedy(rows[1:])()


@pytest.mark.parametrize('shape', sampled((tiny.qwen2, own_head_size), (own_head_size,)),
                         ids=lambda shape: shape.__name__)
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
    for layer in range(3):
        for slot in range(4):
            for found, wanted in zip(*(r.cache.read(layer, torch.from_numpy(
                    r.cache.table[slot]).to(DEVICE), 6) for r in (recorded, plain))):
                near(found, wanted)


@pytest.mark.parametrize('shape', (tiny.qwen2,), ids=lambda shape: shape.__name__)
def test_a_short_chunk_beside_decodes_is_part_of_a_recorded_step(shape, monkeypatch):
    """At the start of a prompt and later, in any order, its logits wanted or not, alone too."""
    monkeypatch.setattr(graph_runner, '_CHUNKS', (8,))
    plain, recorded = filled(shape(), (90, 20, 0, 70))
    rows = [Segment(slot, length, [slot], True) for slot, length in enumerate((90, 20, 0, 70))
            if length]

    def not_recorded(segments):
        raise AssertionError('launched kernel by kernel')
    monkeypatch.setattr(recorded, '_launched', not_recorded)
    for start, (tokens, wants) in enumerate(((3, False), (8, True), (2, True), (5, False))):
        chunk = Segment(2, 6 * start, [7 * n for n in range(tokens)], wants)
        if start:
            plain.forward([chunk._replace(start=0, ids=[5] * 6 * start, wants_logits=False)])
            recorded.cache.data[:, :, recorded.cache.table[2]] = plain.cache.data[
                :, :, plain.cache.table[2]]
        segments = rows[:start] + [chunk] + rows[start:]
        near(recorded.forward(segments), plain.forward(segments))
        assert recorded.greedy(segments)() == plain.greedy(segments)()
    near(recorded.forward([chunk._replace(wants_logits=True)]),
         plain.forward([chunk._replace(wants_logits=True)]))
    for segments in (rows + [chunk, chunk._replace(slot=1, start=21)],
                     [chunk._replace(ids=[1] * 9)]):
        with pytest.raises(AssertionError, match='kernel by kernel'):
            recorded.forward(segments)


def test_a_step_touches_nobody_elses_keys():
    """The rows that pad a step write to the page beyond the last, and nowhere else."""
    _, recorded = runners(tiny.llama(num_hidden_layers=1))
    before = recorded.cache.data.normal_().clone()
    recorded.forward([Segment(slot, 9, [1], True) for slot in (0, 2, 3)])
    recorded.forward([Segment(2, 10, [1, 1, 1], True), Segment(3, 10, [1], True)])
    changed = (recorded.cache.data != before).any(-1).nonzero()
    assert {(int(page), int(row)) for *_, page, row in changed} == {
        *((int(recorded.cache.table[slot, 0]), row) for slot, row in (
            (0, 9), (2, 9), (2, 10), (2, 11), (2, 12), (3, 9), (3, 10))), (4 * PAGES, 0)}


@pytest.mark.parametrize('kernel', ('attend', 'attend_chunk', 'silu_and_mul'))
def test_kernels_that_compute_wrongly_are_found_when_the_model_loads(kernel, monkeypatch):
    right = getattr(gpu_kernels, kernel)
    monkeypatch.setattr(gpu_kernels, kernel, lambda *given: right(*given).roll(1, -1))
    with pytest.raises(ValueError, match='other logits'):
        runners(tiny.llama(num_hidden_layers=2), max_batch=1)


def test_what_the_kernels_do_not_compute_the_plain_pass_does(tmp_path, caplog):
    """A window that is wider than the context is none."""
    for window, kind in ((100, TorchRunner), (300, GraphRunner)):
        weights = build(tiny.mistral(sliding_window=window), 'fp32')
        weights = replace(weights, made=within(weights.made, CONTEXT))
        cache = KvCache(3, page_table(4, CONTEXT), 4 * PAGES, 2, weights.made.head_dim,
                        torch.float32, DEVICE)
        assert type(gpu_runner(weights, cache, 2)) is kind
    assert 'the GPU kernels have no sliding windows' in caplog.text


def test_without_recording_the_plain_pass_serves_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(gpu_kernels, 'attend', None)
    weights = build(tiny.llama(), 'fp32')
    cache = KvCache(3, page_table(4, CONTEXT), 4 * PAGES, 2, weights.made.head_dim,
                    torch.float32, DEVICE)
    found = gpu_runner(weights, cache, 4)
    assert type(found) is TorchRunner
    assert 'not recorded' in caplog.text


def fail_for_good(device):
    raise RuntimeError('CUDA error: an illegal memory access was encountered\nCompile with ...')


def test_an_error_that_ends_cuda_is_passed_on_and_no_pass_is_tried(monkeypatch):
    assert cuda_failure('cpu') is None
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda device: None)
    assert cuda_failure('cuda') is None
    monkeypatch.setattr(torch.cuda, 'synchronize', fail_for_good)
    monkeypatch.setattr(torch.backends.cuda, 'enable_cudnn_sdp', lambda enabled: None)
    cache = SimpleNamespace(data=SimpleNamespace(device=torch.device('cuda')))
    with pytest.raises(RuntimeError, match='illegal memory access was encountered Compile'):
        gpu_runner(None, cache, 4)


def test_what_is_fetched_waits_for_the_device_and_nothing_before(monkeypatch):
    """Also if it is nothing: else prefill chunks would be taken for quick, what follows slow."""
    calls = []

    def event(blocking):
        assert blocking  # the host sleeps, instead of spinning
        return SimpleNamespace(record=calls.append, synchronize=lambda: calls.append('waited'))
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: device)
    monkeypatch.setattr(torch.cuda, 'Event', event)

    class OnGpu:
        device = torch.device('cuda')

        def to(self, device, non_blocking):
            assert device == 'cpu' and non_blocking
            calls.append('copied')
            return torch.empty(0, 0)
    arrived = fetch(OnGpu())
    assert calls == ['copied', OnGpu.device]
    assert arrived() == []
    assert calls[2:] == ['waited']


@pytest.mark.parametrize('large', (False, True))
def test_steps_in_16_bits_stay_near_those_in_32(large):
    """Weights and cache as a GPU has them; residuals may grow too large for 16 bits."""
    def linear(parts, bias, weights, device):
        weight = torch.cat(parts).to(device, torch.float16)
        bias = None if bias is None else bias.to(device, torch.float16)
        return Linear(lambda x: F.linear(x.half(), weight, bias), weights, weight.nbytes)
    config = tiny.all_biases()
    tensors = dict(tiny.model(config).state_dict())
    for layer in range(3):
        tensors[f'model.layers.{layer}.mlp.down_proj.bias'].sign_().mul_(3e4 if large else .3)
    wanted, _ = runners(config, max_batch=1, tensors=tensors)
    plain, recorded = runners(config, 'fp16', max_batch=1, tensors=tensors, make_linear=linear)
    for segments in ([Segment(0, 0, [1, 2, 3, 7], True)], [Segment(0, 4, [7], True)]):
        exact = wanted.forward(segments)
        for runner in (plain, recorded):
            assert (runner.forward(segments) - exact).norm() < 0.03 * exact.norm()


def test_a_head_that_is_tied_to_the_embedding_takes_no_memory_of_its_own():
    tied, own = (build(config, 'bf16') for config in (tiny.llama(), tiny.llama3_rope()))
    assert own.nbytes - tied.nbytes == own.embedding.nbytes
    assert own.streamed_bytes == tied.streamed_bytes == tied.nbytes
    tied.embedding.zero_()
    assert not tied.head(torch.ones(1, 64, device=DEVICE)).any()


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
def test_a_step_without_logits_is_fetched_when_it_is_done():
    for runner in runners(tiny.llama()):
        assert fetch(runner.forward([Segment(0, 0, [1] * 100, False)]))() == []
        assert torch.cuda.current_stream().query()


@pytest.mark.gpu
def test_what_one_thread_recorded_another_replays():
    lengths = (3, 70, 200)
    rows = [Segment(slot, length, [1], True) for slot, length in enumerate(lengths)]
    with ThreadPoolExecutor(1) as loads, ThreadPoolExecutor(1) as serves:
        plain, recorded = loads.submit(filled, tiny.llama(), lengths).result()
        found = serves.submit(recorded.forward, rows).result()
        near(found, plain.forward(rows))
