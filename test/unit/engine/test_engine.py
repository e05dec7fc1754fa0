# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Opening, stepping, evicting and closing; a fault leaves all other requests as they were."""

import pytest
from slice_ros.engine import engine as engine_module, EngineConfig, load_engine, Sampling
from slice_ros.errors import ErrorCode, RequestError
import tiny

GREEDY = Sampling()


def finish(engine, *live):
    outputs = []
    while todo := [(s, s.pending) for s in live if not s.finish_reason]:
        outputs += engine.step(todo)
    return outputs


@pytest.mark.parametrize('field, value', [
    ('device', 'tpu'), ('isa', 'avx9'), ('kv', '4'), ('kv', 8), ('weights', 'int3'),
    ('slots', 0), ('slots', 1.5), ('max_context', 0), ('max_batch', -1), ('threads', -1),
    ('threads', True)])
def test_a_bad_config_names_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        EngineConfig(**{field: value})


@pytest.mark.parametrize('tokens, max_tokens, stop, code', [
    ([], 4, (), ErrorCode.INVALID_REQUEST), ([1, 999999], 4, (), ErrorCode.INVALID_REQUEST),
    ([-1], 4, (), ErrorCode.INVALID_REQUEST), ([1], 0, (), ErrorCode.INVALID_REQUEST),
    ([1], 1.5, (), ErrorCode.INVALID_REQUEST), ([1], 4, ('',), ErrorCode.INVALID_REQUEST),
    ([1], 4, ('x' * 1000,), ErrorCode.INVALID_REQUEST),
    ([1], 4, ('a',) * 100, ErrorCode.INVALID_REQUEST), ([1], 4, (7,), ErrorCode.INVALID_REQUEST),
    ([1] * 64, 4, (), ErrorCode.PROMPT_TOO_LONG)])
def test_what_cannot_be_opened_is_refused(tiny_engine, tokens, max_tokens, stop, code):
    with pytest.raises(RequestError) as caught:
        tiny_engine.open(tokens, max_tokens, GREEDY, stop)
    assert caught.value.code is code


def test_max_tokens_and_the_end_of_the_context_both_finish_with_length(tiny_engine):
    short = tiny_engine.open([1, 2, 3], 5, GREEDY)
    full = tiny_engine.open([9] * 60, 1000, GREEDY)
    outputs = finish(tiny_engine, short, full)
    assert [s.finish_reason for s in (short, full)] == ['length', 'length']
    assert (short.generated, len(full.tokens)) == (5, 64)
    assert ''.join(o.text for o in outputs if o.sequence is short) == short.text


def test_a_stop_token_ends_the_text_and_shows_nothing(tiny_engine, monkeypatch):
    free = tiny_engine.open([1, 2, 3], 8, GREEDY)
    finish(tiny_engine, free)
    end = free.tokens[6]
    monkeypatch.setattr(tiny_engine, '_stop_tokens', frozenset([end]))
    stopped = tiny_engine.open([1, 2, 3], 8, GREEDY)
    last = finish(tiny_engine, stopped)[-1]
    assert (last.finish_reason, last.token) == ('stop', end)
    assert stopped.tokens == free.tokens[:free.tokens.index(end, 3) + 1]


def test_a_stop_string_ends_the_text_before_it(tiny_engine):
    free = tiny_engine.open([5, 6, 7], 30, GREEDY)
    finish(tiny_engine, free)
    stop = next(c for c in free.text[1:] if c.isascii())
    stopped = tiny_engine.open([5, 6, 7], 30, GREEDY, [stop])
    outputs = finish(tiny_engine, stopped)
    assert stopped.finish_reason == 'stop'
    assert stopped.text == free.text[:free.text.index(stop)]
    assert ''.join(o.text for o in outputs) == stopped.text


def test_a_prompt_in_chunks_samples_with_its_last_token_only(tiny_engine):
    sequence = tiny_engine.open(list(range(20)), 4, GREEDY)
    assert tiny_engine.step([(sequence, 7)]) == []
    assert (sequence.pending, sequence.cached) == (13, 7)
    assert tiny_engine.step([(sequence, 12)]) == []
    output, = tiny_engine.step([(sequence, 1)])
    assert output.token == sequence.tokens[-1]
    assert sequence.pending == 1
    whole = tiny_engine.open(list(range(20)), 4, GREEDY)
    finish(tiny_engine, whole, sequence)
    assert whole.tokens == sequence.tokens


def test_work_that_cannot_be_done_changes_nothing(tiny_engine):
    live = [tiny_engine.open([i], 9, GREEDY) for i in range(5)]
    for bad in ([(live[0], 0)], [(live[0], 2)], [(live[0], 1), (live[0], 1)],
                [(s, 1) for s in live]):
        with pytest.raises(ValueError):
            tiny_engine.step(bad)
        assert all(s.slot is None and s.cached == 0 for s in live)
    tiny_engine.close(live[0])
    with pytest.raises(ValueError):
        tiny_engine.step([(live[0], 1)])
    tiny_engine.step([(s, 1) for s in live[1:]])


