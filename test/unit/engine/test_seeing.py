# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Answers about images against transformers' own, and what is computed once."""

import json
from pathlib import Path

from conftest import KERNELS, use_kernels
import numpy as np
import pytest
from slice_ros.engine import EngineConfig, load_engine, Message, Sampling
from slice_ros.engine.runners.runner import Segment
from slice_ros.engine.sequence import segment_of
from slice_ros.engine.vision.image_tokens import (
    images_of, placed_images, rope_positions, row_ids, SeenImage)
from slice_ros.engine.vision.vision_families import VISION_FAMILIES
from slice_ros.errors import ErrorCode, ModelError, RequestError
import tiny_vision
import torch

NAMES = list(tiny_vision.FAMILIES)
TOKENS = 24
DOCS = Path(__file__).parents[3] / 'docs' / 'images.md'


# Their layers run on the native kernels alone.
RECURRENT = ('qwen3_5', 'qwen3_5_moe')
CASES = [(name, kernels) for name in NAMES for kernels in KERNELS
         if name not in RECURRENT or kernels == 'native']


@pytest.fixture(scope='module', params=CASES, ids=' '.join)
def case(request):
    return request.param


@pytest.fixture(scope='module')
def name(case):
    return case[0]


@pytest.fixture(scope='module')
def directory(name, tmp_path_factory):
    path = tmp_path_factory.mktemp(name)
    return path, tiny_vision.save(path, name)


@pytest.fixture(scope='module')
def engine(case, directory):
    with pytest.MonkeyPatch.context() as patch:
        use_kernels(patch, case[1])
        return load_engine(EngineConfig(str(directory[0]), weights='fp32', max_context=320,
                                        slots=4))


def opened(engine, messages, tokens=TOKENS):
    """Return a sequence that answers messages with pictures."""
    seen = engine.vision.seen([Message(*m) for m in messages])
    return engine.open(engine.encode_chat(seen), tokens, Sampling(), images=images_of(seen))


def run(engine, *live, chunk=23):
    """Feed sequences together, in chunks, until all have ended, and return their answers."""
    while todo := [(s, s.chunk(min(s.pending, chunk))) for s in live if not s.finish_reason]:
        engine.step(todo)
    for sequence in live:
        engine.close(sequence)
    return [s.tokens[s.prompt_tokens:] for s in live]


def asked(text, *pictures):
    return Message('user', text, images=pictures)


def asked_text(name, messages):
    """Return what the chat template makes of messages."""
    image = tiny_vision.place(name)
    return ''.join(f'<|im_start|>{m.role}\n{image * len(m.images)}{m.content}<|im_end|>\n'
                   for m in messages) + '<|im_start|>assistant\n'


def expected(name, model, messages):
    """Return the ids of a prompt and of its greedy answer, as transformers has them."""
    inputs = tiny_vision.inputs(name, asked_text(name, messages),
                                [picture.pixels for picture in images_of(messages)])
    out = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0].tolist()
    count = inputs['input_ids'].shape[1]
    return out[:count], out[count:]


def test_greedy_text_is_that_of_transformers(name, directory, engine):
    """Alone and in company of text, in chunks, with one image, two, and none."""
    _, model = directory
    square, wide, high = (tiny_vision.picture(n, *size) for n, size in enumerate(
        ((40, 40), (30, 90), (64, 31))))
    chats = [[asked('What is it?', square)], [asked('And this?', wide)], [asked('Hello')],
             [asked('One.', high), Message('assistant', 'Well.'), asked('Two?', square)]]
    for chat in chats:
        sequence = opened(engine, chat)
        prompt, answer = expected(name, model, chat)
        image = tiny_vision.image_token(name)
        plain = [token if token < 320 else image for token in sequence.tokens]
        assert plain == prompt
        assert run(engine, sequence) == [answer]
    live = [opened(engine, chat) for chat in chats]
    assert run(engine, *live) == [expected(name, model, chat)[1] for chat in chats]
    assert len({tuple(s.tokens[s.prompt_tokens:]) for s in live}) == len(chats)


