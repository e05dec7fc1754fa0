# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters: the answers of merged weights, in any company, and nothing shared wrongly."""

from queue import Queue

import adapter_files
import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.adapters.peft_directory import read_adapters
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.kv.kv_cache import KvCache
from slice_ros.engine.kv.slots import page_table
from slice_ros.engine.models.families import describe
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.engine.pinned_prefixes import PinnedPrefixes
from slice_ros.engine.runners.cuda.graph_runner import GraphRunner
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.runners.torch.weights import build_weights
from slice_ros.errors import ErrorCode, ModelError, RequestError
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server, ServerConfig
from slice_ros.slo import SloClass
import tiny
import torch

GREEDY = Sampling()
SYSTEM = [(7 * i + 3) % 250 for i in range(40)]
# Every kind of matrix that runners join, files fuse or rows of which they reorder.
MODELS = {
    'grouped': lambda: tiny.llama(eos_token_id=None),
    'odd sizes': lambda: tiny.llama(
        hidden_size=72, num_attention_heads=3, num_key_value_heads=1, head_dim=40,
        intermediate_size=100, attention_bias=True, mlp_bias=True, eos_token_id=None),
    'qwen3': lambda: tiny.FAMILIES['qwen3'](eos_token_id=None),
    'fused': lambda: tiny.FAMILIES['phi3'](eos_token_id=None),
    'norms behind, interleaved': lambda: tiny.FAMILIES['glm4'](eos_token_id=None),
    'gemma3_text': lambda: tiny.FAMILIES['gemma3_text'](eos_token_id=None),
    'granite': lambda: tiny.FAMILIES['granite'](eos_token_id=None),
    'no gate': lambda: tiny.FAMILIES['nemotron'](eos_token_id=None),
    'parallel': lambda: tiny.FAMILIES['cohere2'](eos_token_id=None),
}
TARGETS = (*adapter_files.ALL, 'qkv_proj', 'gate_up_proj')


def load(path, adapters, **options):
    """Return an engine with adapters, whose answers do not end."""
    entries = tuple(f'{name}={path / name}' for name in adapters)
    engine = load_engine(EngineConfig(str(path), **{
        'weights': 'fp32', 'max_context': 160, 'slots': 6, 'adapters': entries} | options))
    engine._stop_tokens = frozenset()
    return engine


def generated(model, prompt, count=48):
    """Return the greedy answer of transformers."""
    out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)),
                         max_new_tokens=count, do_sample=False, pad_token_id=0)
    return out[0].tolist()


def finish(engine, *sequences, chunk=1000):
    while todo := [(s, min(s.pending, chunk)) for s in sequences if not s.finish_reason]:
        engine.step(todo)
    return [s.tokens for s in sequences]


@pytest.mark.parametrize('name', MODELS)
def test_answers_are_those_of_merged_weights(name, tmp_path, kernels):
    """Two adapters and none in the same steps, alone and in chunks, after evictions too."""
    model = tiny.save(tmp_path, MODELS[name]())
    first = adapter_files.save(tmp_path / 'first', model, 1, targets=TARGETS)
    second = adapter_files.save(
        tmp_path / 'second', model, 2, rank=16, targets=('v_proj', 'up_proj', 'gate_up_proj'),
        layers=(1,), strength=1.0)
    engine = load(tmp_path, ('first', 'second'))
    assert ('native' in engine.info.kernels) == (kernels == 'native')
    assert engine.info.adapters == ('first', 'second')
    models = {'first': adapter_files.merged(model, first),
              'second': adapter_files.merged(model, second), '': model}
    prompts = {name: [(11 * i + len(name)) % 250 for i in range(50)] for name in models}
    wanted = [generated(models[name], prompt) for name, prompt in prompts.items()]
    assert len({tuple(tokens[50:]) for tokens in wanted}) == 3
    alone = engine.open(prompts['first'], 48, GREEDY, adapter='first')
    assert finish(engine, alone) == wanted[:1]
    live = [engine.open(prompt, 48, GREEDY, adapter=name) for name, prompt in prompts.items()]
    for _ in range(9):
        engine.step([(s, min(s.pending, 23)) for s in live])
    engine.evict(live[0])
    engine.evict(live[2])
    while engine._slots._kept:
        engine._slots._drop()
    assert finish(engine, *live, chunk=23) == wanted


