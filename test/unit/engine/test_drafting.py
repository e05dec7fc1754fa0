# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Guesses of a draft model save steps; every answer stays what it is without them."""

from collections import Counter
import math
import shutil

from conftest import NATIVE, use_kernels
import numpy as np
import pytest
from slice_ros.engine import EngineConfig, load_engine, ResponseFormat, Sampling
from slice_ros.engine.drafting.lookups import in_format, room_for_guesses
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.runners.runner import Segment
from slice_ros.errors import ModelError
from slice_ros.scheduling.draft_trials import Ask, CATCH_UP
from slice_ros.scheduling.latency import LatencyModel
import tiny
import torch

pytestmark = pytest.mark.skipif(NATIVE is None, reason='guesses need the native kernels')
GREEDY = Sampling()
SAMPLINGS = [GREEDY, Sampling(temperature=0.7, seed=7), Sampling(temperature=1.0, seed=3, top_k=5),
             Sampling(temperature=0.5, seed=2, top_p=0.9, repetition_penalty=1.1),
             Sampling(repetition_penalty=1.05), Sampling(logprobs=2, temperature=0.4, seed=1)]
PROMPT = [17, 42, 99, 3, 250, 8, 77, 31, 64, 5]
MOST = 5   # guesses of a step


@pytest.fixture(scope='module')
def directories(tmp_path_factory):
    """Return directories of a model, of one that is often wrong, and of one that always is."""
    path = tmp_path_factory.mktemp('pairs')
    model = tiny.save(path / 'model', tiny.llama())
    near = tiny.save(path / 'near', tiny.llama())
    torch.manual_seed(1)
    near.load_state_dict(model.state_dict())
    for parameter in near.parameters():
        parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
    near.save_pretrained(path / 'near')
    other = tiny.save(path / 'other', tiny.qwen2(num_hidden_layers=1))
    for parameter in other.parameters():
        parameter.data = torch.randn_like(parameter)
    other.save_pretrained(path / 'other')
    return {name: str(path / name) for name in ('model', 'near', 'other')}


def load(directories, draft, **changes):
    """Return an engine with a draft model, whose times are made up."""
    engine = load_engine(EngineConfig(**{
        'model': directories['model'], 'weights': 'fp32', 'max_context': 192, 'slots': 6,
        'threads': 1, 'draft_weights': 'fp32', 'draft_model': directories[draft]} | changes))
    engine.draft_model.latency = LatencyModel('made', ((1, 1.0),), prefill_token_ms=0.1)
    return engine


@pytest.fixture(scope='module', params=['model', 'near', 'other'])
def engine(request, directories):
    """Return an engine whose draft model is always right, often, or never."""
    found = load(directories, request.param)
    found.kind = request.param
    return found


@pytest.fixture
def right(directories):
    """Return an engine whose draft model is the model itself."""
    return load(directories, 'model')


def step(engine, sequences, most=MOST):
    """Run one step of some sequences, with the guesses of the draft model."""
    live = [s for s in sequences if not s.finish_reason]
    asked = {}
    for sequence in live if most else ():
        offer = engine.draft_model.offer(sequence, most)
        if offer is not None:
            feed = min(offer.behind, CATCH_UP)
            asked[sequence.request] = Ask(feed, offer.most if feed == offer.behind else 0)
    found = engine.draft_model.guess(asked) if asked else {}
    drafts = {s: found[s.request] for s in live if found.get(s.request)}
    return engine.collect(engine.launch([(s, s.pending) for s in live], drafts)).outputs


def finish(engine, sequences, most=MOST):
    """Run sequences to their ends; return what each is, token by token, and the steps."""
    outputs, steps = {s: [] for s in sequences}, 0
    while not all(s.finish_reason for s in sequences):
        for o in step(engine, sequences, most):
            outputs[o.sequence].append((o.token, o.number, o.text, o.finish_reason, o.logprobs))
        steps += 1
    for sequence in sequences:
        engine.close(sequence)
    return list(outputs.values()), steps


def alone(engine, sampling=GREEDY, max_tokens=60, prompt=PROMPT, most=MOST, **more):
    (tokens,), steps = finish(engine, [engine.open(prompt, max_tokens, sampling, **more)], most)
    return tokens, steps


