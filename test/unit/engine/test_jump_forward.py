# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens that a response format forces come without steps of their own, and are the same."""

import threading

from formats import choice, GREEDY, regex, schema
import pytest
from slice_ros.bench.answers.answer_schemas import response_format, SCHEMAS
from slice_ros.engine import EngineConfig, load_engine, ResponseFormat, Sampling
from slice_ros.errors import ErrorCode
from slice_ros.request import MAX_FORCED
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server, ServerConfig
from slice_ros.slo import SloClass

HOT = Sampling(temperature=1.0, seed=7)
SAMPLINGS = [GREEDY, HOT, Sampling(temperature=2.0, seed=1, top_k=40, top_p=0.9),
             Sampling(temperature=0.7, seed=2, min_p=0.05, repetition_penalty=1.3),
             Sampling(repetition_penalty=1.5)]
ANSWERS = {name: response_format(name) for name in SCHEMAS}
# Forced runs longer than a jump, characters of several tokens, ends by the format.
ODD = {
    'long': schema({'const': 'word by word, ' * 4}),
    'emoji': schema({'type': 'object', 'additionalProperties': False, 'required': ['dépôt 🚪'],
                     'properties': {'dépôt 🚪': {'type': 'boolean'}, 'n': {'type': 'null'}}}),
    'regex': regex(r'The battery has \d{1,3} % left, which (is|is not) enough\.'),
    'choice': choice('turn left', 'turn right', 'turn around')}


@pytest.fixture(scope='module')
def byte_engine(tiny_directory):
    return load_engine(EngineConfig(str(tiny_directory), weights='fp32', max_context=512, slots=4,
                                    threads=1))


@pytest.fixture(scope='module')
def word_engine():
    """Return the embedded model in the weights that are served."""
    return load_engine(EngineConfig(max_context=512, slots=4, threads=1))


def begun(engine, wanted, sampling=GREEDY, max_tokens=250):
    return engine.open(engine.encode('Bring the red cup.'), max_tokens, sampling, (), wanted)


def finish(engine, sequence):
    """Return the outputs until the end, and the number of steps."""
    outputs, steps = [], 0
    while not sequence.finish_reason:
        outputs += engine.step([(sequence, sequence.pending)])
        steps += 1
    engine.close(sequence)
    return outputs, steps


def served(engine, wanted, sampling=GREEDY, max_tokens=250, jump=True):
    """Return what an answer is, token by token, and the number of its steps."""
    engine.opener.jump_forward = jump
    try:
        sequence = begun(engine, wanted, sampling, max_tokens)
        outputs, steps = finish(engine, sequence)
    finally:
        engine.opener.jump_forward = True
    assert ''.join(output.text for output in outputs) == sequence.text
    return [(o.token, o.number, o.text, o.finish_reason, o.error and o.error.code)
            for o in outputs], steps


@pytest.mark.parametrize('sampling', SAMPLINGS, ids=range(len(SAMPLINGS)))
@pytest.mark.parametrize('name', [*ANSWERS, *ODD])
def test_every_token_and_piece_is_that_of_sampling_alone(byte_engine, name, sampling):
    wanted = {**ANSWERS, **ODD}[name]
    outputs, steps = served(byte_engine, wanted, sampling)
    assert outputs == served(byte_engine, wanted, sampling, jump=False)[0]
    assert [number for _, number, *_ in outputs] == list(range(1, len(outputs) + 1))
    assert steps < len(outputs)


@pytest.mark.parametrize('name', ANSWERS)
def test_a_real_model_gives_the_same_answer_in_fewer_steps(word_engine, name):
    for sampling in (GREEDY, HOT):
        outputs, steps = served(word_engine, ANSWERS[name], sampling)
        plain, each = served(word_engine, ANSWERS[name], sampling, jump=False)
        assert outputs == plain and outputs[-1][3] == 'stop'
        assert steps < each == len(outputs)
    assert name != 'planner' or steps < each / 3


def test_the_end_by_max_tokens_is_where_it_was(byte_engine):
    for limit in range(1, 40, 3):
        outputs, _ = served(byte_engine, ANSWERS['pose'], HOT, limit)
        assert outputs == served(byte_engine, ANSWERS['pose'], HOT, limit, jump=False)[0]
        assert len(outputs) == limit and outputs[-1][4] is ErrorCode.FORMAT_INCOMPLETE


def test_a_jump_has_a_limit_and_its_tokens_are_pending(byte_engine):
    sequence = begun(byte_engine, ODD['long'])
    request = sequence.request
    assert request.lead == len(sequence.lead) == MAX_FORCED and request.generated == 0
    assert request.pending == len(sequence.tokens) == request.prompt_tokens + MAX_FORCED
    outputs = byte_engine.step([(sequence, sequence.pending)])
    assert [output.number for output in outputs] == list(range(1, 2 * MAX_FORCED + 2))
    assert request.generated == len(outputs) and request.lead == 0 and sequence.lead == ()
    assert request.forced == MAX_FORCED == sequence.pending - 1 and request.decoding
    assert request.jumped == 2 * MAX_FORCED
    byte_engine.step([(sequence, sequence.pending)])
    assert request.forced == MAX_FORCED and request.jumped == 3 * MAX_FORCED
    byte_engine.close(sequence)


