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

    They take no page of the KV cache: positions behind the last token's in its page hold them. A
    thought before an answer with a format has none: what follows its end is chosen in that format.
    """
    thought = sequence.thought
    if not sequence.request.decoding or (
            thought is not None and thought.then is not None and not thought.over):
        return 0
    end = len(sequence.tokens)
    return min(most, -end % PAGE_TOKENS, info.max_context - end,
               sequence.limit - sequence.generated - 1)


def looked_up(info: EngineInfo, sequence: TokenSequence, most: int) -> list[int]:
    """Return at most `most` guesses of what follows the last token, [] where there are none."""
    if sequence.lookup is None:
        return []
    guesses = sequence.lookup.propose(room_for_guesses(info, sequence, most))
    if sequence.images:   # a row of an image is no token that could follow
        guesses = list(takewhile(lambda guess: guess < IMAGE_TOKENS, guesses))
    return in_format(sequence, guesses)


def in_format(sequence: TokenSequence, guesses: list[int]) -> list[int]:
    """Return the first of some guesses, as many as the format of an answer allows."""
    if sequence.constraint is None:
        return guesses
    return guesses[:sequence.constraint.possible(guesses)]