@pytest.mark.parametrize('sampling', SAMPLINGS, ids=range(len(SAMPLINGS)))
def test_every_token_is_that_of_a_step_of_its_own(engine, sampling):
    plain, steps = alone(engine, sampling, most=0)
    guessed, fewer = alone(engine, sampling)
    assert guessed == plain and steps == len(plain)
    if engine.kind == 'model' and sampling is GREEDY:
        assert fewer < 0.35 * steps
    elif engine.kind == 'near' and sampling is GREEDY:
        assert fewer < steps


def test_company_changes_nothing_and_is_not_changed(engine):
    prompts = [PROMPT[:n] + list(range(n)) for n in (1, 5, 40, 90)]
    plain = [alone(engine, s, 40, p, most=0)[0] for p, s in zip(prompts, SAMPLINGS)]
    together = [engine.open(p, 40, s) for p, s in zip(prompts, SAMPLINGS)]
    assert finish(engine, together)[0] == plain


def probabilities(engine, tokens, top):
    """Return the `top` likeliest tokens behind some others, and their shares."""
    slot = engine._slots.take()
    engine._slots.reserve([(slot, len(tokens))])
    logits = engine._runner.forward([Segment(slot, 0, tokens, True)])[0].astype(np.float64)
    engine._slots.give(slot)
    best = np.argsort(-logits)[:top]
    shares = np.exp(logits[best] - logits[best].max())
    return zip(best.tolist(), (shares / shares.sum()).tolist())


@pytest.mark.parametrize('draft', ['model', 'near'])
def test_sampled_answers_have_the_probabilities_of_the_model(directories, draft):
    """Sample three tokens with many seeds; compare with the softmax of the model's logits."""
    engine, top, seeds = load(directories, draft), 3, 1000
    expected = {(): 1.0}
    for _ in range(3):
        expected = {(*before, token): share * more for before, share in expected.items()
                    for token, more in probabilities(engine, [*PROMPT, *before], top)}
    seen, right = Counter(), 0
    for seed in range(seeds):
        sequence = engine.open(PROMPT, 3, Sampling(temperature=1.0, top_k=top, seed=seed))
        finish(engine, [sequence])
        seen[tuple(sequence.tokens[len(PROMPT):])] += 1
        right += sequence.request.right
    assert sum(expected.values()) == pytest.approx(1) and set(seen) <= set(expected)
    assert right > (0.2 * seeds if draft == 'model' else 0)
    chi = sum((seen[outcome] - seeds * share) ** 2 / (seeds * share)
              for outcome, share in expected.items())
    freedom = len(expected) - 1
    assert freedom == top ** 3 - 1
    assert chi < freedom + 4 * math.sqrt(2 * freedom)


FORMATS = [
    ResponseFormat('regex', (), '[a-z]{3,9}(, [a-z]{3,9}){2,6} then [0-9]+!'),
    ResponseFormat('choice', ('turn left', 'turn right', 'go on')),
    ResponseFormat('json_schema', (), '{"type": "object", "properties": {"speed": {"type": '
                   '"integer"}, "path": {"enum": ["a/b/c", "a/b/d", "e"]}}, "required": '
                   '["speed", "path"]}')]


@pytest.mark.parametrize('sampling', [*SAMPLINGS[:4], SAMPLINGS[-1]], ids=range(5))
@pytest.mark.parametrize('form', FORMATS, ids=lambda form: form.kind)
def test_structured_answers_are_what_they_are_without_guesses(right, form, sampling):
    """Feed what will come, and in turns a wrong token in it: all that the format allows."""
    plain, steps = alone(right, sampling, most=0, response_format=form)
    assert alone(right, sampling, response_format=form)[0] == plain
    sequence, outputs, fed = right.open(PROMPT, 60, sampling, response_format=form), [], 0
    while not sequence.finish_reason:
        guesses = [token for token, *_ in plain[len(outputs):][:4]]
        if len(outputs) % 3 == 2 and len(guesses) > 1:
            guesses[1] = next(t for t in range(97, 123) if t != guesses[1])
        draft = in_format(sequence, guesses) if outputs else []
        draft = draft[:room_for_guesses(right.info, sequence, 4)] if outputs else []
        fed += len(draft)
        outputs += right.collect(right.launch(
            [(sequence, sequence.pending)], {sequence: draft} if draft else {})).outputs
    right.close(sequence)
    assert [(o.token, o.number, o.text, o.finish_reason, o.logprobs) for o in outputs] == plain
    request = sequence.request
    assert request.drafted == fed and request.right <= request.guesses <= fed
    assert request.right > 0 or form.kind == 'choice'   # all of which is forced


