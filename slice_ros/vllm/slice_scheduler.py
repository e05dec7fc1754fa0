# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A scheduler of vLLM whose steps a policy of this package plans.

What the policy has not chosen is hidden from vLLM's own `schedule`, which then serves the chosen
requests in the order of the plan: blocks, the prefix cache, drafts, grammars, and what is sent to
the workers stay its own. A request that is not chosen keeps its blocks. Where vLLM could run none
of the chosen ones (no blocks are left, say), its own order applies for one step, which preempts
as it sees fit.

vLLM's schedulers are no public interface. Besides the methods of `SchedulerInterface`, these names
are used: the attributes `running`, `waiting`, `kv_holding_waiting`, `requests` and `current_step`,
and the methods `_preempt_request`, `_holds_kv_blocks`, `_handle_blocked_waiting_request` and
`_reserve_prefill_lookahead`. docs/scaling.md names the releases that were tested.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
import time

from slice_ros.errors import ErrorCode
from slice_ros.request import State
from slice_ros.scheduling.policy import Capacity, Step
from slice_ros.scheduling.registry import make_policy
from slice_ros.vllm.objectives import Objectives
from slice_ros.vllm.step_planner import StepPlanner
from slice_ros.vllm.vllm_options import read_options, VllmOptions
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import create_request_queue, SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import Request as VllmRequest, RequestStatus

QUEUES = ('waiting', 'kv_holding_waiting')
SERVED = (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED,
          RequestStatus.FINISHED_REPETITION)


class SliceScheduler:
    """What ``--scheduler-cls`` names: makes the scheduler for the way that the engine runs."""

    def __new__(cls, vllm_config, *args, **kwargs):
        asynchronous = vllm_config.scheduler_config.async_scheduling
        kind = AsyncSliceScheduler if asynchronous else SyncSliceScheduler
        return kind(vllm_config, *args, **kwargs)


