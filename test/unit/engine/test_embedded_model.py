# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded model, for real: its text is transformers' own, in any company."""

import json
from pathlib import Path
import random

import pytest
from slice_ros.engine import Sampling
from slice_ros.engine.runners.runner import Segment
import torch

REFERENCE = json.loads((Path(__file__).parent / 'data' / 'smollm2_greedy.json').read_text())
ROWS = REFERENCE['rows']
SAMPLED = Sampling(temperature=0.9, top_k=50, top_p=0.95, repetition_penalty=1.1, seed=42)


def finish(engine, *live):
    while todo := [(s, s.pending) for s in live if not s.finish_reason]:
        engine.step(todo)
    for sequence in live:
        engine.close(sequence)


def test_prompts_encode_as_in_transformers(embedded):
    for row in ROWS:
        encode = embedded.encode_chat if row['chat'] else embedded.encode
        assert encode([('user', row['text'])] if row['chat'] else row['text']) == row['prompt']


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['text'][:20])
def test_greedy_text_alone(embedded, row):
    sequence = embedded.open(row['prompt'], 48, Sampling())
    finish(embedded, sequence)
    assert sequence.tokens[sequence.prompt_tokens:] == row['tokens']
    assert sequence.text == row['answer']


def test_greedy_text_while_seven_others_come_and_go(embedded):
    """Others prefill in chunks, decode, pause, are evicted, and leave, all the time."""
    dice = random.Random(5)
    other_prompt = embedded.encode('The quick brown fox jumps over the lazy dog. ' * 4)
    main = [embedded.open(row['prompt'], 48, Sampling()) for row in ROWS]
    others = []
    while any(not s.finish_reason for s in main):
        ours = [s for s in main if not s.finish_reason]
        while len(others) < 7:
            cut = dice.randrange(3, len(other_prompt))
            sampling = dice.choice([Sampling(), Sampling(1.0, seed=dice.randrange(99))])
            others.append(embedded.open(other_prompt[:cut], dice.randrange(1, 9), sampling))
        work = [(s, s.pending) for s in ours]
        work += [(s, dice.randint(1, s.pending)) for s in others if dice.random() < 0.6]
        dice.shuffle(work)
        embedded.step(work)
        for s in list(others):
            if s.finish_reason or dice.random() < 0.05:
                embedded.close(s)
                others.remove(s)
            elif dice.random() < 0.05:
                embedded.evict(s)
        for s in main:
            if s.finish_reason:
                embedded.close(s)
    for s in others:
        embedded.close(s)
    for row, sequence in zip(ROWS, main):
        assert sequence.tokens[sequence.prompt_tokens:] == row['tokens']


def test_an_evicted_request_goes_on_with_the_same_text(embedded):
    sequence = embedded.open(ROWS[1]['prompt'], 24, Sampling())
    for at in range(24):
        if at == 11:
            embedded.evict(sequence)
            assert sequence.pending == sequence.prompt_tokens + 11
            embedded.step([(sequence, 20)])
        embedded.step([(sequence, sequence.pending)])
    embedded.close(sequence)
    assert sequence.tokens[sequence.prompt_tokens:] == ROWS[1]['tokens'][:24]


def test_a_seed_gives_the_same_text_in_company(embedded):
    alone = embedded.open(ROWS[2]['prompt'], 16, SAMPLED)
    finish(embedded, alone)
    again = embedded.open(ROWS[2]['prompt'], 16, SAMPLED)
    other = Sampling(temperature=0.9, top_k=50, top_p=0.95, repetition_penalty=1.1, seed=43)
    company = [embedded.open(row['prompt'], 16, other) for row in ROWS]
    finish(embedded, *company, again)
    assert again.text == alone.text
    assert company[2].text != alone.text


def test_logits_are_the_same_bits_in_company_and_close_in_chunks(embedded):
    if embedded.info.weights != 'fp16':
        pytest.skip(f'weights are {embedded.info.weights} here: only fp16 is bitwise invariant')
    prompt = ROWS[0]['prompt']
    others = [embedded.open(row['prompt'], 4, Sampling()) for row in ROWS]
    embedded.step([(s, s.pending) for s in others])
    slot = embedded._slots.take()
    embedded._slots.reserve([(slot, len(prompt))])

    def run(segments):
        return torch.as_tensor(embedded._runner.forward(segments)).clone()  # overwritten next
    alone = run([Segment(slot, 0, prompt, True)])[0]
    company = [Segment(s.slot, s.cached, s.tokens[-1:], True) for s in others]
    assert torch.equal(run([*company, Segment(slot, 0, prompt, True)])[-1], alone)
    for start in range(0, len(prompt), 13):
        chunked = run([Segment(slot, start, prompt[start:start + 13], True)])[0]
    if 'native' in embedded.info.kernels:
        assert torch.equal(chunked, alone)
    assert (chunked - alone).abs().max() < 1e-3
    embedded._slots.give(slot)
    for s in others:
        embedded.close(s)
