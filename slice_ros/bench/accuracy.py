"""How well an engine's weights predict a text: perplexity, the figure that precision costs."""

from collections.abc import Callable
import math

import numpy as np
from slice_ros.engine import Engine
from slice_ros.engine.runner import Segment
from slice_ros.installed import share

CHUNK = 512   # tokens predicted with nothing but each other before them
_ROWS = 64    # fed in one step


def text_tokens(engine: Engine) -> list[int]:
    """Return the tokens of the text: the beginning of Alice in Wonderland (public domain)."""
    text = (share() / 'config' / 'texts' / 'alice.txt').read_text()
    return engine._encoder.ids(text)  # longer than a prompt may be


def perplexity(tokens: list[int], logits: Callable[[list[int]], np.ndarray],
               chunk: int = CHUNK) -> float:
    """Return exp of the mean negative log-likelihood of each token given those before it.

    `logits` returns float32 [tokens, vocab] for a chunk that starts with nothing cached.
    """
    lost = count = 0.0
    for first in range(0, len(tokens) - 1, chunk):
        part = tokens[first:first + chunk]
        if len(part) < 2:
            break
        rows = logits(part)[:-1].astype(np.float64)
        top = rows.max(1)
        whole = np.log(np.exp(rows - top[:, None]).sum(1)) + top
        lost += float((whole - rows[np.arange(len(rows)), part[1:]]).sum())
        count += len(rows)
    return math.exp(lost / count)


def engine_perplexity(engine: Engine, tokens: list[int]) -> float:
    """Return the perplexity of an engine; it takes one free slot meanwhile."""
    slot = engine._slots.take()
    chunk = min(CHUNK, engine.info.max_context)
    engine._slots.reserve([(slot, chunk)])
    engine._forget_dropped()

    def logits(part: list[int]) -> np.ndarray:
        steps = []
        for at in range(0, len(part), _ROWS):
            rows = [Segment(slot, at + i, [token], True)
                    for i, token in enumerate(part[at:at + _ROWS])]
            steps.append(engine._runner.forward(rows).cpu().numpy().copy())
        return np.concatenate(steps)
    try:
        return perplexity(tokens, logits, chunk)
    finally:
        engine._slots.give(slot)
        engine._forget_dropped()
