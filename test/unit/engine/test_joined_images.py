# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Images whose rows attend to each other (Gemma 3): whole in a step, whatever a policy plans."""

import json
from queue import Queue

from conftest import use_kernels
import numpy as np
import pytest
from slice_ros.engine import EngineConfig, load_engine, Message, Sampling
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.runners.native.model import MAX_ROWS
from slice_ros.engine.vision.image_tokens import (
    images_of, joined_spans, last_seen, row_ids, SeenImage, whole_chunk)
from slice_ros.engine.vision.vision_families import MOST_JOINED
from slice_ros.errors import ModelError
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Server, ServerConfig
from slice_ros.slo import SloClass
import tiny_vision

TOKENS = 12
SPANS = ((10, 26), (30, 46))


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp('gemma3')
    tiny_vision.save(path, 'gemma3')
    return path


@pytest.fixture(scope='module', params=['native', 'torch'])
def engine(request, directory):
    with pytest.MonkeyPatch.context() as patch:
        use_kernels(patch, request.param)
        return load_engine(EngineConfig(str(directory), weights='fp32', max_context=320, slots=4))


def prompt(engine, *seeds, before=()):
    seen = engine.vision.seen([*before, Message(
        'user', 'What is it?', images=tuple(tiny_vision.picture(seed) for seed in seeds))])
    return engine.encode_chat(seen), images_of(seen)


def opened(engine, *seeds, **options):
    tokens, images = prompt(engine, *seeds, **options)
    return engine.open(tokens, TOKENS, Sampling(), images=images)


def forget(engine):
    """Give up all kept prefixes."""
    for slot in list(engine._slots._kept):
        del engine._slots._kept[slot]
        engine._slots.give(slot)


def run(engine, sequence, chunk=1000):
    """Return the answer of a sequence, and how many tokens each step has fed."""
    fed = []
    while not sequence.finish_reason:
        fed.append(sequence.chunk(min(sequence.pending, chunk)))
        engine.step([(sequence, fed[-1])])
    engine.close(sequence)
    return sequence.tokens[sequence.prompt_tokens:], fed


def test_a_chunk_ends_in_front_of_an_image_or_behind_the_one_it_begins_with():
    assert [whole_chunk(SPANS, 0, n) for n in (9, 10, 11, 25, 26, 27)] == [9, 10, 10, 10, 26, 27]
    assert [whole_chunk(SPANS, 10, n) for n in (1, 15, 16, 17, 21, 36)] == [16, 16, 16, 17, 20, 36]
    assert whole_chunk(SPANS, 29, 5) == 1 and whole_chunk(SPANS, 46, 5) == 5
    assert whole_chunk((), 3, 7) == 7


def test_the_rows_of_an_image_see_its_last_and_others_themselves():
    assert last_seen(SPANS, 0, 10) is None and last_seen(SPANS, 26, 4) is None
    seen = last_seen(SPANS, 8, 22)
    assert seen.tolist() == [8, 9, *[25] * 16, 26, 27, 28, 29] and seen.dtype == np.int32
    assert last_seen(SPANS, 30, 18).tolist() == [*[45] * 16, 46, 47]


def test_only_images_that_are_joined_have_to_be_whole():
    images = [SeenImage(1, (), np.zeros((4, 2)), joined=True), SeenImage(2, (), np.zeros((3, 2)))]
    tokens = [7, *row_ids(1, 4), *row_ids(1, 4), 7, *row_ids(2, 3), *row_ids(1, 4)]
    assert joined_spans(tokens, {image.key: image for image in images}) == (
        (1, 5), (5, 9), (13, 17))


def test_chunks_and_images_in_any_order_give_the_same_answer(engine):
    wanted, whole = run(engine, opened(engine, 1, 2))
    assert whole[0] == opened(engine, 1, 2).prompt_tokens
    for chunk in (1, 7, 16, 40):
        forget(engine)
        sequence = opened(engine, 1, 2)
        first, second = (end - begin for begin, end in sequence.joined)
        answer, fed = run(engine, sequence, chunk)
        assert answer == wanted and max(fed) == max(chunk, first, second)
    assert run(engine, opened(engine, 2, 1))[0] != wanted


