# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Every precision, bit for bit: the answer of a request depends on its own tokens only.

Requests come, prefill in chunks of any size, decode, are evicted, take over what others have
computed, and go, in any company. Each step's logits must be those that the same tokens give one
by one, alone, on one thread, in a fresh cache.
"""

from collections import Counter
import random

from conftest import NATIVE, sampled
import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.runners.runner import Segment
import tiny
import torch

EXACT = [] if NATIVE is None else ['fp16', 'bf16', 'fp32', 'int8', 'int4']
PAGE = 32
LLAMA = {
    'grouped': tiny.llama,
    'biases, odd sizes': lambda: tiny.llama(
        hidden_size=72, num_attention_heads=3, num_key_value_heads=1, head_dim=40,
        intermediate_size=100, attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
}
CASES = [(weights, 'auto', name, threads)
         for weights in EXACT for name in LLAMA for threads in (1, 2, 3)]
CASES += [(weights, 'auto', name, 2) for weights in EXACT if weights == 'int4'
          for name in tiny.FAMILIES if 'longrope' not in name]
# In 8 bits, a token that shares a step must not see the others before they are rounded.
CASES += [(weights, '8', name, 2) for weights in EXACT if weights in ('fp32', 'int4')
          for name in (*LLAMA, 'gpt_oss', 'gemma2', 'gemma3_text', 'cohere2')]
# Every family in int4, every precision on two threads; further threads and precisions are many.
SAMPLE = [case for case in CASES if case[3] == 2 and 'int4' in case] + [
    (weights, 'auto', 'grouped', 2) for weights in EXACT]
STATES = [(name, weights, 'auto') for name in tiny.RECURRENT for weights in EXACT] + [
    (name, weights, '8') for name in tiny.RECURRENT for weights in EXACT[-1:]]
STATES_SAMPLE = [(name, weights, 'auto') for name in tiny.RECURRENT for weights in EXACT
                 if weights == 'int4' or name == 'lfm2'] + [('falcon_h1', 'int4', '8')]
EMBEDDED = [(weights, 'auto') for weights in EXACT] + [(weights, '8') for weights in EXACT[-1:]]


class Recorder:
    """Stands before an engine's runner and keeps the logits by the tokens they follow."""

    def __init__(self, runner):
        self._runner = runner
        self.seen = {}       # tokens -> logits
        self.segments = Counter()
        self.companies = Counter()

    def __getattr__(self, name):
        return getattr(self._runner, name)

    def watch(self, engine):
        self._live = engine._live
        engine._runner = self
        return engine

    def forward(self, segments, states=None):
        logits = torch.as_tensor(self._runner.forward(segments, states)).clone()
        wanted = [s for s in segments if s.wants_logits]
        assert len(wanted) == len(logits)
        for s, row in zip(wanted, logits):
            tokens = tuple(self._live[s.slot].tokens[:s.start + len(s.ids)])
            assert torch.equal(self.seen.setdefault(tokens, row), row), 'two requests differ'
        self.segments.update('decode' if len(s.ids) == 1 else 'chunk' for s in segments)
        self.companies[len(segments)] += 1
        return logits

    def greedy(self, segments):
        return self.forward(segments).argmax(-1).tolist


def alone(engine, tokens, wanted):
    """Return the logits after the first n of `tokens` for each n in `wanted`, in a fresh slot."""
    runner, slot = engine._runner, engine._slots.take()
    engine._slots.reserve([(slot, len(tokens))])
    found, at = {}, 0
    for n in sorted(wanted):
        logits = runner.forward([Segment(slot, at, tokens[at:n], True)])[0]
        found[n] = torch.as_tensor(logits).clone()
        at = n
    engine._slots.give(slot)
    return found


def walk(engine, prompts, dice, steps, most=5):
    """Let requests come and go for a number of steps; return how much was taken over, by how."""
    live, ended, counts = [], [], Counter()
    for _ in range(steps):
        while len(live) < most and dice.random() < 0.8:
            tokens = dice.choice(prompts)
            if ended and dice.random() < 0.3:  # the next turn of a conversation
                tokens = (dice.choice(ended) + [dice.randrange(250) for _ in range(5)])[:150]
            tokens = tokens[:dice.choice([31, 32, 33, 63, 64, 65, 97, len(tokens)])]
            request = engine.open(tokens, dice.randrange(1, 9), Sampling())
            if dice.random() < 0.8:
                sharing = any(s.slot is not None for s in live)
                counts['taken over'] += (reused := engine.adopt(request)) > 0
                counts['beside a live one'] += reused > 0 and sharing
                counts['in mid-page'] += reused % PAGE > 0
            live.append(request)
        work = [(s, min(s.pending, dice.choice([1, 2, 7, 31, 32, 33, 200])))
                for s in live if dice.random() < 0.7]
        if work:
            engine.step(work)
        for request in [*live]:
            if request.finish_reason or dice.random() < 0.03:
                engine.close(request)
                live.remove(request)
                ended.append(request.tokens)
            elif dice.random() < 0.06:
                engine.evict(request)
                if dice.random() < 0.7:
                    counts['adopted again'] += engine.adopt(request) > 0
                else:
                    while engine._slots._kept:  # others needed the room
                        engine._slots._drop()
                    counts['computed again'] += 1
    for request in live:
        engine.close(request)
    return counts


