# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""transformers as the peer of the engine benchmark: the same weights, with its static cache."""

from collections.abc import Sequence
from pathlib import Path
import time

import numpy as np
from slice_ros.bench.engine.accuracy import CHUNK, perplexity
from slice_ros.engine.checkpoints import hf_directory
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.checkpoints.tensor_files import Tensors
import torch
import transformers

TYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32}


class Transformers:
    """A model in transformers, with one static cache for each number of requests in a step.

    `path` is a model directory or a .gguf file; with `random` it is a directory of
    `shapes.write`. On CUDA, decode steps are compiled as `generate` does for static caches, one
    graph for each batch size; prefills are not compiled. `settings` describes what runs and how.
    Raises ``ValueError`` for a model that transformers does not know.
    """

    def __init__(self, path: str, random: bool, weights: str, device: str, threads: int,
                 max_context: int) -> None:
        torch.set_num_threads(threads)
        self._device, self._length = torch.device(device), max_context
        self._model = _model(Path(path), random, TYPES[weights], device)
        self._step, compiled = self._model, self._device.type == 'cuda'
        if compiled:
            torch._dynamo.config.recompile_limit = 64  # batch sizes
            self._step = torch.compile(self._model, mode='reduce-overhead', dynamic=False)
        self._caches: dict[int, transformers.StaticCache] = {}
        self._vocab = self._model.config.vocab_size
        self.settings = {
            'name': 'transformers', 'package': f'transformers {transformers.__version__}',
            'model': weights, 'threads': threads, 'device': device, 'compiled': compiled,
            'how': f'static cache, {"compiled" if compiled else "not compiled"}, attention '
                   f'{self._model.config._attn_implementation}, torch {torch.__version__}'}

    def decode(self, batch: int, context: int) -> float:
        """Return the seconds of a decode step of `batch` requests with `context` tokens each."""
        return self._timed(self._step, [[1]] * batch, context)[0]

    def prefill(self, tokens: int, context: int = 0) -> float:
        """Return the seconds of a prefill of `tokens` after `context` cached tokens."""
        ids = [1 + i % (self._vocab - 1) for i in range(tokens)]
        return self._timed(self._model, [ids], context)[0]

    def perplexity(self, tokens: Sequence[int]) -> float:
        """Return the perplexity of a text."""
        @torch.no_grad()
        def logits(part: Sequence[int]) -> np.ndarray:
            ids = torch.tensor([list(part)], device=self._device)
            return self._model(ids, use_cache=False).logits[0].float().cpu().numpy()
        longest = self._model.config.max_position_embeddings
        return perplexity(tokens, logits, min(CHUNK, longest))

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """Return the `count` tokens that greedy decoding adds to a prompt."""
        tokens = [self._timed(self._model, [list(prompt)], 0)[1][0]]
        while len(tokens) < count:
            at = len(prompt) + len(tokens) - 1
            tokens.append(self._timed(self._step, [tokens[-1:]], at)[1][0])
        return tokens

    @torch.no_grad()
    def _timed(self, run, rows: list[list[int]], context: int) -> tuple[float, list[int]]:
        """Feed `rows`, all of one length, after `context` cached tokens.

        Return the seconds until the most likely next tokens are known, and these tokens.
        """
        cache = self._cache(len(rows))
        for layer in cache.layers:  # the cached numbers may be any
            layer.cumulative_length.fill_(context)
        started = time.perf_counter()
        ids = torch.tensor(rows, device=self._device)
        positions = torch.arange(context, context + len(rows[0]), device=self._device)[None]
        if run is not self._model:
            torch.compiler.cudagraph_mark_step_begin()
        logits = run(input_ids=ids, position_ids=positions, past_key_values=cache,
                     logits_to_keep=1).logits
        tokens = logits[:, -1].argmax(-1).tolist()  # waits for the device
        return time.perf_counter() - started, tokens

    def _cache(self, batch: int) -> transformers.StaticCache:
        if batch not in self._caches:
            cache = transformers.StaticCache(config=self._model.config, max_cache_len=self._length)
            self._model(input_ids=torch.ones(batch, 1, dtype=torch.int64, device=self._device),
                        past_key_values=cache, logits_to_keep=1)  # allocates the cache
            for layer in cache.layers:
                layer.keys.normal_()
                layer.values.normal_()
            self._caches[batch] = cache
        return self._caches[batch]


def _model(path: Path, random: bool, dtype: torch.dtype, device: str):
    if not path.is_dir():
        source = GgufFile(path)
        config = transformers.AutoConfig.for_model(**source.config())
        tensors = GgufTensors(source, np.float16)
    else:
        config = hf_directory.read_config(path)
    if random:
        from slice_ros.bench.engine.shapes import RandomTensors
        tensors = RandomTensors(config, torch.device(device))
    elif path.is_dir():
        tensors = Tensors(path)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        # GGUF files of Gemma hold the sum of the weight and the 1 that is added to it.
        added = 1.0 if getattr(config, 'norm_offset', None) == 0 else 0.0
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name] - added if 'norm' in name else tensors[name])
    return model
