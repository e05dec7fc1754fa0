# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How many guesses a sequence may feed, and those that its own tokens give."""

from itertools import takewhile

from slice_ros.engine.config import EngineInfo
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.sequence import TokenSequence
from slice_ros.engine.vision.image_tokens import IMAGE_TOKENS


def room_for_guesses(info: EngineInfo, sequence: TokenSequence, most: int) -> int:
    """Return how many guesses a sequence may feed, at most `most`.

    They take no page of the KV cache: positions behind the last token's in its page hold them.
    """
    end = len(sequence.tokens)
    return min(most, -end % PAGE_TOKENS, info.max_context - end,
               sequence.limit - sequence.generated - 1)


def looked_up(info: EngineInfo, sequence: TokenSequence, most: int) -> list[int]:
    """Return at most `most` guesses of what follows the last token, [] where there are none."""
    if sequence.lookup is None or not sequence.request.decoding:
        return []
    guesses = sequence.lookup.propose(room_for_guesses(info, sequence, most))
    if sequence.images:   # a row of an image is no token that could follow
        guesses = list(takewhile(lambda guess: guess < IMAGE_TOKENS, guesses))
    return guesses
