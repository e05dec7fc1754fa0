# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Preambles: in the KV cache beforehand, kept longest, and never in the way of a request."""

import gc
import logging
import time

import pytest
from slice_ros.engine import EngineConfig, load_engine, ResponseFormat, Sampling
from slice_ros.engine.pinned_prefixes import PinnedPrefixes
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server, ServerConfig
from slice_ros.serving.warm.preambles import parse_preamble, prefix_of
from slice_ros.serving.warm.warm_up import FORMATS, warm_up
from slice_ros.slo import DEFAULT_CLASSES

GREEDY = Sampling()
PREFIX = [(7 * i) % 250 for i in range(70)]
OTHER = [(11 * i + 3) % 250 for i in range(40)]
CHUNK = 16   # less than the shortest prefix that is kept: progress is made nevertheless


@pytest.fixture
def engine(tiny_directory, kernels):
    return load_engine(EngineConfig(str(tiny_directory), max_context=128, slots=4))


def compute_all(pinned):
    steps = 0
    while pinned.compute(CHUNK):
        steps += 1
        assert steps < 20, 'it does not come to an end'
    return steps


def serve(engine, tokens, count=8):
    """Return the tokens of a request, and how many of its prompt were reused."""
    sequence = engine.open(tokens, count, GREEDY)
    engine.adopt(sequence)
    while not sequence.finish_reason:
        engine.step([(sequence, sequence.pending)])
    engine.close(sequence)
    return sequence.tokens, sequence.reused


def test_a_pinned_prefix_is_adopted_and_changes_no_answer(engine):
    expected, _ = serve(engine, [*PREFIX, 1, 2])
    while engine._slots._kept:
        engine._slots._drop()
    assert compute_all(PinnedPrefixes(engine, [PREFIX])) == 3
    assert engine.pinned(PREFIX) and not engine.pinned(OTHER)
    assert serve(engine, [*PREFIX, 1, 2]) == (expected, len(PREFIX))


@pytest.mark.parametrize('error', [RuntimeError('no'), SystemExit(1), BaseException('a panic')])
def test_a_prefix_that_cannot_be_computed_is_given_up(engine, monkeypatch, error):
    def step(work):
        raise error
    pinned = PinnedPrefixes(engine, [PREFIX, OTHER])
    monkeypatch.setattr(engine, 'step', step)
    assert compute_all(pinned) == 2 and not pinned


def test_other_prefixes_are_dropped_first(engine):
    pinned = PinnedPrefixes(engine, [PREFIX, OTHER])
    compute_all(pinned)
    for number in range(12):
        serve(engine, [number] * 60, 2)
        assert engine.pinned(PREFIX) and engine.pinned(OTHER)
    assert not pinned.compute(CHUNK)


def test_requests_that_own_all_their_slots_displace_nothing(engine):
    pinned = PinnedPrefixes(engine, [PREFIX, OTHER])
    compute_all(pinned)
    live = [engine.open([number] * 40, 2, GREEDY) for number in range(4)]
    engine.step([(sequence, 40) for sequence in live])
    assert engine.pinned(PREFIX) and engine.pinned(OTHER) and engine._slots.free == 0
    for sequence in live:
        engine.close(sequence)
    assert engine._slots.free == 4


def test_the_pages_of_a_full_cache_go_to_requests_and_come_back(engine):
    pinned = PinnedPrefixes(engine, [PREFIX])
    compute_all(pinned)
    slots, before = engine._slots, len(engine._slots._free_pages)
    slots._free_pages, taken = [], slots._free_pages
    sequence = engine.open([9] * 40, 1, GREEDY)
    engine.step([(sequence, 40)])
    assert not engine.pinned(PREFIX) and before
    slots._free_pages += taken
    engine.close(sequence)
    compute_all(pinned)
    assert engine.pinned(PREFIX)


def test_what_cannot_be_kept_is_left_out(engine, caplog):
    assert not len(PinnedPrefixes(engine, [[1] * 31, []]))
    pinned = PinnedPrefixes(engine, [PREFIX, [1] * 500])   # longer than the context
    with caplog.at_level(logging.CRITICAL):
        compute_all(pinned)
    assert engine.pinned(PREFIX) and len(pinned) == 1


def test_a_new_set_replaces_the_one_before(engine):
    compute_all(PinnedPrefixes(engine, [PREFIX]))
    compute_all(PinnedPrefixes(engine, [OTHER]))
    assert engine.pinned(OTHER) and not engine.pinned(PREFIX)