@pytest.mark.parametrize('weights', ['fp16', 'int4'])
def test_no_company_changes_a_bit(weights, tmp_path):
    """Rows with an adapter and without, in any order, chunk and number of threads."""
    model = tiny.save(tmp_path, MODELS['odd sizes']())
    for seed, name in enumerate(('first', 'second')):
        adapter_files.save(tmp_path / name, model, seed, rank=5 + seed)
    plain = load(tmp_path, (), weights=weights, threads=1)
    if 'native' not in plain.info.kernels:
        pytest.skip('the native kernels are not built')
    alone = load(tmp_path, ('first', 'second'), weights=weights, threads=1)
    mixed = load(tmp_path, ('first', 'second'), weights=weights, threads=3)
    prompts = {-1: list(range(60)), 0: list(range(40, 90)), 1: list(range(7, 75))}
    for engine in (plain, alone, mixed):
        engine._slots.reserve([(slot, 100) for slot in range(6)])

    def whole(engine, adapter):
        segment = Segment(0, 0, prompts[adapter], True, adapter=adapter)
        return engine._runner.forward([segment])[0].copy()
    wanted = {adapter: whole(alone, adapter) for adapter in prompts}
    assert (wanted[-1] == whole(plain, -1)).all()
    run = mixed._runner.forward
    first = run([Segment(3 + a, 0, p[:20 + 5 * a], False, adapter=a) for a, p in prompts.items()])
    assert len(first) == 0
    got = run([Segment(3 + a, 20 + 5 * a, prompts[a][20 + 5 * a:-1], False, adapter=a)
               for a in (1, -1, 0)])
    got = run([Segment(3 + a, len(prompts[a]) - 1, prompts[a][-1:], True, adapter=a)
               for a in (0, 1, -1)])
    for row, adapter in zip(got, (0, 1, -1)):
        assert (row == wanted[adapter]).all()


def test_guesses_are_checked_with_the_adapter(tmp_path, kernels):
    model = tiny.save(tmp_path, tiny.llama(eos_token_id=None))
    made = adapter_files.save(tmp_path / 'a', model)
    wanted = generated(adapter_files.merged(model, made), SYSTEM)
    engine = load(tmp_path, ('a',))
    sequence = engine.open(SYSTEM, 48, GREEDY, adapter='a')
    while not sequence.finish_reason:
        draft = []
        if engine._runner.info.verifies and sequence.request.decoding:
            draft = wanted[len(sequence.tokens):][:min(3, -len(sequence.tokens) % 32)]
            draft = draft[:sequence.limit - sequence.generated - 1]
        engine.collect(engine.launch([(sequence, sequence.pending)], {sequence: draft}))
    assert sequence.tokens == wanted


def test_keys_and_values_of_other_adapters_are_not_taken_over(tmp_path, kernels):
    model = tiny.save(tmp_path, tiny.llama(eos_token_id=None))
    models = {name: adapter_files.merged(model, adapter_files.save(tmp_path / name, model, seed))
              for seed, name in enumerate(('a', 'b'))} | {'': model}
    engine = load(tmp_path, ('a', 'b'))
    for name in ('a', '', 'b', 'a', ''):
        prompt = [*SYSTEM, len(name), 9]
        known = engine.open(prompt, 12, GREEDY, adapter=name)
        engine.adopt(known)
        assert finish(engine, known) == [generated(models[name], prompt, 12)]
        live = engine.open(prompt, 12, GREEDY, adapter=name)   # beside a live one
        assert engine.adopt(live) == len(prompt) - 1
        others = [engine.open(prompt, 12, GREEDY, adapter=other)
                  for other in models if other != name]
        for other in others:
            kept = {k.adapter for k in engine._slots._kept.values()}
            assert engine.adopt(other) == 0 or other.adapter in kept
        assert finish(engine, live) == [generated(models[name], prompt, 12)]
        assert [s[-12:] for s in finish(engine, *others)] == [
            generated(models[other], prompt, 12)[-12:] for other in models if other != name]
        for sequence in (known, live, *others):
            engine.close(sequence)


