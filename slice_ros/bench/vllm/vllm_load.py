# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Sends the requests of a workload to vLLM's engine in real time: the other end of `vllm_peer`.

It runs in vLLM's own Python. Each line that it reads is a load, and it writes a line for each
request that has ended, and one for all. Times are those at which a caller in this process has a
token.
"""

import asyncio
from collections.abc import Mapping, Sequence
import json
import os
import sys
import threading
import time

import psutil
from slice_ros.bench.vllm.scripted_answers import LENGTH, STOP
from vllm import __version__, AsyncEngineArgs, SamplingParams
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase

WARM_REQUESTS, WARM_PROMPT, WARM_TOKENS = 4, 64, 32
MEMORY_SHARE = 0.4   # of a GPU, beside our engine; on a CPU, of the free memory, for the KV cache
AHEAD_S = 0.05     # from the order to the start of a load
END_WITHIN_S = 15  # for vLLM to end


class StepCounter(StatLoggerBase):
    """Counts the steps that gave a token."""

    steps = 0

    def __init__(self, vllm_config, engine_index: int = 0) -> None:
        pass

    def record(self, scheduler_stats, iteration_stats, mm_cache_stats=None, engine_idx=0) -> None:
        """Look at what has come back from the engine at once."""
        if iteration_stats is not None and iteration_stats.num_generation_tokens:
            StepCounter.steps += 1

    def log_engine_initialized(self) -> None:
        """Ignore that the engine is there."""


def report(**fields) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(fields) + '\n')
    sys.stdout.flush()


async def ask(engine: AsyncLLM, name: str, prompt: Sequence[int], most: int, length: int,
              arguments: Mapping, rank: int, start: float) -> dict:
    """Send a request; return its tokens and when they came, in seconds from `start`."""
    sampling = SamplingParams(
        temperature=0.0, max_tokens=most, ignore_eos=True, stop_token_ids=[STOP],
        detokenize=False, output_kind=RequestOutputKind.DELTA,
        extra_args={LENGTH: length, **arguments})
    tokens, first, last, gap, reason = 0, None, None, 0.0, 'error'
    try:
        async for output in engine.generate({'prompt_token_ids': list(prompt)}, sampling, name,
                                            priority=rank):
            now = time.monotonic() - start
            if count := len(output.outputs[0].token_ids):
                gap = 0.0 if last is None else max(gap, now - last)
                first, last = (now if first is None else first), now
                tokens += count
            reason = output.outputs[0].finish_reason or reason
    except Exception as error:   # of this request alone: the others are served
        print(f'{name}: {error!r:.300}', file=sys.stderr)
    return {'tokens': tokens, 'first': first, 'last': last, 'gap': gap, 'reason': reason,
            'at': time.monotonic() - start}


async def serve(engine: AsyncLLM, number: int, load: Sequence[Mapping]) -> None:
    """Send the requests of a load at their times, and report how they were served."""
    before, start = StepCounter.steps, time.monotonic() + AHEAD_S

    async def one(index: int, entry: Mapping) -> None:
        await asyncio.sleep(max(0.0, start + entry['time'] - time.monotonic()))
        report(ended=index, **await ask(
            engine, f'{number}-{index}', entry['prompt'], entry['max_tokens'], entry['length'],
            entry['arguments'], entry['rank'], start))
    await asyncio.gather(*(one(index, entry) for index, entry in enumerate(load)))
    report(steps=StepCounter.steps - before)


async def main(options: Mapping) -> None:
    """Load the model, and serve what is sent until the input ends."""
    loop, orders = asyncio.get_running_loop(), asyncio.Queue()
    if current_platform.device_type == 'cpu':
        memory = {'kv_cache_memory_bytes': int(
            psutil.virtual_memory().available * MEMORY_SHARE)}
    else:
        memory = {'gpu_memory_utilization': MEMORY_SHARE}
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**options, **memory),
                                       stat_loggers=[StepCounter])

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(orders.put_nowait, json.loads(line))
        # The benchmark has ended, or wants no more; a load that is being served is cut off.
        ending = threading.Thread(target=engine.shutdown, daemon=True)
        ending.start()
        ending.join(END_WITHIN_S)
        os._exit(0)
    threading.Thread(target=read, daemon=True).start()
    prompts = [range(2, 2 + WARM_PROMPT)] * WARM_REQUESTS
    await asyncio.gather(*(
        ask(engine, f'warm-{i}', prompt, WARM_TOKENS, WARM_TOKENS, {}, 0, time.monotonic())
        for i, prompt in enumerate(prompts)))
    report(ready=__version__, weights=str(engine.model_config.dtype).removeprefix('torch.'))
    number = 0
    while True:
        await serve(engine, number, (await orders.get())['load'])
        number += 1


if __name__ == '__main__':
    asyncio.run(main(json.loads(sys.argv[1])))