LATENCY = LatencyModel('test', ((1, 1.0), (4, 2.0)), prefill_token_ms=0.1)
TEXT = 'You drive a robot. Answer with one word. Never hurry, and stop for everyone. '
PREAMBLES = {'control': [('system', TEXT)]}


@pytest.fixture
def served(engine):
    """Return a server, ready as in the node."""
    pinned = warm_up(engine, LATENCY, ServerConfig(), PREAMBLES, lambda: False)
    server = Server(engine, LATENCY, ServerConfig())
    server.keep(pinned)
    server.start()
    yield server
    assert server.stop()


def ask(server, tokens, **options):
    ends = []
    request = server.submit(DEFAULT_CLASSES[0], tokens, 3, GREEDY,
                            lambda d: ends.append(d) if d.finish_reason else None, **options)
    end = time.monotonic() + 60
    while not ends:
        assert time.monotonic() < end
        time.sleep(0.001)
    return request


def test_a_warm_server_has_no_figures_and_reuses_the_preamble(served):
    snapshot = served.snapshot()
    assert snapshot.steps == snapshot.tokens == snapshot.engine_failures == 0
    assert not any(c.received for c in snapshot.classes.values())
    prefix = prefix_of(served.engine, PREAMBLES['control'])
    assert served.engine.pinned(prefix)
    tokens = served.engine.encode_chat([*PREAMBLES['control'], ('user', 'Wall!')])
    assert ask(served, tokens).reused == len(prefix) == len(
        [1 for a, b in zip(tokens, prefix) if a == b])


def test_the_first_text_with_a_special_token_costs_no_more_than_the_next(served):
    """The copy of the tokenizer that reads them is there: making it stops everyone."""
    special = served.engine._encoder._special
    assert special.texts
    assert {'_plain', '_scanner'} <= set(vars(special))


def test_garbage_is_not_sought_among_what_is_loaded_when_it_serves(served):
    assert gc.get_freeze_count() > 10 * len(gc.get_objects())


def test_the_latency_model_learns_nothing_from_it(engine):
    latency = LatencyModel('test', ((1, 1.0), (4, 2.0)), prefill_token_ms=0.1)
    before = latency.decode(1), latency.prefill(50)
    warm_up(engine, latency, ServerConfig(), {}, lambda: False)
    assert (latency.decode(1), latency.prefill(50)) == before


def test_an_idle_server_computes_a_lost_prefix_anew(served):
    engine = served.engine
    prefix = prefix_of(engine, PREAMBLES['control'])
    engine._slots._drop()   # nobody runs: as a request would
    while engine._slots._kept:
        engine._slots._drop()
    assert not engine.pinned(prefix)
    ask(served, [5] * 40, response_format=ResponseFormat())
    end = time.monotonic() + 60
    while not engine.pinned(prefix):
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize('config', [
    ServerConfig(max_prompt_tokens=1), ServerConfig(max_tokens=1), ServerConfig(max_queued=1),
    ServerConfig(admission='reject'), ServerConfig(prefill_chunk=1),
    ServerConfig(policy='slice_static')])
def test_a_warm_up_never_fails(engine, config):
    warm_up(engine, LATENCY, config, {'control': [('system', 'x ' * 300)]}, lambda: False)
    assert engine._slots.free == 4 and not engine._live


def test_a_warm_up_ends_when_the_node_is_asked_to_stop(engine, monkeypatch):
    steps, launch = [], engine.launch

    def slowly(*step):
        steps.append(step)
        time.sleep(0.3)
        return launch(*step)
    monkeypatch.setattr(engine, 'launch', slowly)
    warm_up(engine, LATENCY, ServerConfig(), PREAMBLES, lambda: True)
    assert len(steps) < 2 * len(FORMATS) * len(DEFAULT_CLASSES)   # its answers have twice as many
    assert not engine.pinned(prefix_of(engine, PREAMBLES['control'])) and not engine._live


def test_preambles():
    assert parse_preamble('') == parse_preamble(' \n') == []
    assert parse_preamble('Be brief.') == [('system', 'Be brief.')]
    assert parse_preamble('[{"role": "user", "content": "[x]"}]') == [('user', '[x]')]
    for wrong in ('[', '[1]', '[{}]', '[{"role": "cat", "content": "x"}]',
                  '[{"role": "user", "content": 3}]', '[' * 100_000):
        with pytest.raises(ValueError, match='JSON array'):
            parse_preamble(wrong)
