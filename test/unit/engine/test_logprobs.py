# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities are those of transformers' log softmax, whatever happens to the request."""

from formats import choice, GREEDY, regex, schema
import numpy as np
import pytest
from slice_ros.engine import EngineConfig, load_engine, ResponseFormat, Sampling, Tool
from slice_ros.engine.logprobs import TokenTexts
from slice_ros.engine.text.choice import rank
from slice_ros.engine.text.device_sampling import rank_at_once
from slice_ros.scheduling.drafts import MAX_DRAFT
from thinkers import begun as thinking, SWITCHED, thinker
import tiny
import torch

ASKS = Sampling(logprobs=5)
HOT = Sampling(temperature=1.3, seed=3, repetition_penalty=1.3, logit_bias=((70, 4.0),),
               logprobs=3)
PROMPT = [(11 * i) % 250 for i in range(40)]
SAME = 1e-3   # as far as float32 sums of another order may be off


@pytest.fixture(scope='module')
def model():
    return tiny.model(tiny.llama())


@pytest.fixture
def engine(tiny_directory, kernels):
    return load_engine(EngineConfig(str(tiny_directory), weights='fp32', max_context=160, slots=4,
                                    threads=1))


@pytest.fixture(scope='module')
def word_engine():
    """Return the embedded model in the weights that are served."""
    return load_engine(EngineConfig(max_context=512, slots=4, threads=1))


def ranks_of(outputs):
    return [entries for output in outputs for entries in output.logprobs]


def served(engine, tokens, count=24, sampling=ASKS, wanted=None, stop=(), others=(), evicts=()):
    """Return a finished sequence and its outputs; it is evicted after some of its steps."""
    sequence = engine.open(tokens, count, sampling, stop, wanted)
    engine.adopt(sequence)
    outputs, steps = [], 0
    while not sequence.finish_reason:
        work = [(s, s.pending) for s in (*others, sequence) if not s.finish_reason]
        outputs += [o for o in engine.step(work) if o.sequence is sequence]
        steps += 1
        if steps in evicts and not sequence.finish_reason:
            engine.evict(sequence)
    engine.close(sequence)
    return sequence, outputs


def check(model, sequence, ranks, top):
    """Assert that `ranks` are those of the model for each token of an answer but the stop."""
    begin, count = sequence.prompt_tokens, len(ranks)
    with torch.inference_mode():
        logits = model(torch.tensor([sequence.tokens[:begin + count]])).logits[0]
    right = torch.log_softmax(logits.float(), -1)
    assert count
    for number, entries in enumerate(ranks):
        row, own = right[begin - 1 + number], sequence.tokens[begin + number]
        assert len(entries) == 1 + top and entries[0].token == own
        assert entries[0].logprob == pytest.approx(float(row[own]), abs=SAME)
        assert [e.logprob for e in entries[1:]] == pytest.approx(
            row.topk(top).values.tolist(), abs=SAME)
        for entry in entries[1:]:
            assert entry.logprob == pytest.approx(float(row[entry.token]), abs=SAME)


@pytest.mark.parametrize('sampling', [ASKS, HOT, Sampling(logprobs=0), Sampling(logprobs=20)],
                         ids=['greedy', 'hot', 'own', 'most'])
def test_they_are_the_models_own_whatever_is_chosen(engine, model, sampling):
    sequence, outputs = served(engine, PROMPT, sampling=sampling)
    check(model, sequence, ranks_of(outputs), sampling.logprobs)


def test_greedy_answers_are_the_same_with_and_without(engine):
    plain, without = served(engine, PROMPT, sampling=GREEDY)
    asked, outputs = served(engine, PROMPT)
    assert asked.tokens == plain.tokens and [o.text for o in outputs] == [o.text for o in without]
    assert not ranks_of(without)
    assert all(entries[0][:2] == entries[1][:2] for entries in ranks_of(outputs))


def test_in_company_after_a_prefix_and_after_evictions(engine, model):
    alone, outputs = served(engine, PROMPT)
    expected = ranks_of(outputs)
    others = [engine.open(PROMPT[:n], 40, sampling)
              for n, sampling in ((7, GREEDY), (20, Sampling(temperature=1.0, seed=1)))]
    sequence, outputs = served(engine, PROMPT, others=others)
    assert sequence.reused >= 32 and sequence.tokens == alone.tokens
    check(model, sequence, ranks_of(outputs), 5)
    for other in others:
        engine.close(other)
    again, outputs = served(engine, PROMPT, evicts=(3, 4, 11))
    assert again.tokens == alone.tokens
    check(model, again, ranks_of(outputs), 5)
    assert [[e.token for e in entries] for entries in ranks_of(outputs)] == [
        [e.token for e in entries] for entries in expected]