def check(recorder, reference):
    """Hold every step's logits against those of the same tokens alone."""
    checked = 0
    for tokens in sorted(recorder.seen, key=len, reverse=True):
        if tokens not in recorder.seen:
            continue
        before = [n for n in range(1, len(tokens) + 1) if tokens[:n] in recorder.seen]
        for n, want in alone(reference, list(tokens), before).items():
            assert torch.equal(recorder.seen.pop(tokens[:n]), want), f'after {n} tokens'
            checked += 1
    return checked


def engines(model, weights, threads, slots=6, kv='auto'):
    """Return an engine whose steps are recorded, the recorder, and one to compare with."""
    reference = load_engine(EngineConfig(str(model), weights=weights, max_context=160, slots=1,
                                         threads=1, kv=kv))
    engine = load_engine(EngineConfig(str(model), weights=weights, max_context=160, slots=slots,
                                      threads=threads, kv=kv))
    assert 'native' in engine.info.kernels and engine.info.weights == weights
    recorder = Recorder(engine._runner)
    return recorder.watch(engine), recorder, reference


@pytest.fixture(autouse=True)
def torch_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('weights, kv, name, threads', sampled(CASES, SAMPLE))
def test_no_company_chunk_or_prefix_changes_a_bit(tmp_path, weights, kv, name, threads):
    tiny.save(tmp_path, (LLAMA | tiny.FAMILIES)[name]())
    engine, recorder, reference = engines(tmp_path, weights, threads, kv=kv)
    dice = random.Random(threads)
    system = [dice.randrange(250) for _ in range(70)]
    prompts = [system + [dice.randrange(250) for _ in range(n)] for n in (1, 3, 26, 27, 50, 58)]
    prompts += [[dice.randrange(250) for _ in range(n)] for n in (40, 96)]
    counts = walk(engine, prompts, dice, 150)
    assert min(counts[what] for what in ('taken over', 'beside a live one', 'in mid-page',
                                         'adopted again', 'computed again')) > 3, counts
    assert recorder.segments['decode'] > 50 and recorder.segments['chunk'] > 50
    assert max(recorder.companies) >= 4
    assert check(recorder, reference) > 100


@pytest.mark.parametrize('name, weights, kv', sampled(STATES, STATES_SAMPLE))
def test_states_are_as_exact(tmp_path, name, weights, kv):
    """A slot that another request used begins from nothing; one that takes over, from a copy."""
    tiny.save(tmp_path, tiny.RECURRENT[name]())
    engine, recorder, reference = engines(tmp_path, weights, 2, kv=kv)
    dice = random.Random(3)
    prompts = [[dice.randrange(250) for _ in range(n)] for n in (1, 2, 3, 40, 70, 96, 120)]
    counts = walk(engine, prompts, dice, 100)
    assert min(counts['taken over'], counts['adopted again']) > 1, counts
    assert recorder.segments['decode'] > 50 and recorder.segments['chunk'] > 50
    assert check(recorder, reference) > 100


@pytest.mark.parametrize('weights, kv', sampled(EMBEDDED, [('fp16', 'auto'), ('int4', '8')]))
def test_the_embedded_model_is_as_exact(weights, kv):
    engine = load_engine(EngineConfig(weights=weights, max_context=160, slots=5, threads=2, kv=kv))
    recorder = Recorder(engine._runner)
    recorder.watch(engine)
    dice = random.Random(7)
    text = engine.encode('You steer a small robot. Answer with STOP, GO or SLOW and nothing else. '
                         'The door is open, the lift is on its way, and a child runs about. ' * 4)
    prompts = [text[:70] + text[start:start + 50] for start in range(5)]
    counts = walk(engine, prompts, dice, 24, most=4)
    assert counts['taken over'] > 1 and counts['in mid-page'] > 1, counts
    engine._runner = recorder._runner
    assert check(recorder, engine) > 20