def test_logits_behind_images_are_those_of_transformers(name, directory, engine):
    _, model = directory
    chat = [asked('One.', tiny_vision.picture(18, 64, 31)), Message('assistant', 'Well.'),
            asked('Two?', tiny_vision.picture(19, 30, 90))]
    sequence = opened(engine, chat)
    sequence.slot = engine._slots.take()
    engine._slots.reserve([(sequence.slot, sequence.pending)])
    got = torch.as_tensor(engine._runner.forward([segment_of(sequence, sequence.pending)]))[0]
    engine._slots.give(sequence.slot)
    with torch.no_grad():
        want = model(**tiny_vision.inputs(
            name, asked_text(name, chat), [p.pixels for p in images_of(chat)])).logits[0, -1]
    assert (got - want).abs().max() < 2e-4 * want.abs().max()


def test_a_second_question_about_an_image_encodes_nothing_and_shares_its_prefix(name, engine):
    picture = tiny_vision.picture(3, 60, 60)
    first = opened(engine, [asked('What is it?', picture)])
    answer, = run(engine, first)
    encoded = engine.vision.encoded
    # The same pixels, in another object.
    again = opened(engine, [asked('What is it?', tiny_vision.picture(3, 60, 60))])
    assert engine.vision.encoded == encoded
    # States of recurrent layers are those of a whole prompt, and are kept for sessions.
    assert engine.adopt(again) == (
        0 if name in RECURRENT else len(again.tokens) - 1)
    assert run(engine, again) == [answer]
    other = opened(engine, [asked('What is it?', tiny_vision.picture(4, 60, 60))])
    assert engine.adopt(other) == 0 and engine.vision.encoded == encoded + 1
    assert run(engine, other) != [answer]


def test_an_evicted_sequence_feeds_its_image_again(engine):
    sequence = opened(engine, [asked('What is it?', tiny_vision.picture(5))])
    alone = opened(engine, [asked('What is it?', tiny_vision.picture(5))])
    wanted = run(engine, alone)
    engine.step([(sequence, sequence.pending)])
    engine.evict(sequence)
    engine.vision._kept.clear()   # it has its own rows
    for slot in list(engine._slots._kept):
        del engine._slots._kept[slot]
        engine._slots.give(slot)
    assert run(engine, sequence) == wanted


def test_a_turn_goes_on_behind_the_image_of_an_earlier_one(name, engine):
    chat = engine.vision.seen([asked('What is it?', tiny_vision.picture(6))])
    tokens = engine.encode_chat(chat)
    answer = [*engine.encode('a thing'), 258]
    said = Message('assistant', 'a thing')
    more = engine.vision.seen([asked('Really?', tiny_vision.picture(7))])
    extended = engine.extend_chat([*tokens, *answer], len(tokens), [*chat, said], more)
    assert extended == engine.encode_chat([*chat, said, *more])
    assert extended[:len(tokens)] == tokens


def seconds_of(engine, images):
    return engine.vision.queue.seconds_until(images, lambda left: ())


def test_what_an_image_costs_is_known_before_it_is_encoded(engine):
    messages = [asked('What is it?', tiny_vision.picture(8), tiny_vision.picture(9, 64, 64))]
    encoded = engine.vision.encoded
    glanced = engine.vision.glanced(messages)
    assert engine.vision.encoded == encoded and 0 < seconds_of(engine, images_of(glanced)) < 60
    twice = engine.vision.glanced([*messages, *messages])
    assert seconds_of(engine, images_of(twice)) == seconds_of(engine, images_of(glanced))
    assert engine.encode_chat(glanced) == engine.encode_chat(engine.vision.seen(messages))
    assert seconds_of(engine, images_of(engine.vision.glanced(messages))) == 0