def test_a_pinned_prefix_is_of_no_adapter(tmp_path):
    model = tiny.save(tmp_path, tiny.llama(eos_token_id=None))
    adapter_files.save(tmp_path / 'a', model)
    engine = load(tmp_path, ('a',))
    finish(engine, taken := engine.open(SYSTEM, 1, GREEDY, adapter='a'))
    engine.close(taken, pin=True)
    assert not engine.pinned(SYSTEM)
    pinned = PinnedPrefixes(engine, [SYSTEM])
    while pinned.compute(64):
        pass
    assert engine.pinned(SYSTEM)
    plain, adapted = (engine.open([*SYSTEM, 1], 2, GREEDY, adapter=name) for name in ('', 'a'))
    assert engine.adopt(plain) == engine.adopt(adapted) == len(SYSTEM)
    assert plain.slot != adapted.slot
    table = engine._slots._table
    assert table[plain.slot][0] != table[adapted.slot][0]


def test_an_unknown_adapter_names_those_that_there_are(tmp_path):
    model = tiny.save(tmp_path, tiny.llama())
    for name in ('kitchen', 'lab-2'):
        adapter_files.save(tmp_path / name, model)
    engine = load(tmp_path, ('kitchen', 'lab-2'))
    with pytest.raises(RequestError, match='kitchen, lab-2') as caught:
        engine.open([1], 1, GREEDY, adapter='attic')
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    with pytest.raises(RequestError, match='engine.adapters names none'):
        load(tmp_path, ()).open([1], 1, GREEDY, adapter='kitchen')


def test_models_through_transformers_refuse_adapters(tmp_path):
    model = tiny.save(tmp_path, tiny.gpt2())
    adapter_files.save(tmp_path / 'a', model)
    with pytest.raises(ModelError, match='adapters need the flat batch'):
        load(tmp_path, ('a',), weights='auto')


def test_a_step_with_an_adapter_is_not_a_recorded_one(tmp_path, monkeypatch, quick_checks):
    model = tiny.save(tmp_path, tiny.llama())
    made = adapter_files.save(tmp_path / 'a', model)
    described, device = describe(model.config), torch.device('cpu')
    adapters = read_adapters((f'a={tmp_path / "a"}',), described)
    weights = build_weights(described, ModelTensors(described, Tensors(tmp_path)), 'fp32', 'fp32',
                            device, 64, lambda share: None, adapters=adapters)
    table = page_table(4, 64)
    cache = KvCache(3, table, 8, 2, 16, torch.float32, device)
    runner = GraphRunner(weights, cache, 2)
    table[0, :2], table[1, :2] = (0, 1), (2, 3)
    monkeypatch.setattr(runner, '_replayed', lambda segments: pytest.fail('a recorded step'))
    prompt = SYSTEM[:30]
    got = runner.forward([Segment(0, 0, prompt, True, adapter=0), Segment(1, 0, prompt, True)])
    with torch.no_grad():
        for row, reference in zip(got, (adapter_files.merged(model, made), model)):
            want = reference(torch.tensor([prompt])).logits[0, -1]
            assert (row - want).abs().max() < 1e-3 * want.abs().max()
    assert runner.greedy([Segment(0, 30, [1], True, adapter=0)])()


def test_sessions_and_the_server_pass_the_adapter_on(tmp_path):
    """One conversation, a turn with an adapter and one without: each as its whole prompt."""

    model = tiny.save(tmp_path, tiny.llama(eos_token_id=None))
    made = adapter_files.save(tmp_path / 'a', model)
    models = {'a': adapter_files.merged(model, made), '': model}
    engine = load(tmp_path, ('a',))
    server = Server(engine, LatencyModel('any', ((1, 1.0),), prefill_token_ms=1.0),
                    ServerConfig(max_tokens=64))
    server.start()
    try:
        for name in ('a', '', 'a'):
            turn = server.sessions.begin('s', [('user', 'Hi')], 8)
            prompt, deliveries = list(turn.tokens), Queue()
            server.submit(SloClass('any'), prompt, 8, GREEDY, deliveries.put, turn=turn,
                          adapter=name)
            while (last := deliveries.get(timeout=60)).finish_reason is None:
                pass
            assert last.finish_reason == 'length'
            known = server.sessions._sessions['s'].tokens
            assert known == generated(models[name], prompt, 8)
    finally:
        assert server.stop()
