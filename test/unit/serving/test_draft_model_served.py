# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The server feeds the guesses of a draft model: fewer steps, the same answers, nobody late."""

import threading

import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.runners.native import load_library
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server, ServerConfig
from slice_ros.slo import SloClass

pytestmark = pytest.mark.skipif(load_library()[0] is None, reason='needs the native kernels')
LOOSE, CONTROL = SloClass('dialogue'), SloClass('control', tpot_ms=50, utility=100)
ASKED = [(LOOSE, 'What is the capital of France, and why?'), (LOOSE, 'Tell a story.'),
         (CONTROL, 'Stop or go? A wall is near.')]


class Fixed(LatencyModel):
    """Keeps the shapes of the steps, and its terms."""

    def observe(self, seconds, *shape):
        self.shapes.append(shape)
        return self.step(*shape)


def fixed(**terms):
    latency = Fixed('made', **terms)
    latency.shapes = []
    return latency


@pytest.fixture(scope='module')
def engine():
    """Return the embedded model, which its own weights in 4 bits guess for."""
    return load_engine(EngineConfig(
        max_context=512, slots=6, threads=1, weights='fp16', draft_model=str(find_model('')),
        draft_weights='int4'))


def served(engine, draft_ms, asked=ASKED):
    """Serve requests (class, text) one after the other; return them, their texts and the steps."""
    latency = fixed(decode_ms=((1, 50.0), (16, 100.0)), further_ms=2.0, prefill_token_ms=5.0)
    engine.draft_model.latency = draft_ms and fixed(
        decode_ms=((1, draft_ms),), further_ms=0.1, prefill_base_ms=draft_ms,
        prefill_token_ms=0.1)
    server = Server(engine, latency, ServerConfig(classes=(LOOSE, CONTROL)))
    server.start()
    found = []
    try:
        for slo, text in asked:
            parts, ended = [], threading.Event()

            def receive(delivery, parts=parts, ended=ended):
                parts.append(delivery.text)
                if delivery.finish_reason is not None:
                    ended.set()
            tokens = engine.encode_chat([('user', text)])
            request = server.submit(slo, tokens, 24, Sampling(temperature=0.3, seed=5), receive)
            assert ended.wait(120)
            found.append((request, ''.join(parts)))
        snapshot = server.snapshot()
    finally:
        server.stop()
    return found, latency.shapes, snapshot


def test_answers_are_the_same_in_fewer_steps(engine):
    plain, steps, _ = served(engine, None)
    guessed, fewer, snapshot = served(engine, 4.0)
    assert [text for _, text in guessed] == [text for _, text in plain]
    assert sum(r.generated for r, _ in guessed) == sum(r.generated for r, _ in plain)
    assert sum(request.right for request, _ in guessed) > 10
    assert len(fewer) < 0.8 * len(steps)
    assert snapshot.right == sum(request.right for request, _ in guessed)
    assert snapshot.drafted == sum(request.drafted for request, _ in guessed) >= snapshot.right
    # What it took is time of the engine, not of the plan.
    assert snapshot.overhead < 0.3
    assert not engine.draft_model._lanes and not engine.draft_model._without


def test_one_that_takes_too_long_is_never_asked(engine):
    guessed, _, _ = served(engine, 40.0, ASKED[:1])
    assert engine.draft_model.latency.shapes == []
    assert guessed[0][0].generated > 0


def test_a_fault_ends_no_request(engine, monkeypatch, caplog):
    plain, _, _ = served(engine, None, ASKED[:1])
    model, runner = engine.draft_model, engine.draft_model._runner

    class Broken:
        info = runner.info
        share, forget = runner.share, runner.forget

        def greedy(self, segments):
            raise ValueError('the step was refused')
    model._runner = Broken()
    try:
        guessed, _, _ = served(engine, 4.0, ASKED[:1])
        assert guessed[0][1] == plain[0][1] and model.failed
        assert 'answers go on without its guesses' in caplog.text
    finally:
        model._runner, model.failed = runner, False
