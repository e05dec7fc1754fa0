# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a GGUF file has the file's tokens, and its rules for blanks and merges."""

from formats import answer, choice, schema
import gguf_files
import pytest
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tokenizer import build_tokenizer
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.errors import ModelError
import tiny
from tokenizers import pre_tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
# SentencePiece: three special tokens, the 256 bytes from id 3, then tokens with their scores.
BYTES = [f'<0x{byte:02X}>' for byte in range(256)]
SCORES = {'▁': -10.0, 'a': -10.0, 'b': -10.0, '<': -10.0, '/': -10.0, 's': -10.0, '>': -10.0,
          'ab': -1.0, '▁a': -2.0, '▁ab': -3.0, '</': -4.0, 's>': -5.0, 'ba': -0.5}


def byte_level(more=(), kinds=(), merges=(), **about):
    tokens = [*LETTERS, *more]
    return {'model': 'gpt2', 'pre': 'gpt-2', 'tokens': tokens, 'merges': merges,
            'token_type': [NORMAL] * (len(tokens) - len(kinds)) + list(kinds)} | about


def sentencepiece(**about):
    scores = SCORES | about.pop('scores', {})
    return {'model': 'llama', 'tokens': ['<unk>', '<s>', '</s>', *BYTES, *scores],
            'scores': [0.0] * 259 + list(scores.values()), 'token_type': [
                UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(scores)]} | about


def made(about):
    return build_tokenizer({f'tokenizer.ggml.{key}': value for key, value in about.items()})


def names(tokenizer, text):
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens


@pytest.mark.parametrize('pre, text, expected', [
    ('gpt-2', 'hello', ['he', 'l', 'l', 'o']), ('llama-bpe', 'hello', ['hello']),
    ('llama-bpe', 'hellos', ['he', 'l', 'l', 'o', 's']),
    ('qwen2', 'hello', ['he', 'l', 'l', 'o'])])
def test_a_word_that_is_a_token_needs_no_merges_where_the_name_says_so(pre, text, expected):
    assert names(made(byte_level(['he', 'hello'], merges=['h e'], pre=pre)), text) == expected


def test_the_earlier_of_two_merges_comes_first_and_others_are_left_out():
    more, merges = ['ab', 'bc', 'Ġ?'], ['x nothing', 'b c', 'a b', 'b c', 'Ġ ?']
    assert names(made(byte_level(more, merges=merges)), 'abc ?') == ['a', 'bc', 'Ġ?']


def test_no_token_is_added_to_those_of_the_file():
    tokenizer = made(byte_level(['<|eot_id|>'], [CONTROL], eos_token_id=256, pre='llama-bpe'))
    assert len(tokenizer.get_vocab()) == 257 and tokenizer.eos_token_id == 256
    assert tokenizer.special_tokens_map == {'eos_token': '<|eot_id|>'}
    assert tokenizer.get_added_vocab() == {'<|eot_id|>': 256}
    assert len(made(sentencepiece()).get_vocab()) == 259 + len(SCORES)


def test_special_and_added_tokens_are_found_as_they_are_written():
    more = ['<｜end of text｜>', '  ', '<think>']
    tokenizer = made(byte_level(more, [CONTROL, USER_DEFINED, USER_DEFINED]))
    ids = tokenizer.backend_tokenizer.encode('a  b<think><｜end of text｜>').ids
    assert ids == [LETTERS.index('a'), 257, LETTERS.index('b'), 258, 256]
    vocabulary = PromptEncoder(tokenizer, 100).vocabulary
    assert vocabulary.decode(ids) == 'a  b<think>'
    assert [vocabulary.piece(i) for i in (256, 257, 258)] == ['', '  ', '<think>']


@pytest.mark.parametrize('prefix, text, expected', [
    (True, 'ab', ['▁ab']), (True, ' ab', ['▁', '▁ab']), (True, 'ab  ab', ['▁ab', '▁', '▁ab']),
    (True, 'ab</s>ab', ['▁ab', '</s>', '▁ab']), (True, 'é', ['▁', '<0xC3>', '<0xA9>']),
    (True, '\n', ['▁', '<0x0A>']), (False, 'ab', ['ab']), (False, ' ab', ['▁ab']),
    (False, 'ab</s>ab', ['ab', '</s>', 'ab'])])
def test_blanks_and_bytes_of_sentencepiece(prefix, text, expected):
    tokenizer = made(sentencepiece(add_space_prefix=prefix)).backend_tokenizer
    found = tokenizer.encode(text, add_special_tokens=False)
    assert found.tokens == expected
    assert tokenizer.decode(found.ids) == text.replace('</s>', ' ' if prefix else '')