class _Planned:
    """Methods of vLLM's scheduler, around those of the class that comes next."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        options = read_options(self.vllm_config.additional_config)
        self._objectives = Objectives(options.classes, options.default)
        self.planner = StepPlanner(
            make_policy(options.policy, self._capacity(options), **options.policy_options),
            options.profile, self.max_model_len)
        self._tokens: dict[str, int] = {}             # most tokens of a chosen request
        self._blocked: dict[str, VllmRequest] = {}    # whose grammar is being compiled
        self._unplanned: dict[str, VllmRequest] = {}  # pooling, streamed input: run as they come
        self._dropped: dict[str, VllmRequest] = {}    # until the next output, which ends them
        self._own_order = False                       # for the next step

    def _capacity(self, options: VllmOptions) -> Capacity:
        """Return the limits of the engine for the policy.

        A request may leave a block unfilled: as many are set aside as have room together.
        """
        draft = 1 + self.num_spec_tokens
        budget, groups = self.max_num_scheduled_tokens, len(self.kv_cache_config.kv_cache_groups)
        tokens = (self.kv_cache_config.num_blocks - 1) // max(groups, 1) * self.block_size
        slots = max(1, min(self.max_num_active_reqs, tokens // self.block_size))
        batch = max(1, min(options.max_batch or slots, slots, budget // draft))
        return Capacity(
            max_batch=batch, slots=slots,
            kv_tokens=max(tokens - slots * (self.block_size + draft - 1), tokens // 2,
                          min(tokens, self.max_model_len)),
            prefill_chunk=min(options.prefill_chunk or budget,
                              max(budget - batch * draft, budget // 2, 1)))

    # -- requests come and go ----------------------------------------------------------------

    def add_request(self, request: VllmRequest) -> None:
        super().add_request(request)
        request = self.requests.get(request.request_id)
        if request is None or request.request_id in self.planner.mirrors:
            return
        if request.sampling_params is None or request.resumable:
            self._unplanned[request.request_id] = request
        elif request.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR:
            self._blocked[request.request_id] = request
        else:
            self._plan_for(request)

    def finish_requests(self, request_ids: str | Iterable[str] | None,
                        finished_status: RequestStatus) -> list[VllmRequest]:
        finished = super().finish_requests(request_ids, finished_status)
        for request in finished:
            self._forget(request)
        return finished

    def _plan_for(self, request: VllmRequest) -> None:
        self.planner.add(request, self._objectives.of(request.sampling_params.extra_args))

    def _forget(self, request: VllmRequest) -> None:
        for requests in (self._blocked, self._unplanned, self._dropped):
            requests.pop(request.request_id, None)
        if request.status in SERVED:
            self.planner.end(request.request_id, State.FINISHED)
        elif request.status == RequestStatus.FINISHED_ABORTED:
            self.planner.end(request.request_id, State.CANCELLED, ErrorCode.CANCELLED)
        else:
            self.planner.end(request.request_id, State.FAILED, ErrorCode.ENGINE_FAILURE)

    # -- a step ------------------------------------------------------------------------------

    def schedule(self, *args, **kwargs) -> SchedulerOutput:
        for request in [r for r in self._blocked.values()
                        if self._handle_blocked_waiting_request(r)]:
            del self._blocked[request.request_id]
            self._plan_for(request)
        own, self._own_order = self._own_order, False
        step = None
        if self.pause_state == PauseState.UNPAUSED and not own:
            step = self.planner.plan(self.current_step + 1)
        if step is None:
            output = super().schedule(*args, **kwargs)
        else:
            output = self._schedule_chosen(step, *args, **kwargs)
        self.planner.launched(output.num_scheduled_tokens, self.current_step + 1)
        return output

    def _schedule_chosen(self, step: Step, *args, **kwargs) -> SchedulerOutput:
        for request in step.drop:
            self._dropped[request.id] = self.requests[request.id]
        for request in step.evict:
            theirs = self.requests[request.id]
            if theirs.status == RequestStatus.RUNNING:
                self.running.remove(theirs)
                self._preempt_request(theirs, time.monotonic())
        chosen = [self.requests[request.id] for request in step.decode]
        chosen += [self.requests[chunk.request.id] for chunk in step.prefill]
        if not self.need_mamba_block_aligned_split:  # else chunks must end where that says
            self._tokens = {chunk.request.id: chunk.tokens for chunk in step.prefill}
        try:
            with self._only(chosen + list(self._unplanned.values())):
                output = super().schedule(*args, **kwargs)
        finally:
            self._tokens = {}
        if chosen and not output.num_scheduled_tokens and not self.planner.in_flight:
            self._own_order = True
        return output

    @contextmanager
    def _only(self, visible: list[VllmRequest]) -> Iterator[None]:
        """Hide all requests but the `visible` ones, which are in this order meanwhile."""
        ids = {request.request_id for request in visible}
        hidden = [request for request in self.running if request.request_id not in ids]
        self.running = [r for r in visible if r.status == RequestStatus.RUNNING]
        shown = {name: [] for name in QUEUES}
        for request in visible:
            if request.status != RequestStatus.RUNNING:
                shown[QUEUES[self._holds_kv_blocks(request)]].append(request)
        whole = {name: getattr(self, name) for name in QUEUES}
        for name, requests in shown.items():
            queue = create_request_queue(SchedulingPolicy.FCFS)
            for request in requests:
                queue.add_request(request)
            setattr(self, name, queue)
        try:
            yield
        finally:
            self.running = self.running + hidden
            for name, requests in shown.items():
                left = list(getattr(self, name))
                if gone := set(requests).difference(left):
                    whole[name].remove_requests(gone)
                if preempted := set(left).difference(requests):
                    whole[name].prepend_requests(r for r in left if r in preempted)
                setattr(self, name, whole[name])

    def _reserve_prefill_lookahead(self, request: VllmRequest, num_computed_tokens: int,
                                   num_new_tokens: int) -> int:
        """Feed a chosen request no more than was planned; vLLM asks this for each it schedules."""
        planned = self._tokens.get(request.request_id, num_new_tokens)
        return super()._reserve_prefill_lookahead(request, num_computed_tokens,
                                                  min(num_new_tokens, planned))

    # -- its output --------------------------------------------------------------------------

    def update_from_output(self, scheduler_output: SchedulerOutput, model_runner_output
                           ) -> dict[int, EngineCoreOutputs]:
        took_part = [self.requests.get(i) for i in scheduler_output.num_scheduled_tokens]
        if took_part:
            self.planner.returned()
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        for request in took_part:
            if request is None:
                continue
            if request.is_finished():
                self._forget(request)
            else:
                self.planner.received(request.request_id, self.current_step + 1)
        if self._dropped:
            self._end_dropped(outputs)
        return outputs

    def _end_dropped(self, outputs: dict[int, EngineCoreOutputs]) -> None:
        """End what the policy has dropped; its callers receive the end as an error."""
        for request in self.finish_requests(list(self._dropped), RequestStatus.FINISHED_ERROR):
            mine = outputs.setdefault(request.client_index, EngineCoreOutputs())
            mine.outputs.append(EngineCoreOutput(
                request_id=request.request_id, new_token_ids=[],
                finish_reason=request.get_finished_reason(), events=request.take_events(),
                trace_headers=request.trace_headers))
        self._dropped = {}


class SyncSliceScheduler(_Planned, Scheduler):
    """Each step is scheduled when the one before has come back."""


class AsyncSliceScheduler(_Planned, AsyncScheduler):
    """A step is scheduled while the one before is computed."""
