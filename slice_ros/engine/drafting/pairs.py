# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a model and its draft model must have in common: the vocabulary."""

from slice_ros.engine.text.vocabulary import Vocabulary
from slice_ros.errors import ModelError


def check_vocabularies(name: str, vocabulary: Vocabulary, draft: str, other: Vocabulary) -> None:
    """Check that the ids that two models have both are those of the same tokens.

    Special tokens may have other names: no guess depends on them. Raises ``ModelError`` naming
    a token that differs, `name` and `draft` being the names of the models.
    """
    names = {token: text for text, token in other.ids().items()}
    for text, token in vocabulary.ids().items():
        if names.get(token, text) != text and not (
                token in vocabulary.special and token in other.special):
            raise ModelError(
                f'{draft} has another vocabulary than {name}: token {token} is '
                f'{names[token]!r:.40}, not {text!r:.40}; name a model of the same family')
