# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM's engine with our scheduler on a real model: a pause changes nothing of an answer."""

import pytest
from slice_ros.scheduling.policy import Policy, PrefillChunk, Step

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

BEFORE, TOKENS, OTHERS = 6, 24, 40   # tokens before the pause, of both, and of the one that runs
PROMPT, OTHER_PROMPT = list(range(3, 60)), list(range(100, 190))


class Turns(Policy):
    """Serves the first request, pauses it for all others, and goes on with it."""

    def plan(self, now, requests, latency):
        first, *others = requests
        chosen = others[0] if others and first.generated >= BEFORE else first
        if chosen.gated:
            return Step(wake_at=now + .001)
        if chosen.decoding:
            return Step(decode=(chosen,))
        return Step(prefill=(PrefillChunk(
            chosen, min(chosen.pending, self.capacity.prefill_chunk)),))


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
    """Return vLLM's engine, in this process, on a small model with random weights in fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    path = tmp_path_factory.mktemp('model')
    torch.manual_seed(5)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=512,
        bos_token_id=None, eos_token_id=None, pad_token_id=None)).save_pretrained(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('VLLM_ENABLE_V1_MULTIPROCESSING', '0')
        from vllm import LLM
        return LLM(str(path), dtype='float32', enforce_eager=True, skip_tokenizer_init=True,
                   max_model_len=256, max_num_seqs=4, block_size=32, enable_prefix_caching=False,
                   kv_cache_memory_bytes=1 << 26,
                   scheduler_cls='slice_ros.vllm.SliceScheduler').llm_engine


def serve(engine, prompts):
    """Return answers and the log probabilities of each token, and what the first one had.

    That is, of each step, how many tokens the first request has, and its blocks.
    """
    from vllm import SamplingParams
    for name, (prompt, tokens) in prompts.items():
        engine.add_request(name, {'prompt_token_ids': prompt}, SamplingParams(
            temperature=0.0, max_tokens=tokens, logprobs=5, ignore_eos=True))
    scheduler = engine.engine_core.engine_core.scheduler
    first = next(iter(scheduler.requests.values()))
    answers, steps = {}, []
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                answers[output.request_id] = output.outputs[0]
        if not first.is_finished():
            blocks = scheduler.kv_cache_manager.get_block_ids(first.request_id)
            steps.append((first.num_output_tokens, tuple(blocks[0])))
    assert not scheduler.planner.failures
    return answers, steps


def test_a_paused_request_keeps_its_blocks_and_every_bit(engine):
    planner = engine.engine_core.engine_core.scheduler.planner
    planner.policy = Turns(planner.policy.capacity)
    alone, _ = serve(engine, {'first': (PROMPT, TOKENS)})
    both, steps = serve(engine, {'first': (PROMPT, TOKENS), 'other': (OTHER_PROMPT, OTHERS)})
    paused = [blocks for tokens, blocks in steps if tokens == BEFORE]
    assert len(paused) > OTHERS      # the other one had all its steps meanwhile
    assert len(set(paused)) == 1 and len(paused[0]) > 1
    assert len(both['other'].token_ids) == OTHERS
    one, again = alone['first'], both['first']
    assert list(one.token_ids) == list(again.token_ids) and len(one.token_ids) == TOKENS
    for mine, theirs in zip(one.logprobs, again.logprobs):
        assert {t: each.logprob for t, each in mine.items()} == {
            t: each.logprob for t, each in theirs.items()}   # to the last bit
