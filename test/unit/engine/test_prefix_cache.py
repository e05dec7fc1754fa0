# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Prefixes: what another request has computed is taken over, exactly, as long as there is room."""

from collections import Counter
from queue import Queue

import numpy as np
import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.kv.slots import KEPT_SLOTS, Slots
from slice_ros.engine.runners.runner import Segment
from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server, ServerConfig
from slice_ros.slo import DEFAULT_CLASSES
import torch

CONTROL, _, DIALOGUE = DEFAULT_CLASSES
GREEDY = Sampling()
SYSTEM = [(7 * i) % 250 for i in range(50)]
FIRST, SECOND = SYSTEM + [1, 2, 3], SYSTEM + [9, 8, 7, 6]


@pytest.fixture
def engine(tiny_directory, kernels):
    return load_engine(EngineConfig(str(tiny_directory), max_context=128, slots=4))


def finish(engine, sequence):
    while not sequence.finish_reason:
        engine.step([(sequence, sequence.pending)])
    return sequence.tokens


def drop_all(engine):
    while engine._slots._kept:
        engine._slots._drop()


def end(engine, tokens, slo=DIALOGUE):
    """Serve a request of a class to its end."""
    request = Request('', slo, 0.0, len(tokens), 2)
    sequence = engine.open(tokens, 2, GREEDY, request=request)
    finish(engine, sequence)
    engine.close(sequence)


def fresh(engine, tokens, count=12):
    """Return the tokens of a request that computes all of its prompt."""
    sequence = engine.open(tokens, count, GREEDY)
    finish(engine, sequence)
    engine.close(sequence)
    return sequence.tokens


def test_a_second_request_feeds_only_its_new_tokens(engine):
    expected = fresh(engine, SECOND)
    drop_all(engine)
    first = engine.open(FIRST, 4, GREEDY)
    assert engine.adopt(first) == 0
    finish(engine, first)
    engine.close(first)
    second = engine.open(SECOND, 12, GREEDY)
    assert engine.adopt(second) == len(SYSTEM)
    assert (second.cached, second.reused, second.pending) == (50, 50, 4)
    assert finish(engine, second) == expected


def test_a_turn_of_a_session_goes_on_from_the_answer_before(engine):
    first = engine.open(FIRST, 6, GREEDY)
    finish(engine, first)
    engine.close(first)
    second = engine.open(first.tokens + [4, 5], 4, GREEDY)
    assert engine.adopt(second) == len(first.tokens) - 1  # the last was sampled, never fed


def test_a_live_request_shares_and_neither_disturbs_the_other(engine):
    expected = [fresh(engine, tokens) for tokens in (FIRST, SECOND, FIRST)]
    first = engine.open(FIRST, 12, GREEDY)
    engine.step([(first, 40)])
    second, twin = engine.open(SECOND, 12, GREEDY), engine.open(FIRST, 12, GREEDY)
    drop_all(engine)
    assert engine.adopt(second) == 40
    engine.step([(first, first.pending)])
    assert engine.adopt(twin) == len(FIRST) - 1
    live = [first, second, twin]
    while todo := [(s, s.pending) for s in live if not s.finish_reason]:
        engine.step(todo)
        if first.generated == 5:
            engine.close(second)
            second = live[1] = engine.open(SECOND, 12, GREEDY)
            assert engine.adopt(second) >= 50
    assert [s.tokens for s in live] == expected


def test_an_evicted_request_takes_its_own_tokens_back(engine):
    expected = fresh(engine, FIRST)
    sequence = engine.open(FIRST, 12, GREEDY)
    for _ in range(4):
        engine.step([(sequence, sequence.pending)])
    engine.evict(sequence)
    assert engine.adopt(sequence) == len(FIRST) + 3
    assert finish(engine, sequence) == expected


def test_live_requests_push_the_oldest_prefix_out(engine):
    last = engine.info.slots + KEPT_SLOTS - 1
    for start in range(last + 1):
        end(engine, [start] * 40)
    live = engine.open([99] * 40, 4, GREEDY)
    engine.step([(live, 40)])
    assert engine.adopt(engine.open([0] * 40, 2, GREEDY)) == 0
    assert engine.adopt(engine.open([last] * 40, 2, GREEDY)) == 39


def test_many_requests_of_a_class_leave_the_prefixes_of_another(engine):
    end(engine, FIRST, CONTROL)
    for start in range(20):
        end(engine, [start] * 40, DIALOGUE)
    # Requests own every slot but one now; the prefix is there still, and has a slot to go to.
    live = [engine.open([start] * 40, 4, GREEDY) for start in range(engine.info.slots - 1)]
    engine.step([(sequence, 40) for sequence in live])
    second = engine.open(SECOND, 12, GREEDY)
    assert engine.adopt(second) == len(SYSTEM)


def test_each_of_two_classes_keeps_about_half(engine):
    rows = engine.info.slots + KEPT_SLOTS
    for slo in (CONTROL, DIALOGUE):
        for start in range(rows):
            end(engine, [start + rows * (slo is CONTROL)] * 40, slo)
    kept = Counter(kept.owner for kept in engine._slots._kept.values())
    assert kept.total() == rows and min(kept.values()) >= rows // 2 - 1


