# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Texts are split as the pre-tokenizer that a GGUF file names splits them."""

import logging

import pytest
from slice_ros.engine.checkpoints.gguf_splits import _PATTERNS, split_of
from tokenizers import pre_tokenizers, Regex

# By name: a text, with a bar between the pieces that it has.
PIECES = {
    'default': 'a|,| |123|4|`',
    'llama-bpe': "I|'LL| go| | |123|45|!\n",
    'gpt-2': "I|'|LL| 123| I|'ll| | é|!!",
    'starcoder': 'a| |1|2',
    'qwen2': 'a| |1|2|3| ह|ि',
    'qwen35': 'a| |1| हि',
    'ufakzeka': "Ankara|'da",
    'laguna': '!|\n| b',
    'minicpm5': '123|4| b',
    'seed-coder': '!|\n',
    'bailingmoe': "I|'LL|!\n\n",
    'exaone-moe': 'o n e| |1|!\n|\n',
    'jais-2': '    |  | x',
    'tekken': "Hello|World| |1|2|/s|'s",
    'gpt-4o': "Hello|World's| |123|4",
    'tiny_aya': '1|234| x',
    'youtu': '你好|，|a|1|2',
    'deepseek-llm': 'Hi| |日本|12|\n',
    'deepseek-coder': 'a|.|b| |1|2',
    'deepseek-v3': '.then| |123|4|日本',
    'spark2_5': '!|\n|\n|.then',
    'falcon': 'a|,| |123|4|`',
    'bloom': 'a| b12|,| c',
    'viking': 'a| b|1|2|,| c',
    'chameleon': 'a|  |b|1|.|.',
    'superbpe': '1|234|567| a',
}


@pytest.mark.parametrize('name', PIECES)
def test_a_text_is_split_as_the_name_says(name):
    text = PIECES[name].replace('|', '')
    steps = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), 'isolated')
                                     for pattern in split_of(name).patterns])
    pieces = [piece for piece, _ in steps.pre_tokenize_str(text)]
    assert '|'.join(pieces) == PIECES[name]


def test_every_rule_has_a_text():
    assert {split_of(name).patterns for name in PIECES} == set(_PATTERNS.values())


def test_whole_words_and_the_first_token_are_those_of_llama_3_and_tekken():
    for name, whole, begin in (('llama-bpe', True, True), ('tekken', True, True),
                               ('qwen2', False, False), ('chameleon', False, True),
                               ('youtu', True, False), ('dbrx', False, False)):
        split = split_of(name)
        assert (split.whole, split.begin) == (whole, begin)


@pytest.mark.parametrize('name, taken', [('of-next-year', 'llama-bpe'), (None, 'default')])
def test_a_name_that_is_not_known_warns_once_and_has_a_rule(name, taken, caplog):
    with caplog.at_level(logging.WARNING):
        split = split_of(name)
    assert split.patterns == split_of(taken).patterns and not split.whole and not split.begin
    assert len(caplog.records) == 1 and repr(taken) in caplog.text
