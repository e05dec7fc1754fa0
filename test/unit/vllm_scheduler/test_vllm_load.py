# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The peers of `slice_bench serve` on vLLM itself, with a small model, in real time."""

from pathlib import Path
import sys

import pytest
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.bench.vllm.vllm_peer import PEERS, VllmPeer
from slice_ros.request import State
from slice_ros.slo import SloClass

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1200)]

LOOSE, NONE = SloClass('loose', ttft_ms=6e5, tpot_ms=1e5, utility=5.0), SloClass('none')
LOAD = [Arrival(.05 * i, (LOOSE, NONE)[i % 2], 20 + 9 * i, 3 + 4 * i, 60) for i in range(8)]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """Return the directory of a small model with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM
    path = tmp_path_factory.mktemp('model')
    LlamaForCausalLM(LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=512,
        bos_token_id=None, eos_token_id=None, pad_token_id=None)).save_pretrained(path)
    return path


@pytest.mark.parametrize('peer', PEERS)
def test_answers_have_the_lengths_of_the_workload(peer, model):
    ended = []
    with VllmPeer(peer, sys.executable, Path(model), 'float32', LOAD, 4, 8, 1) as started:
        assert started.about['weights'] == 'float32'
        for _ in range(2):
            requests, steps = started.serve(LOAD, 3, 256, 300.0, lambda: ended.append(1))
    assert len(ended) == 2 * len(LOAD)
    for request, arrival in zip(requests, LOAD):
        assert request.state is State.FINISHED and request.generated == arrival.output_tokens
        assert request.arrival <= request.first_token_at <= request.last_token_at
    longest = max(arrival.output_tokens for arrival in LOAD)
    assert longest <= steps <= sum(arrival.output_tokens for arrival in LOAD)
