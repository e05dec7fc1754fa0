# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Streaming text: whole characters only, and nothing of a stop string."""

from hypothesis import given, settings, strategies as st
from slice_ros.engine.text.detokenizer import Detokenizer
import tiny

TOKENIZER = tiny.tokenizer().backend_tokenizer


def encode(text):
    return TOKENIZER.encode(text).ids


def stream(text, stop=(), additive=False):
    """Return the pieces that come out, byte by byte, and whether a stop string ended it."""
    detokenizer = Detokenizer(TOKENIZER.decode, stop, additive=additive)
    pieces = []
    for token in encode(text):
        piece, stopped = detokenizer.push(token)
        pieces.append(piece)
        if stopped:
            return pieces, True
    return [*pieces, detokenizer.flush()], False


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\ufffd'), max_size=40))
def test_the_pieces_are_whole_characters_and_make_up_the_text(text):
    pieces, stopped = stream(text)
    assert not stopped
    assert ''.join(pieces) == text
    assert not any('\ufffd' in piece for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=['Cs']), max_size=40),
       st.lists(st.text('ab é', min_size=1, max_size=3), max_size=2))
def test_what_tokens_say_by_themselves_comes_out_just_so(text, stop):
    assert stream(text, tuple(stop), additive=True) == stream(text, tuple(stop))


def test_an_emoji_comes_out_with_its_last_byte():
    pieces, _ = stream('a🤖b')
    assert pieces == ['a', '', '', '', '🤖', 'b', '']


def test_an_unfinished_character_is_not_shown_at_the_end():
    detokenizer = Detokenizer(TOKENIZER.decode)
    out = ''.join(detokenizer.push(token)[0] for token in encode('ok🤖')[:-1])
    assert out + detokenizer.flush() == 'ok'


def test_bytes_that_are_no_text_do_not_hold_up_what_follows():
    detokenizer = Detokenizer(TOKENIZER.decode)
    first = encode('🤖')[0]
    out = ''.join(detokenizer.push(t)[0] for t in [first] * 40 + encode('still here'))
    assert out.endswith('still here')


def test_special_tokens_show_nothing_and_cost_nothing():
    detokenizer = Detokenizer(TOKENIZER.decode)
    eos = TOKENIZER.token_to_id('<|endoftext|>')
    out = [detokenizer.push(t)[0] for t in encode('a') + [eos] * 500 + encode('b')]
    assert ''.join(out) == 'ab'
    assert len(detokenizer._ids) < 5


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
