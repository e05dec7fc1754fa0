# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp in the build of the package cyllama: AVX2 and FMA, whatever the processor has."""

from collections.abc import Sequence
from importlib.metadata import version
import time

import numpy as np
from slice_ros.bench.engine.accuracy import CHUNK, perplexity


class Cyllama:
    """A GGUF file in cyllama, with one sequence for each of `slots` requests, as `LlamaCpp`.

    Raises ``ValueError`` when cyllama is not installed or refuses the file.
    """

    def __init__(self, path: str, threads: int, slots: int, max_context: int, rows: int) -> None:
        try:
            import cyllama.llama.llama_cpp as api
        except ImportError as error:
            raise ValueError(f'--peer cyllama needs the package cyllama, which is not installed '
                             f'({error})') from error
        api.disable_logging()
        params = api.LlamaModelParams()
        params.n_gpu_layers = 0
        context = api.LlamaContextParams()
        context.n_ctx = (slots + 1) * max_context
        context.n_batch = context.n_ubatch = rows
        context.n_seq_max = slots + 1
        context.n_threads = context.n_threads_batch = threads
        try:
            self._model = type('Model', (api.LlamaModel,), {})(path, params)
            self._context = api.LlamaContext(self._model, context)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f'cyllama cannot run {path}: {error}') from error
        # Cyllama 0.2 looks for the number at the model, which lacks it, when it returns logits.
        self._model.n_vocab = self._vocab = self._model.get_vocab().n_vocab
        self._batch = api.LlamaBatch(n_tokens=rows, embd=0, n_seq_max=slots + 1)
        self._slots, self._rows, self._filled = slots, rows, -1
        self.settings = {
            'name': 'llama.cpp', 'package': f'cyllama {version("cyllama")}',
            'model': self._model.desc, 'threads': threads,
            'device': 'cpu', 'how': 'a build for AVX2 and FMA'}

    def decode(self, batch: int, context: int) -> float:
        """Return the seconds of a decode step of `batch` requests with `context` tokens each."""
        self._fill(context)
        return self._run([1] * batch, range(batch), [context] * batch, range(batch))

    def prefill(self, tokens: int, context: int = 0) -> float:
        """Return the seconds of a prefill of `tokens` after `context` cached tokens."""
        self._fill(context)
        ids = [1 + i % (self._vocab - 1) for i in range(tokens)]
        return self._run(ids, [0] * tokens, range(context, context + tokens), [tokens - 1])

    def perplexity(self, tokens: Sequence[int]) -> float:
        """Return the perplexity of a text."""
        def logits(part: Sequence[int]) -> np.ndarray:
            self._fill(0)
            self._run(part, [0] * len(part), range(len(part)), range(len(part)))
            return np.stack([self._logits(i) for i in range(len(part))])
        return perplexity(tokens, logits, min(CHUNK, self._rows))

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """Return the `count` tokens that greedy decoding adds to a prompt."""
        self._fill(0)
        tokens, fed = list(prompt), 0
        while len(tokens) < len(prompt) + count:
            new = tokens[fed:]
            self._run(new, [0] * len(new), range(fed, len(tokens)), [len(new) - 1])
            fed = len(tokens)
            tokens.append(int(self._logits(len(new) - 1).argmax()))
        self._filled = -1  # the next fill starts again
        return tokens[len(prompt):]

    def _logits(self, row: int) -> np.ndarray:
        return np.array(self._context.get_logits_ith(row), np.float32)

    def _fill(self, context: int) -> None:
        # Not timed: removes what the last step added.
        first = context if context == self._filled else -1
        for slot in range(self._slots):
            self._context.memory_seq_rm(slot, first, -1)
        if first < 0 < context:
            self._run([1] * context, [0] * context, range(context), [context - 1])
            for slot in range(1, self._slots):
                self._context.memory_seq_cp(0, slot, -1, -1)
        self._filled = context

    def _run(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int],
             wanted: Sequence[int]) -> float:
        self._batch.clear()
        wanted = set(wanted)
        for i, (token, slot, position) in enumerate(zip(ids, slots, positions)):
            self._batch.add(token, position, [slot], i in wanted)
        started = time.perf_counter()
        self._context.decode(self._batch)
        self._context.synchronize()
        return time.perf_counter() - started