def test_too_short_a_prefix_and_a_busy_engine_take_nothing_over(engine):
    done = engine.open(FIRST, 2, GREEDY)
    finish(engine, done)
    assert engine.adopt(engine.open(SYSTEM[:20] + [5] * 40, 2, GREEDY)) == 0
    others = [engine.open([i] * 9, 9, GREEDY) for i in range(3)]
    engine.step([(s, 9) for s in others])
    assert engine.adopt(engine.open(SECOND, 2, GREEDY)) == 0  # `done` is live still: no slot left


def test_the_embedded_model_gives_the_same_bits(embedded):
    prompt = embedded.encode('The robot arm moves the red block to the left of the blue one, and '
                             'then it waits for the next command of the operator. ' * 3)
    other = embedded.open(prompt[:len(prompt) - 9] + prompt[:20], 4, GREEDY)
    embedded.step([(other, 17)])
    embedded.step([(other, other.pending)])
    again = embedded.open(prompt, 4, GREEDY)
    assert embedded.adopt(again) == len(prompt) - 9
    ours = embedded._slots.take()
    embedded._slots.reserve([(again.slot, len(prompt)), (ours, len(prompt))])
    whole = torch.as_tensor(embedded._runner.forward([Segment(ours, 0, prompt, True)])).clone()
    rest = torch.as_tensor(embedded._runner.forward(
        [Segment(again.slot, again.cached, prompt[-9:], True)]))
    if 'native' in embedded.info.kernels:
        assert torch.equal(rest, whole)
    # The attention of torch rounds by the length of the chunk.
    assert (rest - whole).abs().max() < 1e-3
    embedded._slots.give(ours)
    for sequence in (other, again):
        embedded.close(sequence)


def test_memory_bounds_the_tokens_and_prefixes_make_room(tiny_directory, kernels, monkeypatch):
    from slice_ros.engine.kv import memory
    page = 2 * 3 * 2 * 16 * 32 * (4 if kernels == 'torch' else 2)
    weights = Tensors(tiny_directory).nbytes
    monkeypatch.setattr(memory, '_available_memory', lambda: weights + 2 * 12 * page)
    engine = load_engine(EngineConfig(str(tiny_directory), max_context=128, slots=8))
    assert engine.info.kv_tokens == (12 - 8) * 32
    assert engine.info.kv_bytes == 12 * page
    short = [engine.open([i + 1] * 14, 2, GREEDY) for i in range(8)]
    engine.step([(s, 14) for s in short])  # 8 requests, though 8 full contexts would be 32 pages
    for sequence in short:
        engine.close(sequence)
    for start in range(30):
        done = engine.open([start] * 100, 2, GREEDY)
        finish(engine, done)
        engine.close(done)
    live = [engine.open([i] * 127, 2, GREEDY) for i in range(3)]
    engine.step([(s, 127) for s in live])
    with pytest.raises(MemoryError, match='full'):
        last = engine.open([9] * 40, 2, GREEDY)
        engine.step([(last, 40)])
    engine.close(live[0])
    engine.step([(last, 40)])


@pytest.mark.parametrize('spare', [0, 2])
def test_pages_are_never_lost_or_given_twice(spare):
    dice = np.random.default_rng(3)
    table = np.empty((6, 4), np.int32)
    slots = Slots(table, 18, spare)
    live = {}
    for _ in range(3000):
        if live and dice.random() < 0.5:
            slot = int(dice.choice(list(live)))
            tokens = live.pop(slot)
            owner = str(dice.integers(2))
            slots.keep(slot, tokens, owner) if dice.random() < 0.7 else slots.give(slot)
        elif slots.free:
            tokens = [int(dice.integers(3))] * int(dice.integers(1, 128))
            source, same = slots.longest_prefix(tokens, [(s, t, len(t)) for s, t in live.items()])
            slot = slots.share(source, same) if same else None
            slot = slots.take() if slot is None else slot
            live[slot] = tokens
            try:
                slots.reserve([(slot, len(tokens))])
            except MemoryError:
                slots.give(slot)
                del live[slot]
        named = table[table >= 0]
        counts = np.bincount(named, minlength=18)
        assert (counts == slots._named).all()
        assert sorted(slots._free_pages) == np.flatnonzero(counts == 0).tolist()
        assert slots.free + len(live) == 6 - spare
        for slot, tokens in live.items():
            assert (table[slot, :-(-len(tokens) // 32)] >= 0).all()


def test_the_second_request_of_a_class_is_served_from_its_new_tokens_on(engine):
    latency = LatencyModel('any', ((1, 1.0),), prefill_token_ms=1.0)
    server = Server(engine, latency, ServerConfig(max_tokens=64))
    server.start()
    try:
        reports = []
        for prompt in (FIRST, SECOND):
            deliveries = Queue()
            request = server.submit(CONTROL, prompt, 4, GREEDY, deliveries.put)
            while deliveries.get(timeout=20.0).finish_reason is None:
                pass
            reports.append(request.report())
    finally:
        assert server.stop()
    assert [r.reused_tokens for r in reports] == [0, len(SYSTEM)]
    assert all(r.served for r in reports)