def test_a_fault_in_the_forward_pass_leaves_every_request_as_it_was(tiny_engine, monkeypatch):
    undisturbed = tiny_engine.open([4, 5, 6], 10, GREEDY)
    finish(tiny_engine, undisturbed)
    tiny_engine.close(undisturbed)
    a, b = tiny_engine.open([4, 5, 6], 10, GREEDY), tiny_engine.open([8] * 9, 10, GREEDY)
    tiny_engine.step([(a, 3), (b, 4)])

    def fault(*_):
        raise RuntimeError('out of luck')
    with monkeypatch.context() as patch:
        patch.setattr(tiny_engine._runner.attention, 'prepare', lambda *given: fault)
        with pytest.raises(RuntimeError, match='luck'):
            tiny_engine.step([(a, 1), (b, 2)])
    assert (a.generated, a.cached, b.cached) == (1, 3, 4)
    finish(tiny_engine, a, b)
    assert a.tokens == undisturbed.tokens


def test_a_launched_step_changes_nothing_until_it_is_collected(tiny_engine, monkeypatch):
    """Nor if the device fails meanwhile; steps that sample nothing are waited for too."""
    undisturbed = tiny_engine.open([1, 2, 3], 4, Sampling())
    finish(tiny_engine, undisturbed)
    waited = []

    def later(made):  # as a device that computes by itself: what it gives is there when asked for
        def made_later(*given):
            tokens = made(*given)
            return lambda: waited.append(tokens) or tokens()
        return made_later
    monkeypatch.setattr(engine_module, 'fetch', later(engine_module.fetch))
    monkeypatch.setattr(tiny_engine._runner, 'greedy', later(tiny_engine._runner.greedy))
    sequence = tiny_engine.open([1, 2, 3], 4, Sampling())
    tiny_engine.collect(tiny_engine.launch([(sequence, 2)]))
    assert len(waited) == 1 and sequence.cached == 2
    while not sequence.finish_reason:
        before = sequence.cached, list(sequence.tokens)
        failed = tiny_engine.launch([(sequence, 1)])._replace(rows=lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tiny_engine.collect(failed)
        launched = tiny_engine.launch([(sequence, 1)])
        assert (sequence.cached, sequence.tokens) == before
        output, = tiny_engine.collect(launched).outputs
        assert output.token == sequence.tokens[-1]
    assert sequence.tokens == undisturbed.tokens


@pytest.mark.parametrize('family', ['gpt2', 'starcoder2', 'bamba'])
def test_a_fault_leaves_a_transformers_model_consistent_too(family, tmp_path, monkeypatch):
    """The decode rows are in their caches by then, beyond the windows; the chunk fails."""
    tiny.save(tmp_path, tiny.OTHER[family]())
    engine = load_engine(EngineConfig(str(tmp_path), max_context=64, slots=3))
    undisturbed = engine.open([4, 5, 6] * 4, 10, GREEDY)
    finish(engine, undisturbed)
    engine.close(undisturbed)
    a, b, c = (engine.open(prompt, 10, GREEDY) for prompt in ([4, 5, 6] * 4, [7], [1, 2]))
    engine.step([(a, 12), (b, 1)])
    inner = engine._runner._model.forward
    calls = []

    def second_call_fails(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError('out of luck')
        return inner(*args, **kwargs)
    with monkeypatch.context() as patch:
        patch.setattr(engine._runner._model, 'forward', second_call_fails)
        with pytest.raises(RuntimeError, match='luck'):
            engine.step([(a, 1), (b, 1), (c, 2)])
    finish(engine, a, b, c)
    assert a.tokens == undisturbed.tokens


def test_slots_come_back(tiny_engine):
    for _ in range(20):
        live = [tiny_engine.open([1, 2], 9, GREEDY) for _ in range(4)]
        tiny_engine.step([(s, 2) for s in live])
        for s in live[:2]:
            tiny_engine.evict(s)
            assert (s.slot, s.cached, s.pending) == (None, 0, 3)
        for s in live * 2:
            tiny_engine.close(s)
    assert tiny_engine._slots.free == 4


def test_earlier_contents_of_a_slot_are_never_read(tiny_engine):
    first = tiny_engine.open([3, 1, 4], 6, GREEDY)
    finish(tiny_engine, first)
    tiny_engine.close(first)
    tiny_engine._runner.cache.data.fill_(float('nan'))
    again = tiny_engine.open([3, 1, 4], 6, GREEDY)
    finish(tiny_engine, again)
    assert again.tokens == first.tokens
