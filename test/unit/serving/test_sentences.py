# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Sentences for speech: let out as soon as they are sure, with nothing lost or doubled."""

from hypothesis import example, given, settings, strategies as st
import pytest
from slice_ros.serving import sentences
from slice_ros.serving.sentences import LONGEST, SentenceSplitter

LETTERS = ('ab Ab1. .?! \n\t"\'()[]「」。！…é🤖\u0301\x00\u2028ß\u200d“”-:,*_\u00a0\u3000\r')
LANGUAGES = st.sampled_from(['en', 'de', 'zh', 'fr', 'ja', 'hi', 'el', 'ar', 'ru', 'xx'])


def split(pieces, language='en'):
    splitter = SentenceSplitter(language)
    said = [sentence for piece in pieces for sentence in splitter.push(piece)]
    return said + splitter.flush()


@pytest.mark.parametrize('text, expected', [
    ('Turn left. Then stop!', ['Turn left.', 'Then stop!']),
    ('It is 3.14 metres. Go on.', ['It is 3.14 metres.', 'Go on.']),
    ('Dr. Smith waits, e.g. here. Go.', ['Dr. Smith waits, e.g. here.', 'Go.']),
    ('See https://a.b/C.D?E=1. Or node.Spin now.', ['See https://a.b/C.D?E=1.',
                                                    'Or node.Spin now.']),
    ('Wait... what? Ok', ['Wait... what?', 'Ok']),
    ('1. Go left\n2. Stop. Wait.\n\n- Turn', ['1. Go left', '2. Stop.', 'Wait.', '- Turn']),
    ('**Stop.** Go. "No." he said.', ['**Stop.**', 'Go.', '"No." he said.']),
    ('你好。我是机器人。「停！」', ['你好。', '我是机器人。', '「停！」']),
    ('  \n\t ', []), ('', []), ('no end', ['no end'])])
def test_sentences_end_where_a_reader_says_so(text, expected):
    assert split([text]) == expected
    assert split(text) == expected  # one character at a time


def test_the_language_decides():
    assert split(['Ja. Am 3. Oktober. Gut.'], 'de') == ['Ja.', 'Am 3. Oktober.', 'Gut.']


def test_a_sentence_is_let_out_when_the_next_has_begun():
    splitter = SentenceSplitter()
    assert splitter.push('Turn left. ') == []
    assert splitter.push('Th') == []
    assert splitter.push('en ') == ['Turn left.']
    assert splitter.push('go 3.') == []
    assert splitter.push('5 m') == []
    assert splitter.push('.\n') == ['Then go 3.5 m.']
    assert splitter.push('a) one') == []
    assert splitter.flush() == ['a) one'] and splitter.flush() == []


def test_what_never_ends_is_cut_at_a_word():
    text = 'word ' * 300
    said = split(text)
    assert ' '.join(said) == text.strip()
    assert all(len(s) <= LONGEST and set(s.split()) == {'word'} for s in said)
    assert [len(s) for s in split(['x' * 1200])] == [500, 500, 200]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(LETTERS, max_size=30), max_size=12), LANGUAGES)
@example(['\tA\u2028.🤖é.A「'], 'de')  # the library alone panics at it
def test_nothing_is_lost_and_the_pieces_do_not_matter(pieces, language):
    text = ''.join(pieces)
    said = split(pieces, language)
    assert ''.join(''.join(said).split()) == ''.join(text.split())
    assert all(s and s == s.strip() and len(s) <= LONGEST and '\n' not in s for s in said)
    assert said == split([text], language)


class PanicException(BaseException):
    """As the library raises it when it fails in Rust."""


@pytest.mark.parametrize('fault', [PanicException, ValueError])
def test_a_library_that_fails_costs_the_ends_and_nothing_else(monkeypatch, fault):
    def fail(language, text):
        raise fault('no char boundary')
    monkeypatch.setattr(sentences.sentencex, 'segment', fail)
    assert split(['One. Two.\nThree.']) == ['One. Two.', 'Three.']
