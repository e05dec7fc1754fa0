# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The runner of all other model families: transformers' own forward, one request at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slice_ros.engine.runners.runner import RunnerInfo, Segment
from slice_ros.errors import ModelError, one_line
import torch

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

_NAMES = {torch.float16: 'fp16', torch.bfloat16: 'bf16', torch.float32: 'fp32'}


class TransformersRunner:
    """A `Runner` that feeds each segment alone; each slot has a transformers cache of its own.

    The page table only counts pages.
    """

    def __init__(self, model: 'PreTrainedModel', slots: int, pages: int) -> None:
        self._model = model
        self._caches: list[DynamicCache | None] = [None] * slots
        weight_bytes = sum(p.nbytes for p in model.parameters())
        self.info = RunnerInfo(
            path='transformers', kernels='transformers', pages=pages, weight_bytes=weight_bytes,
            streamed_bytes=weight_bytes, kv_bytes=0, shares_prefixes=False, asynchronous=False,
            weights=_NAMES.get(model.dtype))

    @classmethod
    def load(cls, path: Path, config: 'PreTrainedConfig', weights: str, device: torch.device,
             slots: int, pages: int, tensors: int) -> 'TransformersRunner':
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
        return cls(model.eval().to(device), slots, pages)

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """As `Runner.forward`."""
        from transformers import DynamicCache
        logits = []
        for s in segments:
            cache = self._caches[s.slot]
            if cache is None or s.start == 0:
                cache = self._caches[s.slot] = DynamicCache(config=self._model.config)
            elif (excess := cache.get_seq_length() - s.start) > 0:
                cache.crop(-excess)  # written by a step that failed
            out = self._model(
                input_ids=torch.tensor([list(s.ids)], device=self._model.device),
                past_key_values=cache, use_cache=True, logits_to_keep=1)
            if s.wants_logits:
                logits.append(out.logits[0, -1].float())
        return torch.stack(logits) if logits else torch.empty(0, 0)

    def greedy(self, segments: Sequence[Segment]) -> Callable[[], list[int]]:
        """As `Runner.greedy`; the step is computed before this returns."""
        return self.forward(segments).argmax(-1).tolist

    def share(self, source: int, slot: int, tokens: int) -> None:
        """Raise ``NotImplementedError``: slots have separate caches."""
        raise NotImplementedError('the slots of transformers have separate caches')

    def forget(self, slot: int) -> None:
        """As `Runner.forget`: drops the cache of the slot."""
        self._caches[slot] = None

    def fill(self, slots: Sequence[int], ids: Sequence[int]) -> None:
        """As `Runner.fill`: feeds `ids` to each slot."""
        for slot in slots:
            self.forward([Segment(slot, 0, ids, False)])
