# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Streaming text: whole characters only, nothing of a stop string, and nothing is lost."""

from hypothesis import example, given, settings, strategies as st
import pytest
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.text.detokenizer import Detokenizer
from slice_ros.engine.text.vocabulary import _ALPHABET, Vocabulary
import tiny
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, Tokenizer
from transformers import PreTrainedTokenizerFast

TOKENIZER = tiny.tokenizer().backend_tokenizer
BYTES = Vocabulary(tiny.tokenizer())
SPECIAL = '<|special|>'
NAMES = {byte: name for name, byte in _ALPHABET.items()}
LETTERS = 'abcdefgh ABC.,!?é🤖\n'


def byte_level():
    """Return byte-level BPE; some of its tokens have parts of two characters."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    joined = {tuple(map(byte_level_name, pair)) for pair in (
        (b'\xf0', b'\x9f'), (b'\xf0\x9f', b'\x87'), (b'\xbd', b'\xef'), (b'\xef', b'\xbf'),
        (b'\xef\xbf', b'\xbd'), (b' ', b'\xe2'), (b'a', b'\xcc'), (b'\xaa', b'\xf0'))}
    merges = sorted(joined, key=lambda pair: len(''.join(pair)))
    names = [*letters, *(''.join(pair) for pair in merges)]
    made = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return made


def byte_level_name(data):
    return ''.join(NAMES[byte] for byte in data)


JOINING = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=byte_level()))


def byte_fallback():
    """Return BPE as sentencepiece trains it: what has no token is written in bytes."""
    names = ['<unk>', *(f'<0x{byte:02X}>' for byte in range(256)), '▁', *LETTERS.strip('🤖 \n'),
             '▁a', 'ab']
    made = Tokenizer(models.BPE({name: i for i, name in enumerate(dict.fromkeys(names))},
                                [('▁', 'a'), ('a', 'b')], unk_token='<unk>', byte_fallback=True))
    made.normalizer = normalizers.Sequence([
        normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    made.decoder = decoders.Sequence([
        decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(' ', 1, 0)])
    return made


def word_piece():
    names = ['[UNK]', *LETTERS.replace(' ', ''), *(f'##{c}' for c in LETTERS.replace(' ', '')),
             '\ufffd', '##\ufffd', 'n', "'", 't', '##ab', 'do']
    made = Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token='[UNK]'))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=True)
    return made


def unigram():
    names = ['<unk>', '▁', *LETTERS.replace(' ', ''), '\ufffd', '▁a', 'ab', '▁▁', '\ufffd\ufffd']
    made = Tokenizer(models.Unigram([(n, -1.0 - len(n) % 2) for n in names], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


def embedded():
    return GgufFile(find_model('')).tokenizer().backend_tokenizer


KINDS = (byte_level, byte_fallback, word_piece, unigram, embedded)


@pytest.fixture(scope='module', params=KINDS)
def vocabulary(request):
    """Return the encoding function and the vocabulary of a tokenizer of each kind."""
    made = request.param()
    made.add_special_tokens([AddedToken(SPECIAL, special=True, normalized=False)])
    made.add_tokens([AddedToken('日本', normalized=False), AddedToken('🤖!', normalized=False)])
    return (lambda text: made.encode(text, add_special_tokens=False).ids), Vocabulary(
        PreTrainedTokenizerFast(tokenizer_object=made))


def encode(text):
    return TOKENIZER.encode(text).ids


def stream_of(ids, vocabulary, stop=()):
    """Return the pieces that come out, token by token, and whether a stop string ended it."""
    detokenizer, pieces = Detokenizer(vocabulary, stop), []
    for token in ids:
        piece, stopped = detokenizer.push(token)
        pieces.append(piece)
        if stopped:
            return pieces, True
    return [*pieces, detokenizer.flush()], False


def stream(text, stop=()):
    return stream_of(encode(text), BYTES, stop)


# Text of people and of models: replacement characters, flags, families, marks that combine.
PARTS = st.one_of(
    st.sampled_from([
        '\ufffd', '\ufffd\ufffd', '🇫🇷', '🇩🇪', '👩\u200d👩\u200d👧', 'e\u0301', 'a\u0308\u0323',
        '🤖', ' ', '  ', '\n', 'ab', 'aé', '日本', '🤖!', SPECIAL, "don't", '.', '▁', '<0x41>',
        '##a']),
    st.text(st.characters(exclude_categories=['Cs']), max_size=5))
TEXTS = st.lists(PARTS, max_size=12).map(''.join)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example('\ufffd\ufffd🇫🇷')
@example('x\ufffd')
@example('\ufffd' * 9 + '🤖')
def test_the_pieces_are_the_text_of_all_tokens(vocabulary, text):
    encoded, made = vocabulary
    ids = encoded(text)
    pieces, stopped = stream_of(ids, made)
    assert not stopped
    assert ''.join(pieces) == made.decode(ids)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.one_of(st.text('ab é\ufffd', min_size=1, max_size=3),
                        st.sampled_from(['🇫🇷', '🤖'])))
def test_the_pieces_are_the_text_up_to_a_stop_string(vocabulary, text, stop):
    encoded, made = vocabulary
    ids = encoded(text)
    pieces, stopped = stream_of(ids, made, (stop,))
    whole, found, _ = made.decode(ids).partition(stop)
    assert stopped == bool(found)
    assert ''.join(pieces) == whole


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 270), max_size=30))
def test_bytes_that_are_no_text_come_out_as_they_are_decoded(ids):
    pieces, _ = stream_of(ids, JOINING)
    whole = JOINING.decode(ids)
    # Bytes that could still become a character are dropped at the end.
    assert ''.join(pieces) in (whole, whole.removesuffix('\ufffd'))


def test_a_character_is_delivered_with_its_last_token(vocabulary):
    encoded, made = vocabulary
    for text in ('a🤖🤖b', '🇫🇷', 'é\ufffd é'):
        ids = encoded(text)
        for count in range(len(ids)):
            now = ''.join(stream_of(ids[:count], made)[0])
            assert made.decode(ids).startswith(now)
            assert now == made.decode(ids[:count]) or '\ufffd' in made.decode(ids[:count])


def test_an_emoji_comes_out_with_its_last_byte():
    pieces, _ = stream('a🤖b')
    assert pieces == ['a', '', '', '', '🤖', 'b', '']


def test_an_unfinished_character_is_not_shown_at_the_end():
    detokenizer = Detokenizer(BYTES)
    out = ''.join(detokenizer.push(token)[0] for token in encode('ok🤖')[:-1])
    assert out + detokenizer.flush() == 'ok'


def test_bytes_that_are_no_text_do_not_hold_up_what_follows():
    detokenizer = Detokenizer(BYTES)
    first = encode('🤖')[0]
    out = ''.join(detokenizer.push(t)[0] for t in [first] * 40 + encode('still here'))
    assert out.endswith('still here')


def test_special_tokens_show_nothing_and_cost_nothing():
    detokenizer = Detokenizer(BYTES)
    eos = TOKENIZER.token_to_id('<|endoftext|>')
    out = [detokenizer.push(t)[0] for t in encode('a') + [eos] * 500 + encode('b')]
    assert ''.join(out) == 'ab'


def test_a_stop_string_is_never_half_printed():
    pieces, stopped = stream('one STOP two', stop=('STOP',))
    assert stopped
    assert ''.join(pieces) == 'one '
    assert 'S' not in ''.join(pieces)


def test_what_only_began_like_a_stop_string_is_printed():
    pieces, stopped = stream('STO STOO ST', stop=('STOP',))
    assert not stopped
    assert ''.join(pieces) == 'STO STOO ST'


def test_the_first_of_several_stop_strings_ends_the_text():
    pieces, stopped = stream('xabcabd', stop=('abd', 'bca'))
    assert stopped
    assert ''.join(pieces) == 'xa'


@settings(max_examples=200, deadline=None)
@given(st.text('abé', max_size=30), st.lists(st.text('abé', min_size=1, max_size=4), max_size=3))
def test_the_text_ends_where_the_first_stop_string_begins(text, stop):
    pieces, stopped = stream(text, tuple(stop))
    out = ''.join(pieces)
    assert not any(s in out for s in stop)
    assert text.startswith(out)
    assert stopped == any(s in text for s in stop)
    if not stopped:
        assert out == text