@pytest.mark.parametrize('wanted', [
    regex('[a-z]{3} is (left|right)\\.'), schema({'type': 'array', 'items': {'type': 'boolean'},
                                                  'minItems': 2, 'maxItems': 3}),
    choice('turn left', 'turn right')])
def test_a_format_changes_what_is_chosen_and_no_log_probability(engine, model, wanted):
    plain, _ = served(engine, PROMPT, 60, GREEDY, wanted)
    sequence, outputs = served(engine, PROMPT, 60, ASKS, wanted)
    assert sequence.tokens == plain.tokens and sequence.finish_reason == 'stop'
    assert not sequence.request.jumped   # the logits of each token are computed
    ranks = ranks_of(outputs)
    check(model, sequence, ranks, 5)
    text = b''.join(entries[0].text for entries in ranks).decode()
    assert sequence.text.startswith(text) and (text == sequence.text or wanted.kind == 'choice')


def test_texts_of_tokens_in_a_row_are_the_answer(engine):
    sequence, outputs = served(engine, PROMPT, 90, Sampling(temperature=2.0, seed=5, logprobs=1))
    data = b''.join(entries[0].text for entries in ranks_of(outputs)
                    if not entries[0].special)
    assert data.decode(errors='replace').rstrip('\ufffd') == sequence.text.rstrip('\ufffd')
    for output in outputs:   # none comes before its text
        assert not output.logprobs or output.text or output.finish_reason


def test_a_stop_text_takes_its_tokens_log_probabilities_along(word_engine):
    prompt = word_engine.encode_chat([('user', 'Count from one to ten in words.')])
    whole, plain = served(word_engine, prompt, 40)
    text = whole.text
    for stop in (text[9:14], text[20:22], text[5]):
        sequence, outputs = served(word_engine, prompt, 40, stop=(stop,))
        ranks = ranks_of(outputs)
        assert sequence.finish_reason == 'stop' and sequence.text == text.partition(stop)[0]
        kept = b''.join(entries[0].text for entries in ranks).decode()
        assert kept.startswith(sequence.text)
        # The last one has a part of its text before the stop.
        assert len(kept) - len(ranks[-1][0].text) < len(sequence.text)
        assert ranks == ranks_of(plain)[:len(ranks)]
        for output in outputs[:-1]:
            assert bool(output.logprobs) == bool(output.text)


def test_a_stop_token_has_none(engine, model, monkeypatch):
    free, _ = served(engine, PROMPT)
    end = free.tokens[len(PROMPT) + 6]
    monkeypatch.setattr(engine, '_stop_tokens', frozenset([end]))
    sequence, outputs = served(engine, PROMPT)
    assert sequence.finish_reason == 'stop'
    ranks = ranks_of(outputs)
    assert len(ranks) == sequence.generated - 1
    check(model, sequence, ranks, 5)


def test_right_guesses_have_theirs_too(word_engine):
    prompt = word_engine.encode_chat([('user', 'Repeat this text word by word: The delivery robot '
                                       'waits in the lobby until the lift is free.')])
    plain, expected = served(word_engine, prompt, 60)
    sequence, outputs = word_engine.open(prompt, 60, ASKS), []
    while not sequence.finish_reason:
        draft = word_engine.draft(sequence, MAX_DRAFT)
        launched = word_engine.launch([(sequence, sequence.pending)],
                                      {sequence: draft} if draft else {})
        outputs += word_engine.collect(launched).outputs
    word_engine.close(sequence)
    assert sequence.request.right > 3 and sequence.tokens == plain.tokens
    assert ranks_of(outputs) == ranks_of(expected)


