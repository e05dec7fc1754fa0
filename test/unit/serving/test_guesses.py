# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The server feeds guessed tokens: fewer steps, the same answers, and a model that knows them."""

import threading

import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server, ServerConfig
from slice_ros.slo import SloClass

REPEAT = ('Repeat this text word by word: The delivery robot waits in the lobby until the lift is '
          'free, then it goes to floor two and rings the bell of office twelve.')
LOOSE, CONTROL = SloClass('dialogue'), SloClass('control', tpot_ms=50, utility=100)


class Observed(LatencyModel):
    """Keeps the shapes of the steps, and its terms."""

    def observe(self, seconds, *shape):
        self.shapes.append(shape)
        return self.step(*shape)


@pytest.fixture(scope='module')
def engine():
    return load_engine(EngineConfig(max_context=512, slots=6, threads=1))


def served(engine, further_ms, asked):
    """Serve requests (class, text) at once; return their texts, and tokens of steps."""
    latency = Observed('made', ((1, 10.0), (16, 40.0)), further_ms=further_ms,
                       prefill_token_ms=0.5)
    latency.shapes = observed = []
    server = Server(engine, latency, ServerConfig(classes=(LOOSE, CONTROL)))
    server.start()
    try:
        requests = []
        for slo, text in asked:
            parts, ended = [], threading.Event()

            def receive(delivery, parts=parts, ended=ended):
                parts.append(delivery.text)
                if delivery.finish_reason is not None:
                    ended.set()
            tokens = engine.encode_chat([('user', text)])
            requests.append((server.submit(slo, tokens, 40, Sampling(), receive), parts, ended))
        assert all(ended.wait(60) for *_, ended in requests)
    finally:
        server.stop()
    return [(request, ''.join(parts)) for request, parts, _ in requests], observed


def test_an_answer_that_quotes_takes_fewer_steps_and_is_the_same(engine):
    (plain, text), = served(engine, 1000.0, [(LOOSE, REPEAT)])[0]
    results, observed = served(engine, 0.5, [(LOOSE, REPEAT)])
    (request, same), = results
    assert same == text and plain.guesses == 0
    assert request.generated == plain.generated and request.right >= 8
    # The latency model learns from steps of the size that they have.
    further = [shape[3] for shape in observed]
    assert sum(further) >= request.guesses and max(further) > 1
    assert len(observed) <= plain.generated - request.right + 2


def test_company_gets_the_same_answers(engine):
    asked = [(LOOSE, REPEAT), (CONTROL, 'Stop or go? A wall is near.'), (LOOSE, 'Tell a story.')]
    plain, _ = served(engine, 1000.0, asked)
    guessed, _ = served(engine, 0.5, asked)
    assert [text for _, text in guessed] == [text for _, text in plain]
    assert sum(request.right for request, _ in guessed) > 0