def test_a_time_that_has_kept_images_from_being_encoded_is_believed_less(engine):
    images = images_of(engine.vision.glanced([asked('What?', tiny_vision.picture(14))]))
    before = seconds_of(engine, images)
    for _ in range(44):
        engine.vision.doubt()
    assert 0 < seconds_of(engine, images) < before / 100


def test_few_rows_of_images_are_kept(engine, monkeypatch):
    first = engine.vision.see(tiny_vision.picture(10))
    monkeypatch.setattr('slice_ros.engine.vision.vision_encoder.KEPT_BYTES',
                        2 * first.rows.nbytes)
    for seed in (11, 10, 12):   # the first is used again
        engine.vision.see(tiny_vision.picture(seed))
    kept = {tiny_vision.picture(seed).key for seed in (10, 12)}
    assert set(engine.vision._kept) == kept


def test_words_of_a_caller_are_no_image(name, engine):
    word = tiny_vision.place(name)
    with_words = opened(engine, [asked(f'{word} is a word', tiny_vision.picture(13))])
    images = {token for token in with_words.tokens if token >= 1 << 31}
    assert len(images) == len(engine.vision.see(tiny_vision.picture(13)).rows)
    assert tiny_vision.image_token(name) not in with_words.tokens
    opened(engine, [asked(word)])


def test_an_image_of_more_tokens_than_the_context_is_refused_unencoded(engine, monkeypatch):
    encoded = engine.vision.encoded
    monkeypatch.setattr(engine.vision, '_most', 3)
    for look in (engine.vision.see, engine.vision.glance):
        with pytest.raises(RequestError, match='and the context has 3: send a smaller') as error:
            look(tiny_vision.picture(17))
        assert error.value.code == ErrorCode.PROMPT_TOO_LONG
    assert engine.vision.encoded == encoded


def test_repetition_is_penalised_beside_images(engine):
    sequence = opened(engine, [asked('What is it?', tiny_vision.picture(14))])
    seen = engine.vision.seen([asked('What is it?', tiny_vision.picture(14))])
    penal = engine.open(engine.encode_chat(seen), TOKENS, Sampling(repetition_penalty=5.0),
                        images=images_of(seen))
    plain, other = run(engine, sequence, penal)
    assert len(set(other)) > len(set(plain)) or other != plain


def test_tokens_of_an_image_that_is_not_given_are_refused(engine):
    seen = engine.vision.seen([asked('What is it?', tiny_vision.picture(15))])
    tokens = engine.encode_chat(seen)
    with pytest.raises(RequestError, match='not given'):
        engine.open(tokens, 4, Sampling(), images=engine.vision.seen(
            [asked('', tiny_vision.picture(16))])[0].images)
    with pytest.raises(RequestError, match='token ids must be'):
        engine.open(tokens, 4, Sampling())


def test_a_model_that_does_not_see_says_so(tiny_directory):
    engine = load_engine(EngineConfig(str(tiny_directory), max_context=64, slots=2))
    assert engine.vision is None
    with pytest.raises(RequestError, match='sees no images'):
        engine.encode_chat([asked('What is it?', tiny_vision.picture(0))])


def test_a_model_that_the_flat_batch_cannot_run_sees_nothing(tmp_path, monkeypatch, caplog):
    tiny_vision.save(tmp_path, 'qwen3_5')
    use_kernels(monkeypatch, 'torch')
    engine = load_engine(EngineConfig(str(tmp_path), max_context=64, slots=2))
    assert engine.vision is None and 'images are refused' in caplog.text
    with pytest.raises(RequestError, match='sees no images'):
        engine.encode_chat([asked('What is it?', tiny_vision.picture(0))])


@pytest.mark.parametrize(('field', 'value'), [
    ('mrope_section', [2, 3]), ('mrope_section', [2, 3, 10 ** 9]), ('mrope_section', [-2, 5, 5]),
    ('mrope_section', 'abc'), ('mrope_section', [4, 4, 5]),
    ('deepstack_visual_indexes', [0] * 3), ('deepstack_visual_indexes', [0] * 99)])
