# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of weight formats: perplexity, and the first token that differs from fp32."""

from collections.abc import Callable, Sequence
import math
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.installed import share

if TYPE_CHECKING:  # the process of a peer does not import the engine
    from slice_ros.engine import Engine

CHUNK = 512   # tokens in each independent part of the text
LENGTH = 96   # tokens of greedy text that are compared
_ROWS = 64    # tokens fed in one step
_CHATS = ('List ten things that a household robot should check before it starts to move.',
          'Explain step by step how to get from the kitchen to the charging station.',
          'Tell me a short story about a robot that learns to paint.')
_TEXTS = ('The three laws of robotics are',
          'def bubble_sort(items):\n    """Sort a list in place."""\n')


def text_tokens(engine: 'Engine') -> list[int]:
    """Return the tokens of a text: the beginning of Alice in Wonderland (public domain)."""
    text = (share() / 'config' / 'texts' / 'alice.txt').read_text()
    return engine._encoder.ids(text)  # not `encode`: it is longer than a prompt may be


def perplexity(tokens: Sequence[int], logits: Callable[[Sequence[int]], np.ndarray],
               chunk: int = CHUNK) -> float:
    """Return exp of the mean negative log-likelihood of each token given those before it.

    `logits` returns float32 [tokens, vocab] for a chunk that starts with nothing cached.
    """
    loss = count = 0.0
    for first in range(0, len(tokens) - 1, chunk):
        part = tokens[first:first + chunk]
        if len(part) < 2:
            break
        rows = logits(part)[:-1].astype(np.float64)
        top = rows.max(1)
        whole = np.log(np.exp(rows - top[:, None]).sum(1)) + top
        loss += float((whole - rows[np.arange(len(rows)), part[1:]]).sum())
        count += len(rows)
    return math.exp(loss / count)


def engine_perplexity(engine: 'Engine', tokens: Sequence[int], chunk: int = CHUNK) -> float:
    """Return the perplexity of an engine; it uses one free slot meanwhile."""
    from slice_ros.engine.runners.runner import Segment
    slot = engine._slots.take()
    chunk = min(chunk, engine.info.max_context)
    engine._slots.reserve([(slot, chunk)])
    engine._forget_dropped()

    def logits(part: Sequence[int]) -> np.ndarray:
        steps = []
        for at in range(0, len(part), _ROWS):
            segments = [Segment(slot, at + i, [token], True)
                        for i, token in enumerate(part[at:at + _ROWS])]
            rows = engine._runner.forward(segments)
            steps.append(np.array(rows if isinstance(rows, np.ndarray) else rows.cpu()))
        return np.concatenate(steps)
    try:
        return perplexity(tokens, logits, chunk)
    finally:
        engine._slots.give(slot)
        engine._forget_dropped()


def correctness_prompts(engine: 'Engine') -> list[list[int]]:
    """Return the tokens of five prompts: three turns of a chat and two beginnings of a text."""
    from slice_ros.errors import RequestError
    prompts = [engine.encode(text) for text in _TEXTS]
    for text in _CHATS:
        try:
            prompts.append(engine.encode_chat([('user', text)]))
        except RequestError:  # a model without a chat template
            prompts.append(engine.encode(text))
    return prompts


def greedy_texts(engine: 'Engine', prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the tokens that greedy decoding adds to each prompt: `LENGTH`, or up to a stop."""
    from slice_ros.engine import Sampling
    live = [engine.open(list(prompt), LENGTH, Sampling()) for prompt in prompts]
    for sequence in live:  # at most as many at a time as there are slots
        while not sequence.finish_reason:
            others = [s for s in live if not s.finish_reason][:engine.info.slots]
            engine.step([(s, s.pending) for s in others])
            for s in others:
                if s.finish_reason:
                    engine.close(s)
    return [s.tokens[s.prompt_tokens:] for s in live]


def first_divergence(texts: Sequence[Sequence[int]],
                     exact: Sequence[Sequence[int]]) -> float:
    """Return the median index of the first token that differs from fp32; `LENGTH` for none."""
    return median(
        next((i for i, (a, b) in enumerate(zip(text, right)) if a != b), LENGTH)
        for text, right in zip(texts, exact))
