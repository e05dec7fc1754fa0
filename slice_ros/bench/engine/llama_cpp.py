# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp as the peer of the engine benchmark, through the batch API of llama-cpp-python."""

from collections.abc import Sequence
import ctypes
import os
from pathlib import Path
import tempfile
import time

import numpy as np
from slice_ros.bench.engine.accuracy import CHUNK, perplexity

_FLASH_ATTENTION = {-1: 'auto', 0: 'off', 1: 'on'}


class LlamaCpp:
    """A GGUF file in llama.cpp, with one sequence for each of `slots` requests.

    With `requantise` it runs the same weights in Q8_0, converted by its own tool. `settings`
    describes what runs and how. Raises ``ValueError`` when llama-cpp-python is not installed or
    refuses the file.
    """

    def __init__(self, path: str, threads: int, slots: int, max_context: int, rows: int,
                 requantise: bool = False) -> None:
        try:
            import llama_cpp
        except ImportError as error:
            raise ValueError('--peer llama.cpp needs the package llama-cpp-python, which is not '
                             f'installed ({error})') from error
        self._api = api = llama_cpp
        self._quiet = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self._quiet, ctypes.c_void_p(0))
        api.llama_backend_init()
        if requantise:
            with tempfile.TemporaryDirectory() as folder:
                made = str(Path(folder) / 'q8_0.gguf')
                self._requantise(path, made, threads)
                self._load(made)  # mapped: the file may be deleted
        else:
            self._load(path)
        params = api.llama_context_default_params()
        params.n_ctx = (slots + 1) * max_context
        params.n_batch = params.n_ubatch = rows
        params.n_seq_max = slots + 1
        params.n_threads = params.n_threads_batch = threads
        if hasattr(params, 'kv_unified'):
            params.kv_unified = False
        self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            raise ValueError(f'llama.cpp cannot make a context for {path}')
        self._memory = api.llama_get_memory(self._context)
        self._batch = api.llama_batch_init(rows, 0, slots + 1)
        self._slots, self._filled, self._rows = slots, 0, rows
        self._vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))
        description = ctypes.create_string_buffer(256)
        api.llama_model_desc(self._model, description, len(description))
        flash = getattr(params, 'flash_attn_type', None)
        self.settings = {
            'name': 'llama.cpp', 'package': f'llama-cpp-python {api.__version__}',
            'model': description.value.decode(errors='replace'), 'requantised': requantise,
            'threads': threads, 'system': api.llama_print_system_info().decode(errors='replace'),
            'flash_attention': _FLASH_ATTENTION.get(flash, flash), 'device': 'cpu',
            'omp_wait_policy': os.environ.get('OMP_WAIT_POLICY')}
        self.settings['how'] = (f'flash attention {self.settings["flash_attention"]}, '
                                f'{self.settings["system"]}')

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
            found = self._api.llama_get_logits(self._context)
            return np.ctypeslib.as_array(found, (len(part), self._vocab)).copy()
        return perplexity(tokens, logits, min(CHUNK, self._rows))

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """Return the `count` tokens that greedy decoding adds to a prompt."""
        self._fill(0)
        tokens, fed = list(prompt), 0
        while len(tokens) < len(prompt) + count:
            new = tokens[fed:]
            self._run(new, [0] * len(new), range(fed, len(tokens)), [len(new) - 1])
            fed = len(tokens)
            found = self._api.llama_get_logits_ith(self._context, len(new) - 1)
            tokens.append(int(np.ctypeslib.as_array(found, (self._vocab,)).argmax()))
        self._filled = -1  # the next fill starts again
        return tokens[len(prompt):]

    def _requantise(self, path: str, made: str, threads: int) -> None:
        api = self._api
        params = api.llama_model_quantize_default_params()
        params.ftype = api.LLAMA_FTYPE_MOSTLY_Q8_0
        params.allow_requantize = True
        params.nthread = threads
        if api.llama_model_quantize(path.encode(), made.encode(), ctypes.byref(params)):
            raise ValueError(f'llama.cpp cannot requantise {path} to Q8_0')

    def _load(self, path: str) -> None:
        params = self._api.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = self._api.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise ValueError(f'llama.cpp cannot load {path}')

    def _fill(self, context: int) -> None:
        # Not timed: removes what the last step added.
        remove, copy = self._api.llama_memory_seq_rm, self._api.llama_memory_seq_cp
        if context == self._filled:
            for slot in range(self._slots):
                remove(self._memory, slot, context, -1)
            return
        for slot in range(self._slots):
            remove(self._memory, slot, -1, -1)
        if context:
            self._run([1] * context, [0] * context, range(context), [])
            for slot in range(1, self._slots):
                copy(self._memory, 0, slot, -1, -1)
        self._filled = context

    def _run(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int],
             wanted: Sequence[int]) -> float:
        batch, wanted = self._batch, set(wanted)
        batch.n_tokens = len(ids)
        for i, (token, slot, position) in enumerate(zip(ids, slots, positions)):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0] = slot
            batch.logits[i] = i in wanted
        started = time.perf_counter()
        if self._api.llama_decode(self._context, batch):
            raise ValueError(f'llama.cpp refused a step of {len(ids)} tokens')
        self._api.llama_synchronize(self._context)
        return time.perf_counter() - started
