# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Guessed tokens save steps, and every answer stays what it is without them."""

from conftest import use_kernels
from formats import GREEDY
import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.text.prompt_lookup import MAX_INDEXED, PromptLookup
from slice_ros.scheduling.drafts import MAX_DRAFT

REPEAT = ('Repeat this text word by word: The delivery robot waits in the lobby until the lift is '
          'free, then it goes to floor two and rings the bell of office twelve.')
STORY = 'Write a short story about a robot.'
SAMPLINGS = [GREEDY, Sampling(temperature=0.3, seed=7), Sampling(temperature=1.0, seed=3, top_k=5),
             Sampling(temperature=0.5, seed=2, top_p=0.9, repetition_penalty=1.1),
             Sampling(repetition_penalty=1.05)]


@pytest.fixture(scope='module')
def engine():
    """Return the embedded model in the weights that are served."""
    return load_engine(EngineConfig(max_context=512, slots=6, threads=1))


def begun(engine, text, sampling=GREEDY, max_tokens=150, stop=()):
    return engine.open(engine.encode_chat([('user', text)]), max_tokens, sampling, stop)


def step(engine, sequence, others=(), most=MAX_DRAFT):
    """Run a step with the guesses of one sequence; return its outputs."""
    draft = engine.draft(sequence, most)
    work = [(s, s.pending) for s in (*others, sequence) if not s.finish_reason]
    launched = engine.launch(work, {sequence: draft} if draft else {})
    return [o for o in engine.collect(launched).outputs if o.sequence is sequence]


def finish(engine, sequence, others=(), most=MAX_DRAFT):
    """Return what an answer is, token by token, and the number of its steps."""
    outputs, steps = [], 0
    while not sequence.finish_reason:
        outputs += step(engine, sequence, others, most)
        steps += 1
    engine.close(sequence)
    assert ''.join(output.text for output in outputs) == sequence.text
    return [(o.token, o.number, o.text, o.finish_reason) for o in outputs], steps


@pytest.mark.parametrize('tokens, most, guesses', [
    ([1, 2, 3, 4, 5, 1, 2, 3], 8, [4, 5, 1, 2, 3]),
    ([1, 2, 3, 4, 5, 1, 2, 3], 2, [4, 5]),
    ([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], 1, [8]),      # the latest
    ([1, 2, 3, 4, 5], 8, []), ([2, 2, 2], 8, []), ([2, 2, 2, 2], 8, [2]), ([1], 8, []),
    ([1, 2, 3, 4, 1, 2, 3], 0, [])])
def test_what_followed_the_same_tokens_is_proposed(tokens, most, guesses):
    assert PromptLookup(tokens).propose(most) == guesses
    grown = tokens[:1]
    lookup = PromptLookup(grown)
    for token in tokens[1:]:
        lookup.propose(4)
        grown.append(token)
    assert lookup.propose(most) == guesses


def test_of_a_long_prompt_its_end_is_looked_through():
    beginning, end = [1, 2, 3, 4], list(range(10, 10 + MAX_INDEXED - 3))
    assert PromptLookup([*beginning, *end, 1, 2, 3]).propose(1) == []
    assert PromptLookup([*beginning, *end[:-4], 1, 2, 3]).propose(1) == [4]


@pytest.mark.parametrize('sampling', SAMPLINGS, ids=range(len(SAMPLINGS)))
@pytest.mark.parametrize('text', [REPEAT, STORY], ids=['repeat', 'story'])
def test_every_token_is_that_of_a_step_of_its_own(engine, text, sampling):
    plain, steps = finish(engine, begun(engine, text, sampling), most=0)
    guessed, fewer = finish(engine, begun(engine, text, sampling))
    assert guessed == plain and steps == len(plain)
    assert [number for _, number, *_ in guessed] == list(range(1, len(guessed) + 1))
    assert fewer <= steps
    if text is REPEAT and sampling is GREEDY:
        assert fewer <= 0.6 * steps


def test_company_changes_nothing_and_is_not_changed(engine):
    plain, _ = finish(engine, begun(engine, REPEAT), most=0)
    other, _ = finish(engine, begun(engine, STORY), most=0)
    company = begun(engine, STORY)
    assert finish(engine, begun(engine, REPEAT), [company])[0] == plain
    assert company.tokens[company.prompt_tokens:] == [t for t, *_ in other][:company.generated]
    engine.close(company)


def test_an_evicted_answer_goes_on_as_it_would_have(engine):
    plain, _ = finish(engine, begun(engine, REPEAT), most=0)
    sequence, outputs = begun(engine, REPEAT), []
    while not sequence.finish_reason:
        outputs += step(engine, sequence)
        if len(outputs) % 3 == 0 and not sequence.finish_reason:
            engine.evict(sequence)
            engine.adopt(sequence)
    engine.close(sequence)
    assert [o.token for o in outputs] == [token for token, *_ in plain]


def test_ends_are_where_they_were(engine):
    for stop in ('lift', 'office tw'):
        plain, _ = finish(engine, begun(engine, REPEAT, stop=(stop,)), most=0)
        assert finish(engine, begun(engine, REPEAT, stop=(stop,)))[0] == plain
        assert plain[-1][3] == 'stop'
    for limit in range(1, 16):
        plain, _ = finish(engine, begun(engine, REPEAT, max_tokens=limit), most=0)
        assert finish(engine, begun(engine, REPEAT, max_tokens=limit))[0] == plain
        assert len(plain) == limit


def test_the_request_counts_what_was_guessed(engine):
    sequence, drafted = begun(engine, REPEAT), 0
    request = sequence.request
    while not sequence.finish_reason:
        before, tokens = request.generated, len(engine.draft(sequence, MAX_DRAFT))
        outputs = step(engine, sequence)
        assert request.generated - before == len(outputs) <= 1 + tokens
        assert request.cached == len(sequence.tokens) - 1 and not request.forced
        drafted += tokens
    engine.close(sequence)
    assert 0 < request.right == request.jumped <= request.guesses <= drafted


def test_guesses_take_no_page_and_end_with_the_context(engine):
    sequence = begun(engine, 'a b c d e f ' * 80, max_tokens=200)
    while not sequence.finish_reason:
        end, draft = len(sequence.tokens), engine.draft(sequence, MAX_DRAFT)
        assert (end - 1) // PAGE_TOKENS == (end + len(draft) - 1) // PAGE_TOKENS
        step(engine, sequence)
    assert sequence.finish_reason == 'length'
    assert len(sequence.tokens) == engine.info.max_context
    engine.close(sequence)


def test_what_cannot_be_guessed_is_not(engine, tiny_directory, monkeypatch):
    sequence = engine.open(engine.encode('1 2 3 1 2 3'), 9, GREEDY, (), None)
    assert engine.draft(sequence, MAX_DRAFT) == []   # its prompt is not computed
    engine.close(sequence)
    use_kernels(monkeypatch, 'torch')
    other = load_engine(EngineConfig(str(tiny_directory), weights='fp32', max_context=64, slots=4))
    sequence = other.open([1, 2, 3, 4] * 4, 9, GREEDY)
    other.step([(sequence, sequence.pending)])
    assert other.draft(sequence, MAX_DRAFT) == []    # its logits may differ in their last bits