def test_evicted_answers_go_on_as_they_would_have(engine):
    plain, _ = alone(engine, most=0)
    sequence, tokens = engine.open(PROMPT, 60, GREEDY), []
    while not sequence.finish_reason:
        tokens += [o.token for o in step(engine, [sequence])]
        if len(tokens) % 3 == 0 and not sequence.finish_reason:
            engine.evict(sequence)
            engine.adopt(sequence)
    engine.close(sequence)
    assert tokens == [token for token, *_ in plain]


def test_one_that_ends_in_between_leaves_the_others_alone(engine):
    plain, _ = alone(engine, most=0)
    going, ended = engine.open(PROMPT, 60, GREEDY), engine.open(PROMPT[2:], 60, GREEDY)
    tokens = []
    while not going.finish_reason:
        tokens += [o.token for o in step(engine, [going, ended]) if o.sequence is going]
        if len(tokens) > 9 and not ended.finish_reason:
            engine.close(ended)   # as when it is cancelled
            ended.finish_reason = 'cancelled'
            assert ended.request not in engine.draft_model._lanes
    engine.close(going)
    assert tokens == [token for token, *_ in plain]
    assert not engine.draft_model._lanes


def test_ends_are_where_they_were(engine):
    plain, _ = alone(engine, most=0)
    text = ''.join(piece for _, _, piece, *_ in plain)
    for stop in (text[20:22], text[7:8], text[33:37]):
        wanted, _ = alone(engine, most=0, stop=(stop,))
        assert alone(engine, stop=(stop,))[0] == wanted
    for limit in (1, 2, 3, 7, 8):
        wanted, _ = alone(engine, max_tokens=limit, most=0)
        assert alone(engine, max_tokens=limit)[0] == wanted and len(wanted) == limit
    prompt = list(range(engine.info.max_context - 20))
    wanted, _ = alone(engine, prompt=prompt, max_tokens=100, most=0)
    assert alone(engine, prompt=prompt, max_tokens=100)[0] == wanted
    assert wanted[-1][3] == 'length'


def test_a_long_prompt_is_read_in_chunks_and_its_beginning_by_others_too(right):
    prompt = list(range(150))
    sequence = right.open(prompt, 9, GREEDY)
    step(right, [sequence])
    behind = []
    for _ in range(3):
        behind.append(right.draft_model.offer(sequence, MOST).behind)
        step(right, [sequence])
    assert behind == [151, 152 - CATCH_UP, 153 - 2 * CATCH_UP]
    # Several answers to one prompt, and what continues it, begin where it was read to.
    other, later = right.open(prompt, 9, Sampling(seed=1, temperature=1.0)), None
    step(right, [other])
    assert right.draft_model.offer(other, MOST).behind <= 1 + PAGE_TOKENS
    finish(right, [sequence, other])
    later = right.open([*sequence.tokens, 4, 5], 9, GREEDY)
    step(right, [later])
    assert right.draft_model.offer(later, MOST).cached >= 150
    right.close(later)


def test_right_guesses_are_not_read_again_and_wrong_ones_are(engine):
    sequence, lags = engine.open(PROMPT, 40, GREEDY), []
    step(engine, [sequence])
    step(engine, [sequence])
    while not sequence.finish_reason:
        offer = engine.draft_model.offer(sequence, MOST)
        if offer is not None:
            assert offer.cached + offer.behind == len(sequence.tokens)
            lags.append(offer.behind)
        step(engine, [sequence])
    engine.close(sequence)
    assert max(lags) <= 3   # steps at the end of a page have no guesses
    if engine.kind == 'model':
        assert 2 in lags


