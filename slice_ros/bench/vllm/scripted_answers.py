# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Answers of vLLM that end when the workload says so, which its scheduler does not know."""

import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

LENGTH = 'answer_tokens'   # argument of a request
STOP = 1                   # the token that ends an answer, and is no other of its tokens


class ScriptedAnswers(AdapterLogitsProcessor):
    """Forces `STOP` as the last token of an answer, and forbids it before."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params):
        """Return what is done to the logits of a request."""
        length = (params.extra_args or {}).get(LENGTH)
        if length is None:
            return None

        def scripted(output: list[int], logits: torch.Tensor) -> torch.Tensor:
            if len(output) + 1 < length:
                logits[STOP] = -torch.inf
            else:
                stop = logits[STOP].clone().nan_to_num(0.0, 0.0, 0.0)
                logits.fill_(-torch.inf)
                logits[STOP] = stop
            return logits
        return scripted
