# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM's own scheduler and KV cache manager in virtual time: no model runs.

A latency model stands in for the device, and a number for the clock. As in vLLM's engine, as many
steps are in flight as the configuration allows: one, or two with asynchronous scheduling.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
import json
import math
from pathlib import Path
import tempfile
from time import perf_counter_ns

from slice_ros.bench.schedule.noise import Disturbance, Noise
from slice_ros.bench.schedule.simulate import Result, StepRecord
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.errors import ErrorCode
from slice_ros.request import Request, State
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity
import torch
from vllm import SamplingParams
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.engine import FinishReason
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request as VllmRequest
from vllm.v1.structured_output import StructuredOutputManager

STOP, OTHER = 1, 5     # the token that ends an answer, and every other one
SCHEDULER = 'slice_ros.vllm.SliceScheduler'
# As small as vLLM takes: its scheduler reads the length of the context and nothing else.
MODEL = {'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'hidden_size': 64,
         'num_hidden_layers': 1, 'num_attention_heads': 1, 'num_key_value_heads': 1,
         'intermediate_size': 64, 'vocab_size': 256}


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """How vLLM is configured; `order` is one of its own policies, used without ours."""

    capacity: Capacity
    context: int                  # tokens of prompt and answer together
    order: str = 'fcfs'
    slice_options: Mapping | None = None    # part ``slice`` of its additional_config; None = order
    block_size: int = 16          # tokens of a KV block
    asynchronous: bool = False
    prefix_caching: bool = False


def make_scheduler(settings: VllmSettings):
    """Return a scheduler of vLLM, ours if there are `slice_options`."""
    capacity, block = settings.capacity, settings.block_size
    budget = capacity.prefill_chunk + capacity.max_batch
    # Ours chooses who decodes among all that have a KV cache; vLLM's own decodes all of these.
    seqs = capacity.max_batch if settings.slice_options is None else capacity.slots
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'config.json').write_text(json.dumps(
            MODEL | {'max_position_embeddings': settings.context}))
        model = ModelConfig(model=folder, skip_tokenizer_init=True, dtype='float32',
                            max_model_len=settings.context)
        scheduling = SchedulerConfig(
            max_model_len=settings.context, is_encoder_decoder=False, max_num_seqs=seqs,
            max_num_batched_tokens=max(budget, seqs), policy=settings.order,
            async_scheduling=settings.asynchronous, enable_chunked_prefill=True,
            scheduler_cls=None if settings.slice_options is None else SCHEDULER)
        config = VllmConfig(
            model_config=model, scheduler_config=scheduling,
            cache_config=CacheConfig(block_size=block,
                                     enable_prefix_caching=settings.prefix_caching),
            additional_config={'slice': settings.slice_options or {}})
    blocks = capacity.kv_tokens // block + 1   # one of them is vLLM's own
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=block, num_kv_heads=1, head_size=1, dtype=torch.float32)
    return scheduling.get_scheduler_cls()(
        vllm_config=config, block_size=block, log_stats=False,
        structured_output_manager=StructuredOutputManager(config),
        kv_cache_config=KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[],
                                      kv_cache_groups=[KVCacheGroupSpec(['layer'], spec)]))


def options_of(policy: str, policy_options: Mapping, believed: LatencyModel,
               arrivals: Sequence[Arrival], capacity: Capacity) -> dict:
    """Return the `slice_options` for a policy and the classes of a workload."""
    classes = {a.slo.name: asdict(a.slo) for a in arrivals}
    for entry in classes.values():
        del entry['name']
    profile = {f.name: getattr(believed, f.name) for f in fields(believed) if f.init}
    return {'policy': policy, 'policy_options': dict(policy_options), 'profile': profile,
            'classes': classes, 'max_batch': capacity.max_batch,
            'prefill_chunk': capacity.prefill_chunk}


@dataclass(eq=False, slots=True)
class Served:
    """A request as the engine and its caller see it."""

    request: Request
    length: int                 # tokens of its answer
    prompt: list[int] = field(default_factory=list)
    sampled: int = 0            # steps in flight included