def test_thoughts_have_none_and_the_answer_behind_them_all(tmp_path):
    engine = thinker(tmp_path, SWITCHED)
    for says, text in (('<think>\nA wall.\n</think>\n\nStop </thin> here.', 'Stop </thin> here.'),
                       ('<thin air>', '<thin air>'), ('No.', 'No.')):
        sequence = engine.open(engine.encode_chat([('user', 'Hm?')]), 60, ASKS)
        script = thinking(engine, says)
        script.logprobs = sequence.logprobs
        outputs = []
        while not script.finish_reason:
            outputs += engine.step([(script, script.pending)])
        engine.close(script)
        ranks = ranks_of(outputs)
        assert b''.join(entries[0].text for entries in ranks).decode() == script.text == text
        assert all(entries[0].logprob < 0 for entries in ranks)


def test_tokens_of_tool_calls_are_reported(word_engine):
    tool = Tool('stop', 'Stops the robot.')
    sequence, outputs = served(
        word_engine, word_engine.encode_chat([('user', 'Stop!')], (tool,)), 40, ASKS,
        ResponseFormat(tools=(tool,), tool_choice='required'))
    assert sequence.tool_calls and not sequence.text
    text = b''.join(entries[0].text for entries in ranks_of(outputs)).decode()
    assert '"stop"' in text


def test_transformers_models_have_them(tmp_path):
    made = tiny.save(tmp_path, tiny.gpt2())
    engine = load_engine(EngineConfig(str(tmp_path), weights='fp32', max_context=128, slots=4))
    assert engine.info.path == 'transformers'
    sequence, outputs = served(engine, PROMPT)
    check(made, sequence, ranks_of(outputs), 5)


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a CUDA device: none is visible to torch'))])
def test_the_device_ranks_as_the_host_does(device):
    logits = torch.randn(4, 3000, generator=torch.Generator().manual_seed(1)) * 3
    wanted, tokens = {0: 20, 2: 0, 3: 5}, [17, 0, 2999, 4]
    host = rank(logits.numpy(), wanted)(tokens)
    for found in (rank(logits, wanted)(tokens), rank_at_once(logits.to(device), wanted)(tokens)):
        assert list(found) == [0, 2, 3]
        for row, top in wanted.items():
            assert found[row].tokens == host[row].tokens and len(found[row].tokens) == 1 + top
            assert found[row].logprobs == pytest.approx(host[row].logprobs, abs=1e-4)
    assert rank_at_once(logits.to(device), {1: 0})(tokens)[1].logprobs == pytest.approx(
        rank(logits, {1: 0})(tokens)[1].logprobs, abs=1e-4)


def test_few_tokens_and_equal_logits_are_ranked():
    short = rank(np.zeros((1, 6), np.float32), {0: 20})([2])[0]
    assert short.tokens == [2, 0, 1, 2, 3, 4, 5]
    assert short.logprobs == pytest.approx([-np.log(6)] * 7)
    cold = rank(np.array([[0.0, -1e30, 3e4]], np.float32), {0: 2})([1])[0]
    assert cold.tokens == [1, 2, 0] and cold.logprobs[1] == 0


@pytest.mark.parametrize('top', [0, 1, 20])
def test_few_of_a_large_vocabulary_are_sorted(top, monkeypatch):
    """Sorting all takes a hundred times as long as the rest."""
    sizes, sort = [0], np.argsort
    monkeypatch.setattr(np, 'argsort', lambda values, **options: (
        sizes.append(len(values)) or sort(values, **options)))
    logits = np.random.default_rng(1).standard_normal((1, 49152)).astype(np.float32)
    assert len(rank(logits, {0: top})([5])[0].tokens) == 1 + top and max(sizes) < 500


def test_a_text_keeps_the_blank_before_it():
    texts = TokenTexts(FakeBlanks())
    assert texts.of(3) == (b' left', False) and texts.of(4) == ('é'.encode()[:1], False)
    assert texts.of(9) == (b'<end>', True)


class FakeBlanks:
    """A vocabulary whose decoder leaves out the blank in front of a text."""

    special = {9: '<end>'}
    names = {1: ' ', 2: ' a', 3: ' left'}

    def piece(self, token):
        return b'\xc3' if token == 4 else '' if token not in self.names else None

    def alone(self, token):
        return self.decode([token])

    def decode(self, tokens):
        return ''.join(self.names.get(token, '') for token in tokens).removeprefix(' ')


@pytest.mark.parametrize('value', [-1, 21, 10**9, True, 2.0, '3'])
def test_what_is_no_number_of_them_is_refused(value):
    with pytest.raises(ValueError, match='logprobs must be a whole number from 0 to 20'):
        Sampling(logprobs=value)
