# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The runner of all other model families: transformers' own forward, decodes in one batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
import inspect
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from slice_ros.engine.kv.slots import PAGE_TOKENS
from slice_ros.engine.runners import transformers_batch as batches
from slice_ros.engine.runners.runner import RunnerInfo, Segment
from slice_ros.errors import ModelError, one_line
import torch

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

_NAMES = {torch.float16: 'fp16', torch.bfloat16: 'bf16', torch.float32: 'fp32'}
# Prompts of the trial that compares a batch with its rows alone, and what follows them: token ids
# that every model has.
_TRIAL = ((1, 2, 3, 4, 5), (3, 1), (2, 4, 1, 3))
_NEXT = (1, 2)
# Largest difference that a batch may make, relative to the largest logit: sums in another order.
_ALIKE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
# What mixed states give is no rounding.
_WRONG = 0.3
_COPIES = 2       # of keys and values: those of the slots, and those of a batch


class TransformersRunner:
    """A `Runner` that gives each slot a transformers cache of its own.

    Decode rows are stacked into one forward pass where a trial at the start says that the model
    computes a batch as it computes its rows alone, but for rounding. Prefill chunks run alone,
    and token by token behind others where the model forgets its states in front of several.
    The page table only counts pages; `pages_for(bytes of a page)` says how many there may be.
    """

    memory = None   # each slot has a cache of its own, of the model's kind

    def __init__(self, model: 'PreTrainedModel', slots: int,
                 pages_for: Callable[[int], int]) -> None:
        self._model = model
        self._caches: list[DynamicCache | None] = [None] * slots
        self._points: list[tuple[int, list] | None] = [None] * slots   # before the last step
        self._takes_positions = 'position_ids' in inspect.signature(model.forward).parameters
        self._token_bytes = 0.0   # of keys and values
        weight_bytes = sum(p.nbytes for p in model.parameters())
        self.info = RunnerInfo(
            path='transformers', kernels='', pages=0, weight_bytes=weight_bytes,
            streamed_bytes=weight_bytes, kv_bytes=0, kv_bits=8 * model.dtype.itemsize,
            shares_prefixes=False, asynchronous=False, hidden=0, verifies=False,
            weights=_NAMES.get(model.dtype))
        self._batches = self._chunks = False
        self._batches = self._agrees()
        page_bytes = max(int(_COPIES * self._token_bytes * PAGE_TOKENS), 1)
        pages = pages_for(page_bytes)
        self.info = replace(
            self.info, pages=pages, kv_bytes=pages * page_bytes if self._token_bytes else 0,
            kernels='transformers, ' + ('decodes in one batch' if self._batches else
                                        'one request after the other')
            + ('' if self._chunks else ', chunks of a prompt token by token'))

    @classmethod
    def load(cls, path: Path, config: 'PreTrainedConfig', weights: str, device: torch.device,
             slots: int, pages_for: Callable[[int], int], tensors: int) -> 'TransformersRunner':
        """Load a Hugging Face directory whose files have `tensors` tensors.

        Raises ``ModelError`` when the model is no decoder, or damaged.
        """
        # Imported only here: transformers' models take seconds and 90 MB.
        from transformers import AutoModelForCausalLM
        dtype = torch.float32 if device.type == 'cpu' and weights == 'fp16' else {
            'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32}[weights]
        if getattr(config, 'is_encoder_decoder', False):
            raise ModelError(f'{path} is an encoder-decoder model ({config.model_type}): '
                             'only decoder-only language models can be served')
        layers = getattr(config, 'num_hidden_layers', 0)
        if not isinstance(layers, int) or layers > tensors:
            raise ModelError(f'{path}: the config speaks of {layers!r:.80} layers, and the files '
                             f'hold {tensors} tensors: they are of different models, or damaged')
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                str(path), config=config, dtype=dtype, local_files_only=True,
                trust_remote_code=False, use_safetensors=True, output_loading_info=True)
        except Exception as error:  # each family raises its own
            raise ModelError(f'{path} cannot be loaded as a language model: {one_line(error)}'
                             ) from error
        if report['missing_keys']:
            raise ModelError(f'{path} holds no tensor {sorted(report["missing_keys"])[0]}: '
                             'the weights are incomplete or of another model')
        return cls(model.eval().to(device), slots, pages_for)

    def _agrees(self) -> bool:
        """Return whether a batch gives what its rows give alone; measure what a token takes.

        Raises ``ModelError`` where not even requests in turn do: the model keeps what it has read
        outside of its cache. One that fails is left to whoever tries out the engine.
        """
        prompts = _TRIAL[:len(self._caches)]
        try:
            whole = self.forward([Segment(slot, 0, prompt + _NEXT, True)
                                  for slot, prompt in enumerate(prompts)])
            self._token_bytes = batches.token_bytes(self._caches[0])
            self._chunks = True
            off = _off(self._in_two_chunks(prompts), whole)
            self._chunks = off <= _ALIKE.get(self._model.dtype, 0.0)
            if len(prompts) > 1 and batches.can_stack(self._caches[0]):
                off = _off(self._in_steps(prompts, self._together), whole)
                if off <= _ALIKE.get(self._model.dtype, 0.0):
                    return True
                logger.info('transformers: the logits of a batch are off by %.1e', off)
            off = _off(self._in_steps(prompts, self.forward), whole)
        except Exception as error:   # each family raises its own
            logger.info('transformers: a trial failed: %s', one_line(error))
            return False
        finally:
            for slot in range(len(prompts)):
                self.forget(slot)
        if off > _WRONG:
            raise ModelError(
                f'{self._model.config.model_type} gives other logits in steps than at once: it '
                'keeps what it has read outside of its cache, so that requests would mix, or '
                'cannot go on after a step; it cannot be served')
        return False

    def _in_two_chunks(self, prompts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Return the logits after the prompts, and then the tokens behind them at once."""
        self.forward([Segment(slot, 0, prompt, False) for slot, prompt in enumerate(prompts)])
        return self.forward([Segment(slot, len(prompt), _NEXT, True)
                             for slot, prompt in enumerate(prompts)])

    def _in_steps(self, prompts: Sequence[tuple[int, ...]],
                  feed: Callable[[Sequence[Segment]], torch.Tensor]) -> torch.Tensor:
        """Return the logits after the prompts and a token a step; the slots take turns."""
        self.forward([Segment(slot, 0, prompt, False) for slot, prompt in enumerate(prompts)])
        for step, token in enumerate(_NEXT):
            logits = feed([Segment(slot, len(prompt) + step, (token,), True)
                           for slot, prompt in enumerate(prompts)])
        return logits

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment], states: np.ndarray | None = None
                ) -> torch.Tensor:
        """As `Runner.forward`; what is before the head, every model names in its own way."""
        for s in segments:
            self._prepare(s)
        rows = [s for s in segments if self._batches and len(s.ids) == 1 and s.start > 0]
        logits = {id(s): row for group in self._groups(rows) if len(group) > 1
                  for s, row in zip(group, self._together(group))}
        for s in segments:
            if id(s) not in logits:
                logits[id(s)] = self._alone(s)
        wanted = [logits[id(s)] for s in segments if s.wants_logits]
        return torch.stack(wanted) if wanted else torch.empty(0, 0)

    def _prepare(self, segment: Segment) -> None:
        """Have the cache of a slot end where the segment begins, and remember how to get back."""
        from transformers import DynamicCache
        cache = self._caches[segment.slot]
        if cache is None or segment.start == 0:
            self._caches[segment.slot] = DynamicCache(config=self._model.config)
            self._points[segment.slot] = None
            return
        if batches.length_of(cache) > segment.start:   # written by a step that failed
            batches.undo(cache, self._points[segment.slot], segment.start)
        self._points[segment.slot] = batches.undo_point(cache)

    def _groups(self, rows: Sequence[Segment]) -> list[list[Segment]]:
        """Return the rows in batches: padding reads fewer bytes than one more pass would."""
        groups: list[list[Segment]] = []
        for row in sorted(rows, key=lambda s: -s.start):
            if groups:
                longest = groups[-1][0].start
                padding = sum(longest - s.start for s in (*groups[-1], row))
                if _COPIES * padding * self._token_bytes <= self.info.weight_bytes:
                    groups[-1].append(row)
                    continue
            groups.append([row])
        return groups

    @torch.inference_mode()
    def _together(self, rows: Sequence[Segment]) -> torch.Tensor:
        """Feed one token to each of some slots in one pass; return logits [rows, vocab]."""
        device, lengths = self._model.device, [s.start for s in rows]
        caches = [self._caches[s.slot] for s in rows]
        batch = batches.stack(caches, lengths)
        positions = {'position_ids': torch.tensor(lengths, device=device)[:, None]
                     } if self._takes_positions else {}
        out = self._model(
            input_ids=torch.tensor([list(s.ids) for s in rows], device=device),
            attention_mask=batches.mask(lengths, device), past_key_values=batch, use_cache=True,
            logits_to_keep=1, **positions)
        batches.unstack(batch, caches)
        return out.logits[:, -1].float()

    def _alone(self, segment: Segment) -> torch.Tensor:
        """Feed the tokens of one slot; return logits [vocab]."""
        ids = list(segment.ids)
        at, device = segment.start, self._model.device
        for fed in [ids] if self._chunks or at == 0 else [[token] for token in ids]:
            # A cache whose first layer has states does not know how long it is.
            positions = {'position_ids': torch.arange(at, at + len(fed), device=device)[None]
                         } if self._takes_positions else {}
            out = self._model(
                input_ids=torch.tensor([fed], device=device),
                past_key_values=self._caches[segment.slot], use_cache=True, logits_to_keep=1,
                **positions)
            at += len(fed)
        return out.logits[0, -1].float()

    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """As `Runner.greedy`; the step is computed before this returns."""
        return self.forward(segments).argmax(-1).tolist

    def share(self, source: int, slot: int, tokens: int) -> None:
        """Raise ``NotImplementedError``: slots have separate caches."""
        raise NotImplementedError('the slots of transformers have separate caches')

    def forget(self, slot: int) -> None:
        """As `Runner.forget`: drops the cache of the slot, and the way back."""
        self._caches[slot] = self._points[slot] = None

    def fill(self, slots: Sequence[int], ids: Sequence[int]) -> None:
        """As `Runner.fill`: feeds `ids` to each slot."""
        for slot in slots:
            self.forward([Segment(slot, 0, ids, False)])


def _off(logits: torch.Tensor, right: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest logit."""
    return float((logits - right).abs().max() / right.abs().max())
