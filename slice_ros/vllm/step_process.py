# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The process in which vLLM computes the steps of the node: the other end of `VllmRunner`.

It runs in vLLM's own Python, as ``python -m slice_ros.vllm.step_process DESCRIPTOR`` of a socket.
vLLM loads the model, on as many GPUs as are asked for, and has the KV cache; who takes part in a
step is decided by the node, whose page table says where keys and values are. So vLLM's scheduler
plans nothing. It sees each segment of a step as a request of its own, which begins behind what its
blocks hold already, and ends with the step.
"""

from collections.abc import Sequence
import json
from multiprocessing.connection import Connection
import os
import sys
import threading
import time

import numpy as np
import psutil
from vllm import __version__, SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.kv_cache_utils import KVCacheBlockCopy
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.engine.core import EngineCore
from vllm.v1.executor import Executor

MOST_BYTES = 1 << 26    # of a message: a step has some thousand tokens
LOOK_S = 1.0            # how often it is looked whether the node is still there
OWN_BLOCKS = 1          # blocks that vLLM keeps for itself: the first ones
UNKNOWN_TOKEN = 0       # stands for tokens that a step does not feed


class Steps:
    """Computes steps on a model that vLLM loads by `options`, which `VllmRunner` sends.

    Raises ``ValueError`` for a model whose cache is not one of pages, and as vLLM does.
    """

    def __init__(self, options: dict) -> None:
        page = options['page_tokens']
        arguments = EngineArgs(
            model=options['model'], dtype=options['dtype'],
            max_model_len=options['max_context'] + 1,   # the last one is sampled, and never fed
            block_size=page, max_num_seqs=options['slots'],
            max_num_batched_tokens=max(options['step_tokens'], options['slots']),
            tensor_parallel_size=options['tensor_parallel_size'],
            distributed_executor_backend='ray' if options['ray'] else None, async_scheduling=False,
            enable_prefix_caching=False, skip_tokenizer_init=True, disable_log_stats=True,
            disable_hybrid_kv_cache_manager=True, trust_remote_code=False)
        from vllm.platforms import current_platform
        self.device = current_platform.device_type
        if self.device == 'cpu':
            arguments.enforce_eager = True   # else a compiler is needed, and minutes
            arguments.kv_cache_memory_bytes = int(
                psutil.virtual_memory().available * options['memory_fraction'])
        else:
            arguments.gpu_memory_utilization = options['memory_fraction']
        config = arguments.create_engine_config()
        self._core = EngineCore(config, Executor.get_class(config), log_stats=False)
        self._executor = self._core.model_executor
        cache = self._core.scheduler.kv_cache_config
        if len(cache.kv_cache_groups) != 1 or self._core.scheduler.block_size != page:
            self.close()
            raise ValueError(f'vLLM keeps {len(cache.kv_cache_groups)} kinds of caches for this '
                             f'model, in blocks of {self._core.scheduler.block_size} tokens: the '
                             f'node needs one, in pages of {page}')
        model, size = config.model_config, cache.kv_cache_groups[0].kv_cache_spec.page_size_bytes
        self.about = {
            'pages': cache.num_blocks - OWN_BLOCKS, 'device': self.device, 'version': __version__,
            'device_name': current_platform.get_device_name(),
            'weights': str(model.dtype).removeprefix('torch.'),
            'page_bytes': size * len(cache.kv_cache_groups[0].layer_names)}
        self._greedy = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False)
        self._steps = 0
        self._last: set[str] = set()   # requests of the step before, which have ended

    def close(self) -> None:
        """End vLLM and its processes."""
        self._core.shutdown()

    def step(self, segments: Sequence[Sequence], copies: Sequence[Sequence[int]], logits: bool
             ) -> tuple[list[int], bytes]:
        """Feed segments (start, ids, pages, whether its next token is wanted), after `copies`.

        Return the next tokens of greedy choice, or with `logits`, float32 rows of these.
        """
        self._steps += 1
        names = [f'{self._steps}-{i}' for i in range(len(segments))]
        output = self._executor.execute_model(self._scheduled(names, segments, copies))
        if not segments:
            return [], b''
        wanted = [name for name, segment in zip(names, segments) if segment[3]]
        rows = None
        if logits and wanted:
            found = self._executor.collective_rpc(_logits, args=(wanted,))
            rows = next(each for each in found if each is not None)
        if output is None:
            output = self._executor.sample_tokens(None)
        if logits:
            return [], b'' if rows is None else rows.tobytes()
        return [output.sampled_token_ids[output.req_id_to_index[name]][0] for name in wanted], b''

    def _scheduled(self, names: Sequence[str], segments: Sequence[Sequence],
                   copies: Sequence[Sequence[int]]) -> SchedulerOutput:
        new = []
        for name, (start, ids, pages, wanted) in zip(names, segments):
            # One token more than is fed: nothing is to be sampled behind these.
            tokens = [UNKNOWN_TOKEN] * start + ids + ([] if wanted else [UNKNOWN_TOKEN])
            new.append(NewRequestData(
                req_id=name, prompt_token_ids=tokens, mm_features=[],
                sampling_params=self._greedy, pooling_params=None,
                block_ids=([page + OWN_BLOCKS for page in pages],), num_computed_tokens=start,
                lora_request=None))
        counts = {name: len(segment[1]) for name, segment in zip(names, segments)}
        ended, self._last = self._last, set(names)
        return SchedulerOutput(
            scheduled_new_reqs=new, scheduled_cached_reqs=CachedRequestData.make_empty(),
            num_scheduled_tokens=counts, total_num_scheduled_tokens=sum(counts.values()),
            scheduled_spec_decode_tokens={}, scheduled_encoder_inputs={}, finished_req_ids=ended,
            free_encoder_mm_hashes=[], kv_cache_block_copies=[
                KVCacheBlockCopy(source + OWN_BLOCKS, target + OWN_BLOCKS)
                for source, target in copies] or None)


def _logits(worker, names: Sequence[str]) -> np.ndarray | None:
    """Return the logits of requests of the step that is being computed, where a worker has them.

    They are in the model runner from the forward pass until tokens are sampled.
    """
    runner = worker.model_runner
    state = runner.execute_model_state
    if state is None or state.logits is None:
        return None
    rows = [runner.input_batch.req_id_to_index[name] for name in names]
    return state.logits[rows].float().cpu().numpy()


def _end_with(parent: int) -> None:
    """End this process, whatever it does, soon after the node: nobody else would."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


def serve(pipe: Connection) -> None:
    """Answer the node until it closes its end."""
    try:
        steps = Steps(json.loads(pipe.recv_bytes(MOST_BYTES)))
    except Exception as error:  # vLLM raises many kinds
        pipe.send_bytes(json.dumps({'error': f'{type(error).__name__}: {error!s:.500}'}).encode())
        return
    pipe.send_bytes(json.dumps(steps.about).encode())
    try:
        while True:
            order = json.loads(pipe.recv_bytes(MOST_BYTES))
            try:
                tokens, rows = steps.step(**order)
                answer = {'tokens': tokens}
            except Exception as error:
                answer, rows = {'error': f'{type(error).__name__}: {error!s:.500}'}, b''
            pipe.send_bytes(json.dumps(answer).encode())
            pipe.send_bytes(rows)
    except (EOFError, OSError):   # the node has closed its end, or has ended
        steps.close()


if __name__ == '__main__':
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    serve(Connection(int(sys.argv[1])))