@pytest.mark.parametrize('wanted, limit', [
    (choice('turn left', 'go on'), 250), (choice('stop'), 250), (ResponseFormat(), 250),
    (ANSWERS['planner'], 1)], ids=['choice', 'one choice', 'text', 'a token'])
def test_an_answer_without_a_lead(byte_engine, wanted, limit):
    sequence = begun(byte_engine, wanted, max_tokens=limit)
    assert not sequence.lead and sequence.request.lead == 0
    assert sequence.tokens == byte_engine.encode('Bring the red cup.')
    byte_engine.close(sequence)


def test_choices_begin_with_what_they_share(byte_engine):
    sequence = begun(byte_engine, ODD['choice'])
    assert ''.join(text for _, text in sequence.lead) == 'turn '
    outputs = byte_engine.step([(sequence, sequence.pending)])   # its last token decides
    assert len(outputs) == 6 and outputs[-1].finish_reason == 'stop'
    assert sequence.text in ('turn left', 'turn right', 'turn around')
    byte_engine.close(sequence)


def test_no_lead_is_longer_than_the_answer_or_the_context(byte_engine):
    """The last token of an answer is always one of a step."""
    sequence = begun(byte_engine, ODD['long'], max_tokens=5)
    assert sequence.request.lead == 4
    byte_engine.close(sequence)
    whole = begun(byte_engine, schema({'const': 'go'}))   # "go", with its quotes
    assert whole.request.lead == 3
    outputs = byte_engine.step([(whole, whole.pending)])
    assert whole.text == '"go"' and outputs[-1].finish_reason == 'stop'
    byte_engine.close(whole)
    room = byte_engine.info.max_context
    full = byte_engine.open([65] * (room - 3), 3, GREEDY, (), ODD['long'])
    assert full.request.lead == 2
    outputs = byte_engine.step([(full, full.pending)])
    assert len(outputs) == 3 and outputs[-1].error.code is ErrorCode.FORMAT_INCOMPLETE
    byte_engine.close(full)


def test_a_lead_is_fed_in_chunks_shared_and_fed_again_after_an_eviction(byte_engine):
    whole, _ = served(byte_engine, ANSWERS['pose'], HOT)
    first = begun(byte_engine, ANSWERS['pose'], HOT)
    lead = first.request.lead
    assert byte_engine.step([(first, first.pending - 2)]) == []   # all but two of its lead
    assert first.request.generated == 0 and first.request.pending == 2
    byte_engine.evict(first)
    assert first.request.pending == len(first.tokens) and first.request.lead == lead
    second = begun(byte_engine, ANSWERS['pose'], HOT)
    for sequence in (first, second):
        byte_engine.adopt(sequence)
        assert sequence.request.reused <= sequence.request.prompt_tokens
        outputs = finish(byte_engine, sequence)[0]
        assert [(o.token, o.number, o.text) for o in outputs] == [one[:3] for one in whole]


def test_an_evicted_answer_goes_on_as_it_would_have(byte_engine):
    whole, _ = served(byte_engine, ANSWERS['planner'], HOT)
    sequence = begun(byte_engine, ANSWERS['planner'], HOT)
    outputs = byte_engine.step([(sequence, sequence.pending)])
    while not sequence.finish_reason:
        if sequence.request.forced:
            byte_engine.evict(sequence)
            assert not sequence.request.decoding
            byte_engine.adopt(sequence)
            if sequence.pending > 3:   # in two chunks
                assert byte_engine.step([(sequence, 3)]) == []
        outputs += byte_engine.step([(sequence, sequence.pending)])
    byte_engine.close(sequence)
    assert [output.token for output in outputs] == [token for token, *_ in whole]


def test_company_changes_no_token(byte_engine):
    alone = [served(byte_engine, wanted, HOT)[0] for wanted in ANSWERS.values()][:4]
    live = [begun(byte_engine, wanted, HOT) for wanted in ANSWERS.values()][:4]
    tokens = {sequence: [] for sequence in live}
    while work := [(s, s.pending) for s in live if not s.finish_reason]:
        for output in byte_engine.step(work):
            tokens[output.sequence].append(output.token)
    for sequence, wanted in zip(live, alone):
        byte_engine.close(sequence)
        assert tokens[sequence] == [token for token, *_ in wanted]


def test_a_server_delivers_each_token_of_a_jump_by_itself(byte_engine):
    plain, _ = served(byte_engine, ANSWERS['pose'], HOT, 200)
    server = Server(byte_engine, LatencyModel('any', ((1, 10.0),)), ServerConfig(
        classes=(SloClass('any'),), max_tokens=200))
    deliveries, ended = [], threading.Event()

    def on_output(delivery):
        deliveries.append(delivery)
        if delivery.finish_reason:
            ended.set()
    server.start()
    try:
        request = server.submit(SloClass('any'), byte_engine.encode('Bring the red cup.'), 200,
                                HOT, on_output, response_format=ANSWERS['pose'])
        assert ended.wait(60)
        steps = len(server.recent_steps())
    finally:
        server.stop()
    assert [(d.number, d.tokens, d.text) for d in deliveries] == [
        (number - 1, number, text) for _, number, text, *_ in plain]
    assert deliveries[-1].finish_reason == plain[-1][3] and request.generated == len(plain)
    assert steps == len(plain) - request.jumped
