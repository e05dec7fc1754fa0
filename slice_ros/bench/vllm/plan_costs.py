# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench plan --engine vllm``: our plan beside vLLM's own `schedule`, without a model.

All requests are live from the start, in one batch. They are served in vLLM's own order, and again
with our scheduler; the second half of the steps counts, when all prompts have been read.
"""

from collections.abc import Callable
from itertools import cycle
from time import perf_counter_ns

from slice_ros.bench.report import percentile
from slice_ros.bench.schedule.simulate import scaled_latency
from slice_ros.bench.schedule.vllm_engine import (
    make_scheduler, options_of, VirtualEngine, VllmSettings)
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity
from slice_ros.slo import DEFAULT_CLASSES

PROMPT = 64
PLANNED = 16   # requests that the accelerator serves in time: it is as fast as more of them need


def plan_costs(live: int, latency: LatencyModel, steps: int) -> dict[str, float]:
    """Return the median microseconds of a step with `live` requests.

    ``vllm`` is all of vLLM's own `schedule`, ``slice_vllm`` all of ours, ``plan`` the part of it
    that is the policy's and its mirror's.
    """
    latency = scaled_latency(latency, min(1.0, PLANNED / live))
    arrivals = [Arrival(0.0, slo, PROMPT, steps, steps)
                for slo, _ in zip(cycle(DEFAULT_CLASSES), range(live))]
    context = PROMPT + steps
    capacity = Capacity(max_batch=live, slots=live, kv_tokens=live * (context + PROMPT),
                        prefill_chunk=live * PROMPT)   # all prompts in a few steps
    own = _served(VllmSettings(capacity, context), latency, arrivals)
    ours = VllmSettings(capacity, context, slice_options=options_of(
        'slice', {}, latency, arrivals, capacity))
    plans: list[float] = []
    whole = _served(ours, latency, arrivals, plans)
    return {'vllm': _late(own), 'slice_vllm': _late(whole), 'plan': _late(plans)}


def _served(settings: VllmSettings, latency: LatencyModel, arrivals: list[Arrival],
            plans: list[float] | None = None) -> list[float]:
    """Serve all; return the microseconds of each `schedule`, and add those of plans to `plans`."""
    scheduler = make_scheduler(settings)
    if plans is not None:
        scheduler.planner.plan = _timed(scheduler.planner.plan, plans)
    return list(VirtualEngine(scheduler, latency, arrivals).run().plan_us)


def _timed(call: Callable, times: list[float]) -> Callable:
    def timed(*given: object) -> object:
        before = perf_counter_ns()
        try:
            return call(*given)
        finally:
            times.append((perf_counter_ns() - before) / 1e3)
    return timed


def _late(times: list[float]) -> float:
    """Return the median of the second half: decode steps of all that are live."""
    return percentile(times[len(times) // 2:], .5)