def test_a_fault_switches_the_draft_model_off_and_ends_nothing(directories, caplog):
    engine = load(directories, 'model')
    plain, _ = alone(engine, most=0)
    sequence, tokens = engine.open(PROMPT, 60, GREEDY), []
    tokens += [o.token for _ in range(3) for o in step(engine, [sequence])]

    def broken(segments):
        raise RuntimeError('out of order')
    engine.draft_model._runner.greedy = broken
    while not sequence.finish_reason:
        tokens += [o.token for o in step(engine, [sequence])]
    engine.close(sequence)
    assert tokens == [token for token, *_ in plain]
    assert [r.message for r in caplog.records if 'out of order' in r.message] == [
        f'the draft model {engine.draft_model.info.model} failed (RuntimeError: out of order): '
        'answers go on without its guesses until the model is loaded again']
    assert engine.draft_model._runner is None   # its memory is free
    assert engine.draft_model.guesses_for(None, MOST) is None
    assert alone(engine)[0] == plain


def test_without_room_a_sequence_has_no_guesses(right):
    model = right.draft_model
    plain, _ = alone(right, most=0)
    free = model._slots._free_pages
    kept, free[:] = free[:], free[:1]
    try:
        sequences = [right.open(PROMPT, 60, GREEDY), right.open(PROMPT, 60, GREEDY)]
        for guessed in finish(right, sequences)[0]:
            assert guessed == plain
        assert sum(s.request.guesses == 0 for s in sequences) == 1
        assert not model._lanes and not model._without
    finally:
        free[:] = kept
    taken = [model._slots.take() for _ in range(model._slots.free)]
    assert alone(right)[0] == plain
    for slot in taken:
        model._slots.give(slot)


def test_before_it_is_measured_it_offers_nothing_and_profile_measures_it(right, tmp_path,
                                                                         monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    model = right.draft_model
    model.latency = None
    assert model.guesses_for(None, MOST) is None
    right.profile()
    assert model.latency.decode(1) > 0 and model.guesses_for(None, MOST) is not None


def test_what_it_takes_is_learnt(right):
    model = right.draft_model
    before = model.latency.decode_ms
    alone(right)
    spent = model.take_spent()
    assert spent.took > 0 and spent.predicted > 0
    assert model.take_spent().took == 0
    assert model.latency.decode_ms != before


def test_its_memory_is_counted(right, directories):
    one = load_engine(EngineConfig(directories['model'], weights='fp32', max_context=192, slots=6))
    assert right.info.draft_model == right.draft_model.info.model
    assert right.info.weight_bytes == one.info.weight_bytes + right.draft_model.info.weight_bytes
    assert right.info.kv_bytes == one.info.kv_bytes + right.draft_model.info.kv_bytes


def test_a_draft_model_that_is_not_there_is_refused(directories):
    with pytest.raises(ModelError, match='engine.draft_model: no/where does not exist'):
        load(directories, 'near', draft_model='no/where')


def test_another_vocabulary_is_refused(directories):
    with pytest.raises(ModelError, match='another vocabulary than .*: token [0-9]+ is .*, not '):
        load(directories, 'near', model='', weights='int4')


def test_a_damaged_draft_model_is_refused(directories, tmp_path):
    broken = tmp_path / 'broken'
    shutil.copytree(directories['near'], broken)
    weights = broken / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match='engine.draft_model: '):
        load(directories, 'near', draft_model=str(broken))


def test_recurrent_models_and_other_runners_have_no_draft_model(directories, tmp_path,
                                                                monkeypatch):
    tiny.save(tmp_path, tiny.RECURRENT['lfm2']())
    with pytest.raises(ModelError, match='recurrent'):
        load(directories, 'near', draft_model=str(tmp_path))
    with pytest.raises(ModelError, match='guesses need attention alone.*leave engine.draft_model'):
        load(directories, 'near', model=str(tmp_path))
    use_kernels(monkeypatch, 'torch')
    with pytest.raises(ModelError, match='guesses need attention alone.*leave engine.draft_model'):
        load(directories, 'near')
    with pytest.raises(ValueError, match='draft_model needs the backend native'):
        EngineConfig(directories['model'], backend='vllm', draft_model=directories['near'])
