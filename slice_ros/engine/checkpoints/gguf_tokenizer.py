# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer that the metadata of a GGUF file describes.

It has the tokens of the file and no others: an id beyond them has no row in the embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from slice_ros.engine.checkpoints.gguf_splits import split_of
from tokenizers import (
    AddedToken, decoders, models, normalizers, pre_tokenizers, processors, Regex, Tokenizer)

_KEY = 'tokenizer.ggml.'
ARRAYS = tuple(_KEY + name for name in ('tokens', 'token_type', 'scores', 'merges'))
_BLANK = '▁'  # how SentencePiece writes a blank


class _Kind(IntEnum):
    """Values of ``tokenizer.ggml.token_type``; 0 and 5, undefined and unused, are plain text."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    BYTE = 6


@dataclass(slots=True)
class GgufTokenizer:
    """A tokenizer with what is used of those of transformers, which need not be imported."""

    backend_tokenizer: Tokenizer
    special_tokens_map: Mapping[str, str]   # 'bos_token', 'eos_token' ...: the token's text
    chat_template: str | None

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        token = self.special_tokens_map.get('eos_token')
        return None if token is None else self.backend_tokenizer.token_to_id(token)

    def get_vocab(self) -> dict[str, int]:
        """Return the ids of all tokens."""
        return self.backend_tokenizer.get_vocab()

    def get_added_vocab(self) -> dict[str, int]:
        """Return the ids of tokens that are found before text is split."""
        added = self.backend_tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items()}

    def get_chat_template(self) -> str | None:
        """Return the chat template."""
        return self.chat_template

    def save(self, folder: Path) -> None:
        """Write the files of a tokenizer into a model directory."""
        from transformers import PreTrainedTokenizerFast
        PreTrainedTokenizerFast(
            tokenizer_object=self.backend_tokenizer, chat_template=self.chat_template,
            **self.special_tokens_map).save_pretrained(folder)


def build_tokenizer(metadata: Mapping[str, object]) -> GgufTokenizer:
    """Return the tokenizer of `metadata`, in which `ARRAYS` are whole.

    Raises ``ValueError`` with the reason when it describes none, or one that is not known.
    """
    about = {key.removeprefix(_KEY): value for key, value in metadata.items()}
    tokens, kinds = _tokens(about), about.get('token_type')
    kinds = kinds or (_Kind.NORMAL,) * len(tokens)
    model = about.get('model')
    if model == 'gpt2':
        made, begin = _byte_level(about, tokens)
        defaults = {}
    elif model == 'llama':
        made, begin = _sentencepiece(about, tokens, kinds)
        defaults = {'bos': 1, 'eos': 2}
    else:
        raise ValueError(f'it is of kind {model!r:.80}; gpt2 (byte-level BPE) and llama '
                         '(SentencePiece) are known')
    special = {f'{name}_token': _special(tokens, about.get(f'{key}_token_id', defaults.get(name)))
               for name, key in (('bos', 'bos'), ('eos', 'eos'), ('unk', 'unknown'),
                                 ('pad', 'padding'))}
    special = {name: token for name, token in special.items() if token is not None}
    whole = {kind: [AddedToken(token, normalized=False, special=kind is not _Kind.USER_DEFINED)
                    for token, each in zip(tokens, kinds) if each == kind]
             for kind in (_Kind.UNKNOWN, _Kind.CONTROL, _Kind.USER_DEFINED)}
    made.add_special_tokens(whole[_Kind.UNKNOWN] + whole[_Kind.CONTROL] + list(special.values()))
    made.add_tokens(whole[_Kind.USER_DEFINED])
    made.post_processor = _ends(made, about, begin, special)
    return GgufTokenizer(made, {name: token.content for name, token in special.items()},
                         about.get('tokenizer.chat_template'))


def _tokens(about: Mapping[str, object]) -> Sequence[str]:
    tokens = about.get('tokens') or ()
    if not all(isinstance(token, str) for token in tokens) or not tokens:
        raise ValueError('it has no tokens')
    tokens = [token or f'[EMPTY_{i}]' for i, token in enumerate(tokens)]
    if len(set(tokens)) < len(tokens):
        raise ValueError('several of its tokens have the same text')
    return tokens


def _byte_level(about: Mapping[str, object], tokens: Sequence[str]) -> tuple[Tokenizer, bool]:
    """Return a byte-level BPE, and whether a prompt begins with the BOS token by default."""
    ids = {token: i for i, token in enumerate(tokens)}
    if 'merges' not in about:
        raise ValueError('it has no merges')
    pairs = {}
    for merge in about['merges']:
        at = merge.find(' ', 1)
        pair = merge[:at], merge[at + 1:]
        if at > 0 and pair[0] in ids and pair[1] in ids and ''.join(pair) in ids:
            pairs.setdefault(pair)
    split = split_of(about.get('pre'))
    made = Tokenizer(models.BPE(ids, list(pairs), ignore_merges=split.whole))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        *(pre_tokenizers.Split(Regex(pattern), 'isolated') for pattern in split.patterns),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    return made, split.begin


def _sentencepiece(about: Mapping[str, object], tokens: Sequence[str], kinds: Sequence[int]
                   ) -> tuple[Tokenizer, bool]:
    """Return a BPE of SentencePiece, whose merges are those that its tokens allow."""
    unknown = next((t for t, kind in zip(tokens, kinds) if kind == _Kind.UNKNOWN), None)
    made = Tokenizer(models.BPE(
        {token: i for i, token in enumerate(tokens)}, _merges(about, tokens, kinds),
        unk_token=unknown, fuse_unk=True, byte_fallback=_Kind.BYTE in kinds))
    prefix = about.get('add_space_prefix', True)
    blanks = normalizers.Replace(' ', _BLANK)
    made.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_BLANK), blanks]) if prefix else blanks)
    made.decoder = decoders.Sequence([
        decoders.Replace(_BLANK, ' '), decoders.ByteFallback(), decoders.Fuse(),
        *([decoders.Strip(' ', 1, 0)] if prefix else [])])
    return made, True


def _merges(about: Mapping[str, object], tokens: Sequence[str], kinds: Sequence[int]
            ) -> list[tuple[str, str]]:
    """Return all pairs of tokens that make a token, the one of the highest score first.

    Text never makes a token that is found before merges, or stands for a byte.
    """
    scores = about.get('scores') or (0.0,) * len(tokens)
    apart = {_Kind.UNKNOWN, _Kind.CONTROL, _Kind.USER_DEFINED, _Kind.BYTE}
    score = {t: s for t, s, kind in zip(tokens, scores, kinds) if kind not in apart}
    found = []
    for token in sorted(score, key=score.get, reverse=True):
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        found += [pair for pair in cuts if pair[0] in score and pair[1] in score]
    return found


def _special(tokens: Sequence[str], number: object) -> AddedToken | None:
    if not isinstance(number, int) or not 0 <= number < len(tokens):
        return None
    return AddedToken(tokens[number], normalized=False, special=True)


def _ends(made: Tokenizer, about: Mapping[str, object], begin: bool,
          special: Mapping[str, AddedToken]) -> processors.PostProcessor | None:
    """Return what puts BOS and EOS around a prompt, where the file has it so."""
    first, last = special.get('bos_token'), special.get('eos_token')
    first = first.content if first and about.get('add_bos_token', begin) else None
    last = last.content if last and about.get('add_eos_token', False) else None
    if first is None and last is None:
        return None
    around = [part for part in (first, '$A', last) if part]
    return processors.TemplateProcessing(
        ' '.join(around), special_tokens=[(name, made.token_to_id(name))
                                          for name in {first, last} - {None}])