@pytest.mark.parametrize('ab, ba, expected', [
    (-1.0, -2.0, ['ab', 'ab']), (-2.0, -1.0, ['a', 'ba', 'b']), (0.5, 0.4, ['ab', 'ab'])])
def test_the_merge_of_the_highest_score_comes_first(ab, ba, expected):
    about = sentencepiece(scores={'ab': ab, 'ba': ba}, add_space_prefix=False)
    assert names(made(about), 'abab') == expected


def test_text_never_makes_a_special_token():
    encoder = PromptEncoder(made(sentencepiece(add_space_prefix=False)), 100)
    name_of = encoder._tokenizer.backend_tokenizer.id_to_token
    assert [name_of(i) for i in encoder._plain_ids('</s>')] == ['</', 's>']


@pytest.mark.parametrize('about, first, last', [
    (sentencepiece(), '<s>', None), (sentencepiece(add_bos_token=False), None, None),
    (sentencepiece(add_eos_token=True), '<s>', '</s>'),
    (byte_level(['<b>'], [CONTROL], bos_token_id=256), None, None),
    (byte_level(['<b>'], [CONTROL], bos_token_id=256, add_bos_token=True), '<b>', None),
    (byte_level(['<b>'], [CONTROL], bos_token_id=256, pre='llama-bpe'), '<b>', None),
    (byte_level(['<b>'], [CONTROL], pre='llama-bpe'), None, None)])
def test_a_prompt_begins_and_ends_as_the_file_says(about, first, last):
    tokenizer = made(about | {'add_space_prefix': False})
    assert tokenizer.backend_tokenizer.encode('a').tokens == [t for t in (first, 'a', last) if t]


@pytest.mark.parametrize('about, word', [
    ({'model': 'bert', 'tokens': ['a']}, 'bert'), ({'tokens': ['a']}, 'None'), ({}, 'no tokens'),
    (byte_level(['a']), 'same text'), ({'model': 'gpt2', 'tokens': ['a']}, 'no merges'),
    ({'model': 'gpt2', 'tokens': [5]}, 'no tokens')])
def test_what_describes_no_tokenizer_is_refused(about, word):
    with pytest.raises(ValueError, match=word):
        made(about)


def _llama3(writer):
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre('llama-bpe')
    writer.add_token_list([*LETTERS, 'go', *(f'<|{i}|>' for i in range(62)), '<|eot_id|>'])
    writer.add_token_types([NORMAL] * 257 + [CONTROL] * 63)
    writer.add_token_merges(['g o'])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(319)
    writer.add_chat_template('{{ bos_token }}{{ messages[0].content }}<|eot_id|>')


def _llama2(writer):
    about = sentencepiece()
    about['tokens'] += [f'<|{i}|>' for i in range(320 - len(about['tokens']))]
    more = 320 - len(about['scores'])
    writer.add_tokenizer_model('llama')
    writer.add_token_list(about['tokens'])
    writer.add_token_scores(about['scores'] + [0.0] * more)
    writer.add_token_types(about['token_type'] + [CONTROL] * more)
    writer.add_eos_token_id(2)


@pytest.mark.parametrize('describe, eos', [(_llama3, 319), (_llama2, 2)])
def test_answers_of_a_gguf_file_keep_to_a_format(tmp_path, monkeypatch, describe, eos):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    config = tiny.llama(tie_word_embeddings=False)
    gguf_files.write(tmp_path / 'model.gguf', 'llama', config, tiny.model(config).state_dict(),
                     describe=describe)
    engine = load_engine(EngineConfig(str(tmp_path / 'model.gguf'), weights='fp32', slots=2))
    assert answer(engine, choice('go', 'stop'))[0].text in ('go', 'stop')
    wanted = {'type': 'object', 'additionalProperties': False, 'required': ['at'],
              'properties': {'at': {'enum': ['a b', 'é']}}}
    assert answer(engine, schema(wanted))[0].text in ('{"at": "a b"}', '{"at": "é"}')
    direct = GgufFile(tmp_path / 'model.gguf').tokenizer()
    assert engine._stop_tokens == {eos}
    assert engine.encode(' go  ab<|0|> é') == direct.backend_tokenizer.encode(
        ' go  ab<|0|> é').ids


def test_a_file_without_a_tokenizer_is_named(tmp_path):
    config = tiny.llama()
    gguf_files.write(tmp_path / 'model.gguf', 'llama', config, tiny.model(config).state_dict())
    with pytest.raises(ModelError, match='model.gguf: its tokenizer cannot be read'):
        GgufFile(tmp_path / 'model.gguf').tokenizer()