def test_a_part_of_an_image_cannot_be_fed(engine):
    sequence = opened(engine, 1)
    (begin, end), = sequence.joined
    for tokens in (begin + 1, end - 1):
        with pytest.raises(ValueError, match='a part of an image'):
            engine.step([(sequence, tokens)])
    engine.step([(sequence, begin)])
    with pytest.raises(ValueError, match='a part of an image'):
        engine.step([(sequence, 3)])
    engine.close(sequence)


@pytest.mark.parametrize('inside', [1, 15])
def test_a_prefix_that_ends_in_an_image_is_adopted_up_to_it(engine, monkeypatch, inside):
    """No step leaves such a prefix: whatever finds one, a part of an image is not taken over."""
    long = Message('system', 'Answer in one word, as a robot would. ' * 2)
    wanted, _ = run(engine, opened(engine, 3, before=(long,)))
    forget(engine)
    first, behind = (opened(engine, 3, before=(long,)) for _ in range(2))
    begin, end = first.joined[0]
    assert begin > PAGE_TOKENS
    engine.step([(first, first.prompt_tokens)])
    monkeypatch.setattr(engine._slots, 'longest_prefix',
                        lambda *_: (first.slot, begin + inside))
    assert engine.adopt(behind) == begin
    monkeypatch.undo()
    assert run(engine, behind)[0] == wanted
    engine.close(first)


@pytest.mark.parametrize('inside', [1, 15])
def test_a_prefix_of_less_than_a_page_before_an_image_is_not_adopted(engine, monkeypatch, inside):
    first, behind = (opened(engine, 3) for _ in range(2))
    begin, end = first.joined[0]
    engine.step([(first, first.prompt_tokens)])
    monkeypatch.setattr(engine._slots, 'longest_prefix',
                        lambda *_: (first.slot, begin + inside))
    assert begin < PAGE_TOKENS and engine.adopt(behind) == 0
    engine.close(first)


@pytest.mark.parametrize('policy', ['slice', 'sarathi', 'orca'])
def test_every_policy_serves_them_in_chunks_that_are_shorter(engine, policy):
    wanted, _ = run(engine, opened(engine, 4, 5))
    forget(engine)
    server = Server(engine, LatencyModel('test', ((1, 1.0), (4, 2.0)), prefill_token_ms=0.1),
                    ServerConfig(policy=policy, prefill_chunk=5))
    server.start()
    ends, texts = Queue(), {}

    def output(name):
        def deliver(delivery):
            texts[name] = texts.get(name, '') + delivery.text
            if delivery.finish_reason:
                ends.put((name, delivery.error))
        return deliver
    slo = SloClass('any', ttft_ms=5000.0, tpot_ms=500.0)
    for name, seeds in (('a', (4, 5)), ('b', (6,)), ('c', (4, 5))):
        tokens, images = prompt(engine, *seeds)
        server.submit(slo, tokens, TOKENS, Sampling(), output(name), images=images)
    for _ in range(3):
        assert not ends.get(timeout=60)[1]
    assert server.stop()
    same = engine.open(prompt(engine, 4, 5)[0], TOKENS, Sampling(), images=prompt(
        engine, 4, 5)[1])
    assert run(engine, same)[0] == wanted
    assert texts['a'] == texts['c'] == same.text != texts['b']


def test_the_room_for_a_longer_chunk_is_not_planned_with(engine):
    assert engine.vision.joined_tokens == 16
    assert (engine.info.kv_tokens + 16) % PAGE_TOKENS == 0


def test_an_image_that_no_pass_takes_is_refused_when_the_model_is_loaded(
        directory, monkeypatch):
    monkeypatch.setattr('slice_ros.engine.vision.vision_families.MOST_JOINED', 15)
    with pytest.raises(ModelError, match='16 tokens that attend to each other, and 15 are'):
        load_engine(EngineConfig(str(directory), max_context=64, slots=2))
    assert MOST_JOINED <= MAX_ROWS


@pytest.mark.parametrize('tokens', [9, 0, -4, 10 ** 9, 'many'])
def test_a_hostile_number_of_tokens_is_refused_when_the_model_is_loaded(tokens, tmp_path):
    tiny_vision.save(tmp_path, 'gemma3')
    file = tmp_path / 'config.json'
    config = json.loads(file.read_text()) | {'mm_tokens_per_image': tokens}
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=2))
