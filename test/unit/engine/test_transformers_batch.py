# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Decodes of other families in one pass: any subset, any lengths; what cannot is found out."""

import random

import pytest
from slice_ros.engine import EngineConfig, load_engine, Sampling
from slice_ros.engine.kv import memory
from slice_ros.engine.runners import transformers
from slice_ros.engine.runners.runner import Segment
from slice_ros.errors import ModelError
import tiny
import torch


def loaded(path, family, **settings):
    model = tiny.save(path, tiny.OTHER[family]())
    return model, load_engine(EngineConfig(str(path), max_context=128, slots=4, weights='fp32',
                                           **settings))


@pytest.mark.parametrize('family', tiny.OTHER)
def test_any_subset_in_any_step_gives_the_text_of_each_alone(family, tmp_path):
    """Requests of many lengths, beyond the windows, each of which skips steps at random."""
    model, engine = loaded(tmp_path, family)
    chance = random.Random(1)
    prompts = [[chance.randrange(250) for _ in range(length)] for length in (2, 41, 7, 18)]
    live = [engine.open(prompt, 14, Sampling()) for prompt in prompts]
    while going := [sequence for sequence in live if not sequence.finish_reason]:
        some = chance.sample(going, chance.randint(1, len(going)))
        engine.step([(sequence, min(sequence.pending, 11)) for sequence in some])
    for prompt, sequence in zip(prompts, live):
        right = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)),
                               max_new_tokens=14, do_sample=False, pad_token_id=0)[0].tolist()
        assert sequence.tokens == right[:len(sequence.tokens)]
        assert len(sequence.tokens) == len(right) or sequence.finish_reason == 'stop'


def test_the_rows_of_a_step_are_one_pass(tmp_path, monkeypatch):
    """Unless their padding reads more than one more pass would."""
    _, engine = loaded(tmp_path, 'bamba')
    runner = engine._runner
    runner.forward([Segment(slot, 0, [1] * length, False)
                    for slot, length in enumerate((3, 60, 5, 50))])
    passes = []
    forward = runner._model.forward
    monkeypatch.setattr(runner._model, 'forward', lambda **given: passes.append(
        len(given['input_ids'])) or forward(**given))
    rows = [Segment(slot, length, [2], True) for slot, length in enumerate((3, 60, 5, 50))]
    assert runner.forward(rows).shape == (4, 320) and passes == [4]
    monkeypatch.setattr(runner, '_token_bytes', runner.info.weight_bytes / 50)
    rows = [row._replace(start=row.start + 1) for row in rows]
    passes.clear()
    runner.forward(rows)
    assert passes == [2, 2]   # 60 with 50, 5 with 3


@pytest.mark.parametrize('family', tiny.OTHER)
def test_a_step_can_be_fed_again(family, tmp_path):
    """As after a failure, and when steps are timed; windows are full by then."""
    _, engine = loaded(tmp_path, family)
    runner, prompt = engine._runner, [9, 8, 7] * 5
    runner.forward([Segment(slot, 0, prompt, False) for slot in (0, 1)])
    rows = [Segment(slot, len(prompt), [5], True) for slot in (0, 1)]
    first = runner.forward(rows)
    assert torch.equal(runner.forward(rows), first)
    assert torch.allclose(runner.forward(rows[:1])[0], first[0], atol=1e-4)
    chunk = Segment(0, len(prompt), [5, 6, 4], True)
    again = runner.forward([chunk])
    assert torch.equal(runner.forward([chunk]), again)


def test_a_model_with_a_state_outside_its_cache_is_refused(tmp_path):
    """Requests would mix without a word."""
    tiny.save(tmp_path, tiny.described('recurrent_gemma'))
    with pytest.raises(ModelError, match='requests would mix'):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=2))


def test_a_batch_that_computes_something_else_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.batches, 'mask', lambda lengths, device: torch.ones(
        len(lengths), max(lengths) + 1, dtype=torch.long, device=device))
    _, engine = loaded(tmp_path, 'gpt2')
    assert engine.info.kernels == 'transformers, one request after the other'


def test_keys_and_values_have_a_bound(tmp_path, monkeypatch):
    """That of the memory, as with the flat batch."""
    monkeypatch.setattr(memory, '_available_memory', lambda: 2_000_000)
    _, engine = loaded(tmp_path, 'gpt2')
    assert engine.info.kv_bytes <= 1_000_000
    assert engine.info.kv_tokens < 4 * 128
    monkeypatch.setattr(memory, '_available_memory', lambda: 300_000)
    with pytest.raises(ModelError, match='not enough memory'):
        loaded(tmp_path, 'gpt2')
