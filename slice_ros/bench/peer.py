"""llama.cpp as the peer of the engine benchmark, through the batch API of llama-cpp-python."""

from collections.abc import Sequence
import ctypes
import os
import time

import numpy as np


class LlamaCpp:
    """A GGUF file in llama.cpp, with one sequence for each of `slots` requests.

    Raises ``ValueError`` when llama-cpp-python is not installed or refuses the file, or OpenMP
    would slow it down.
    """

    def __init__(self, path: str, threads: int, slots: int, max_context: int, rows: int) -> None:
        try:
            import llama_cpp
        except ImportError as error:
            raise ValueError('--peer llama.cpp needs the package llama-cpp-python, which is not '
                             f'installed ({error})') from error
        if os.environ.get('OMP_WAIT_POLICY', '').upper() != 'ACTIVE':
            # The engine's default, which holds for the whole process, halves the peer's speed.
            raise ValueError('--peer llama.cpp needs OMP_WAIT_POLICY=ACTIVE in the environment: '
                             "else the peer's threads sleep between operators, and it is slower "
                             'than it is by itself')
        self._api = api = llama_cpp
        self._quiet = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self._quiet, ctypes.c_void_p(0))
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = api.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise ValueError(f'llama.cpp cannot load {path}')
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
        self._slots, self._filled = slots, 0
        self._vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))

    def decode(self, batch: int, context: int) -> float:
        """Return the seconds of a decode step of `batch` sequences behind `context` tokens."""
        self._fill(context)
        return self._run([1] * batch, range(batch), [context] * batch, range(batch))

    def prefill(self, tokens: int, context: int = 0) -> float:
        """Return the seconds of a prefill of `tokens` behind `context` tokens."""
        self._fill(context)
        ids = [1 + i % (self._vocab - 1) for i in range(tokens)]
        return self._run(ids, [0] * tokens, range(context, context + tokens), [tokens - 1])

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return float32 [tokens, vocab] for tokens with nothing cached before them."""
        self._fill(0)
        self._run(ids, [0] * len(ids), range(len(ids)), range(len(ids)))
        found = self._api.llama_get_logits(self._context)
        return np.ctypeslib.as_array(found, (len(ids), self._vocab)).copy()

    def close(self) -> None:
        """Free what llama.cpp holds."""
        self._api.llama_batch_free(self._batch)
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def _fill(self, context: int) -> None:
        # What the last step added is taken away, outside of what is timed.
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
