# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
r"""How byte-level tokenizers split a text before merges: the rule behind ``tokenizer.ggml.pre``.

The names are those that llama.cpp writes into a file; the patterns are those of the models'
tokenizers. Each pattern cuts its matches out of the pieces that the one before it has left.
"""

from dataclasses import dataclass
import logging

logger = logging.getLogger(__name__)

_ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r'\s*[\r\n]+|\s+(?!\S)|\s+'
_WORD = r'[^\r\n\p{L}\p{N}]?\p{L}+'
_SIGNS = r' ?[^\s\p{L}\p{N}]+[\r\n]*'
_UPPER, _LOWER = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
_THOUSANDS = r'\d{1,3}(?=(?:\d{3})*(?!\d))'
_HAN_KANA = r'[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+'
_ASIAN = r'[\x{0800}-\x{9FA5}\x{AC00}-\x{D7FF}]+'
# Letters with case, but for scripts that came later to Unicode, mathematics and Georgian.
_CASED = (r'[\p{Lu}\p{Ll}\p{Lt}&&[^\x{560}-\x{588}\x{10C7}\x{10CD}\x{10D0}-\x{10FF}'
          r'\x{1C80}-\x{1C8A}\x{2D00}-\x{2D2D}\x{A790}-\x{A7FA}\x{AB30}-\x{AB68}'
          r'\x{10570}-\x{105BC}\x{10D50}-\x{10D85}\x{16E40}-\x{16E7F}\x{1D400}-\x{1D7CB}'
          r'\x{1DF00}-\x{1DF2A}]]')


def _cased(ending: str, digits: str) -> str:
    """Return a pattern that parts words where a capital follows a small letter."""
    start = r'[^\r\n\p{L}\p{N}]?'
    return (fr'{start}{_UPPER}*{_LOWER}+{ending}|{start}{_UPPER}+{_LOWER}*{ending}|{digits}'
            fr'| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}')


def _punctuated(after_signs: str) -> str:
    """Return a pattern in which a sign joins the letters behind it."""
    return (r'[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+'
            + after_signs)


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = fr'{_ENDING}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_BLANKS}'
_QWEN2 = fr'{_ENDING}|{_WORD}|\p{{N}}|{_SIGNS}|{_BLANKS}'
_GPT4O = _cased(f'{_ENDING}?', r'\p{N}{1,3}')
_DEEPSEEK3 = (r'\p{N}{1,3}', _HAN_KANA, _punctuated(fr'[\r\n]*|{_BLANKS}'))
_BLOOM = ' ?[^(\\s|.,!?…。，、।۔،)]+'

# Names by pattern.
_NAMES = {
    (r'[\p{P}$+<=>^~|]+', _GPT2, r'\p{N}+', '[0-9]{3}'): 'default',
    (_LLAMA3,): 'llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano '
                'dbrx smaug-bpe glm4 chatglm-bpe',
    (_GPT2,): 'gpt-2 phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code gigachat '
              'a.x-4.0 mellum modern-bert roberta-bpe mpt olmo jais exaone4 trillion '
              'granite-docling',
    (r'\p{N}', _GPT2): 'starcoder refact command-r smollm codeshell exaone minerva-7b mellum2',
    (_QWEN2,): 'qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2',
    (fr'{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}'
     fr'| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}',): 'qwen35',
    (fr'{_WORD}|\p{{N}}|{_SIGNS}|{_BLANKS}',): 'ufakzeka',
    (r'[^\n]+|\n+', _QWEN2): 'laguna',
    (r'\p{N}{1,3}', fr'{_ENDING}|{_WORD}|\p{{N}}+|{_SIGNS}|{_BLANKS}'): 'minicpm5',
    (fr'{_ENDING}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+|{_BLANKS}',): 'seed-coder',
    (fr'{_ENDING}|{_WORD}|\p{{N}}|{_SIGNS}|\s*[\r\n]|\s+(?!\S)|\s+',):
        'bailingmoe bailingmoe2 llada-moe',
    (fr'{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}'
     r'| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+',): 'exaone-moe',
    (fr'{_ENDING}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|\s*[\r\n]+'
     r'|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)'
     r'|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s',): 'jais-2',
    (_cased('', r'\p{N}'),): 'tekken',
    (_GPT4O,): 'gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m',
    (r'\d{1,3}(?=(?:\d{3})*\b)', _GPT4O): 'tiny_aya cohere2moe',
    (r'[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+'
     r'|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}'
     r'\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|' + _HAN_KANA,
     _cased(f'{_ENDING}?', r'\p{N}')): 'youtu',
    ('[\r\n]', fr'\s?{_CASED}+', r'\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}'
     r'\x{2018}-\x{201F}\x{3000}-\x{3002}]+', r'\s+$', _ASIAN, r'\p{N}+'): 'deepseek-llm',
    ('[\r\n]', r'\s?\p{L}+', r'\s?\p{P}+', _ASIAN, r'\p{N}'): 'deepseek-coder',
    _DEEPSEEK3: 'deepseek-v3 hunyuan-dense joyai-llm hy_v4',
    (r'\p{N}{1,3}', _HAN_KANA, _punctuated(r'|[\r\n]|\s+(?!\S)|\s+'), r'\p{N}'): 'spark2_5',
    (r'[\p{P}$+<=>^~|`]+', _GPT2, '[0-9]{3}'): 'falcon',
    (_BLOOM,): 'poro-chat bloom gpt3-finnish',
    (_BLOOM, r'\p{N}'): 'viking',
    ('<sentinel:[0-9]+>', '(IMGIMG)([A-I]{1,4})Z', '[\t\n]|    |  ', r'\p{N}',
     r'[\p{P}!-/:-@\[-`{-~]', _GPT2): 'chameleon',
    (r'\p{N}+', _THOUSANDS): 'superbpe',
}
_PATTERNS = {name: patterns for patterns, names in _NAMES.items() for name in names.split()}
_BEGIN = {'llama3', 'llama-v3', 'llama-bpe', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0',
          'lfm2', 'jina-v5-nano', 'tekken'}
_WHOLE = _BEGIN | {'minicpm5', 'youtu', 'granite-embed-multi-97m'}


@dataclass(frozen=True, slots=True)
class Split:
    """How a text is split. `whole`: a piece that is a token is taken as it is, without merges.

    `begin`: a prompt begins with the BOS token, where the file does not say.
    """

    patterns: tuple[str, ...]
    whole: bool
    begin: bool


def split_of(name: str | None) -> Split:
    """Return how the tokenizer `name` splits, with a warning where that is a guess.

    A file without a name is older than the names, and split by llama.cpp's rule for such files.
    A name that is not known is newer than this table: split as most models are since Llama 3.
    """
    if name in _PATTERNS:
        return Split(_PATTERNS[name], name in _WHOLE, name in _BEGIN or name == 'chameleon')
    known = 'llama-bpe' if name else 'default'
    logger.warning(
        'the GGUF file %s: texts are split as %r says, and tokens may differ from those that the '
        'model has learnt', f'asks for the pre-tokenizer {name!r:.80}, which is not known' if name
        else 'does not say its pre-tokenizer', known)
    return Split(_PATTERNS[known], False, False)