class VirtualEngine:
    """Serves `arrivals`, in order of time, with a scheduler of vLLM; `latency` is the truth."""

    def __init__(self, scheduler, latency: LatencyModel, arrivals: Sequence[Arrival],
                 noise: Noise = Noise(), seed: int = 0, log: bool = False) -> None:
        self.scheduler, self.truth, self.arrivals, self.log = scheduler, latency, arrivals, log
        self.disturb = Disturbance(noise, seed)
        self.now = arrivals[0].time if arrivals else 0.0
        self.next = 0
        self.served: dict[str, Served] = {}
        self.depth = scheduler.vllm_config.max_concurrent_batches
        self.steps: deque = deque()     # in flight: output, tokens, end
        self.free_at = 0.0              # when the device has computed them
        self.result = Result([])
        self.planner = getattr(scheduler, 'planner', None)   # vLLM's own have none
        if self.planner:
            self.planner.clock = self.planner.wall = lambda: self.now
        init_none_hash(sha256)
        self.hasher = (get_request_block_hasher(scheduler.block_size, sha256)
                       if scheduler.cache_config.enable_prefix_caching else None)
        utilities = sorted({a.slo.utility for a in arrivals}, reverse=True)
        self.ranks = {utility: rank for rank, utility in enumerate(utilities)}

    def run(self) -> Result:
        """Serve all to the end; return what their callers received."""
        while self.next < len(self.arrivals) or self.scheduler.has_requests() or self.steps:
            if not (self.scheduler.has_requests() or self.steps):
                self.now = max(self.now, self.arrivals[self.next].time)
            self.arrive()
            output = self.schedule()
            if not output.num_scheduled_tokens:
                self.update(output, [])
                if not self.steps and self.scheduler.has_unfinished_requests():
                    self.wait()
                    continue
            elif len(self.steps) < self.depth:
                continue
            if self.steps:
                output, tokens, self.now = self.steps.popleft()
                self.update(output, tokens)
        self.result.end = self.now
        return self.result

    def prompt_of(self, number: int, arrival: Arrival) -> list[int]:
        """Return the prompt of a request; all are different."""
        return [number] * arrival.prompt_tokens

    def arrive(self) -> None:
        """Add the requests that have arrived by now."""
        while self.next < len(self.arrivals) and self.arrivals[self.next].time <= self.now:
            number, a = self.next, self.arrivals[self.next]
            self.next += 1
            request = Request(f'{a.slo.name}-{number}', a.slo, a.time, a.prompt_tokens,
                              a.max_tokens)
            self.result.requests.append(request)
            if a.prompt_tokens + a.max_tokens > self.scheduler.max_model_len:
                request.end(State.REJECTED, self.now, ErrorCode.PROMPT_TOO_LONG)
                continue
            served = Served(request, min(a.output_tokens, a.max_tokens),
                            self.prompt_of(number, a))
            self.served[request.id] = served
            objectives = {key: getattr(a.slo, key) or math.inf
                          for key in ('ttft_ms', 'tpot_ms', 'deadline_ms')}
            self.scheduler.add_request(VllmRequest(
                request.id, served.prompt, SamplingParams(
                    max_tokens=a.max_tokens, stop_token_ids=[STOP], ignore_eos=True,
                    extra_args={'slo_class': a.slo.name, **objectives}),
                None, arrival_time=a.time, priority=self.ranks[a.slo.utility],
                block_hasher=self.hasher))

    def schedule(self):
        """Schedule a step and start it; return vLLM's output."""
        before = perf_counter_ns()
        output = self.scheduler.schedule()
        if not output.num_scheduled_tokens:
            return output
        self.result.plan_us.append((perf_counter_ns() - before) / 1e3)
        cached = output.scheduled_cached_reqs
        computed = dict(zip(cached.req_ids, cached.num_computed_tokens))
        computed |= {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        batch, context, chunks, tokens, decoded = 0, 0, [], [], []
        for request_id, count in output.num_scheduled_tokens.items():
            served, done = self.served[request_id], computed[request_id]
            left = served.request.prompt_tokens + served.sampled - done
            if served.sampled and left == 1:
                batch, context = batch + 1, context + done
                decoded.append(request_id)
            else:
                chunks.append((count, done))
            if count == left:
                served.sampled += 1
            tokens.append([STOP if served.sampled == served.length else OTHER]
                          if count == left else [])
        begin = max(self.now, self.free_at)
        seconds = self.disturb(begin, self.truth.step(batch, context, chunks))
        self.free_at = begin + seconds
        self.steps.append((output, tokens, self.free_at))
        self.result.steps += 1
        self.result.busy += seconds
        if self.log:
            self.result.log.append(StepRecord(
                begin, seconds, tuple(decoded),
                tuple(i for i in output.num_scheduled_tokens if i not in decoded)))
        return output

    def update(self, output, tokens: list[list[int]]) -> None:
        """Have a step return, and deliver what it has brought."""
        ids = list(output.num_scheduled_tokens)
        outputs = self.scheduler.update_from_output(output, ModelRunnerOutput(
            req_ids=ids, req_id_to_index={name: i for i, name in enumerate(ids)},
            sampled_token_ids=tokens))
        for per_client in outputs.values():
            for one in per_client.outputs:
                self.deliver(one)

    def deliver(self, output) -> None:
        """Record what a caller receives."""
        request = self.served[output.request_id].request
        for _ in output.new_token_ids:
            request.generated += 1
            if request.generated == 1:
                request.first_token_at = self.now
            else:
                request.max_gap = max(request.max_gap, self.now - request.last_token_at)
            request.last_token_at = self.now
        if output.finish_reason in (FinishReason.STOP, FinishReason.LENGTH):
            request.end(State.FINISHED, self.now)
        elif output.finish_reason is not None:
            request.end(State.FAILED, self.now, ErrorCode.DEADLINE_MISSED)
        if output.finish_reason is not None:
            del self.served[output.request_id]

    def wait(self) -> None:
        """Let time pass: nothing is to be computed now. Raises ``ValueError`` if nothing will."""
        upcoming = self.arrivals[self.next].time if self.next < len(self.arrivals) else math.inf
        rest = self.planner.rests_until if self.planner else math.inf
        if not math.isfinite(min(upcoming, rest)) and self.planner is None:
            raise ValueError(f'vLLM does nothing, and {len(self.served)} requests wait')
        self.now = min(upcoming, max(rest, self.now + 1e-3))   # vLLM's engine asks each 1 ms