def test_positions_and_levels_of_a_hostile_config_are_refused(field, value, tmp_path):
    tiny_vision.save(tmp_path, 'qwen3_vl')
    file = tmp_path / 'config.json'
    config = json.loads(file.read_text())
    where = (config['vision_config'] if field == 'deepstack_visual_indexes'
             else config['text_config']['rope_parameters'])
    assert field in where
    where[field] = value
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=2))


def test_positions_of_two_images_and_text_in_any_chunks():
    """By hand: three tokens, an image of 2 x 3, one token, one of 2 x 1, two tokens."""
    images = [SeenImage(1, (), np.zeros((6, 4)), (2, 3)),
              SeenImage(2, (), np.zeros((2, 4)), (2, 1)), SeenImage(3, (), np.zeros((5, 4)))]
    seen = {image.key: image for image in images}
    tokens = [7, 7, 7, *row_ids(1, 6), 7, *row_ids(2, 2), 7, 7, *row_ids(3, 5)]
    placed = placed_images(tokens, seen)
    wanted = [*[(n, n, n) for n in range(3)],
              *[(3, 3 + row, 3 + column) for row in range(2) for column in range(3)],
              (6, 6, 6), (7, 7, 7), (7, 8, 7), *[(n, n, n) for n in range(9, 20)]]
    for chunk in (1, 2, 5, 20):
        got = [rope_positions(placed, at, min(chunk, 20 - at)) for at in range(0, 20, chunk)]
        assert np.concatenate(got).tolist() == [list(where) for where in wanted[:20]]


def test_a_directory_without_its_tower_is_refused(tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file
    tiny_vision.save(tmp_path, 'smolvlm')
    file = tmp_path / 'model.safetensors'
    tensors = load_file(file)
    lost = next(name for name in tensors if 'patch_embedding.weight' in name)
    save_file({n: t for n, t in tensors.items() if n != lost}, file, metadata={'format': 'pt'})
    with pytest.raises(ModelError, match='patch_embedding.weight of the vision tower'):
        load_engine(EngineConfig(str(tmp_path), max_context=64, slots=2))


def test_images_of_several_tiles_stand_row_by_row():
    """Two rows of three tiles, and the whole: the text of Idefics3's own processor."""
    processor = tiny_vision.processor('idefics3')
    family = VISION_FAMILIES['idefics3']
    pixels = family.process(processor, np.zeros((64, 96, 3), np.uint8))
    model = torch.nn.Module()
    model.image_seq_len = 4
    own = tiny_vision.reference('idefics3', tiny_vision.tokenizer('idefics3'))
    assert family.text(model, pixels) == own.replace_image_token(pixels, 0)


def test_the_documentation_lists_the_families():
    table = DOCS.read_text().split('| model_type |')[1].split('\n\n')[0]
    rows = [name for line in table.splitlines() for name in line.split('|')[1].split('`')[1::2]
            if line.startswith('| `')]
    assert sorted(rows) == sorted(VISION_FAMILIES) == sorted(NAMES)


@pytest.mark.parametrize('name', tiny_vision.BLIND)
def test_of_a_model_that_sees_otherwise_the_text_runs(name, tmp_path, caplog):
    model = tiny_vision.save_blind(tmp_path, name)
    engine = load_engine(EngineConfig(str(tmp_path), weights='fp32', max_context=128, slots=2))
    assert engine.info.path == 'flat batch' and engine.vision is None
    assert f'how {name} sees is not known' in caplog.text
    tokens, slot = list(range(50)), engine._slots.take()
    engine._slots.reserve([(slot, 50)])
    got = torch.as_tensor(engine._runner.forward([Segment(slot, 0, tokens, True)]))[0]
    with torch.no_grad():
        want = model(input_ids=torch.tensor([tokens])).logits[0, -1]
    assert (got - want).abs().max() < 1e-4 * want.abs().max()
