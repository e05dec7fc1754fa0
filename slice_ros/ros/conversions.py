# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""ROS messages to core objects and back.

Malformed content of a message raises `RequestError`, and nothing else. The lengths of a message
are checked before, by `isolation.bounds`; what takes long for a long text runs in a worker.
"""

from hashlib import blake2s
import math
import resource
import secrets
import sys

from builtin_interfaces.msg import Time
from slice_ros import msg
from slice_ros.engine import (
    ChatOptions, EngineInfo, Message, ResponseFormat, Sampling, Tool, ToolCall)
from slice_ros.engine.chat_options import names_a_switch
from slice_ros.engine.config import MAX_LOGPROBS
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request
from slice_ros.ros.isolation.bounds import check_size, invalid, MAX_NAME
from slice_ros.ros.parameters import Settings
from slice_ros.serving import ClassSnapshot, Snapshot
from slice_ros.slo import SloClass, SloReport

ROLES = (msg.ChatMessage.SYSTEM, msg.ChatMessage.USER, msg.ChatMessage.ASSISTANT,
         msg.ChatMessage.TOOL)
MAX_LISTED = 64         # live requests in SchedulerState
HASH_BYTES = 6          # of the hash of a session id
_HASH_KEY = secrets.token_bytes(16)   # of this process, so that nobody can try out likely ids


def configured_class(name: str, settings: Settings) -> SloClass:
    """Return the class `name`. Raises `RequestError` UNKNOWN_SLO_CLASS."""
    slo = settings.classes.get(name) if len(name) <= MAX_NAME else None
    if slo is None:
        raise RequestError(ErrorCode.UNKNOWN_SLO_CLASS,
                           f'there is no class {name[:MAX_NAME]!r}: choose one of '
                           f'{", ".join(settings.classes)}')
    return slo


def slo_class(name: str, goal, settings: Settings) -> SloClass:
    """Return the class `name` with the goal's own objectives where it sets some."""
    slo = configured_class(name, settings)
    if not (goal.ttft_ms or goal.tpot_ms or goal.deadline_ms):
        return slo

    def objective(field: str) -> float:
        value = getattr(goal, field)
        if math.isnan(value) or value < 0:
            raise invalid(f'{field} is {value}: give milliseconds above 0, 0 for the objective '
                          'of the class, or inf for none')
        if value == 0:
            return getattr(slo, field)
        return 0.0 if math.isinf(value) else value
    return SloClass(name, objective('ttft_ms'), objective('tpot_ms'), objective('deadline_ms'),
                    slo.utility)


def messages(goal, settings: Settings) -> list[Message]:
    """Return the conversation of a goal, oldest message first, without its images."""
    if goal.prompt and goal.messages:
        raise invalid('both prompt and messages are given: give one of them')
    check_size(len(goal.prompt.encode(errors='replace')) + sum(
        len(text.encode(errors='replace')) for message in goal.messages
        for text in (message.content, *(call.arguments for call in message.tool_calls))),
        settings.max_text_bytes)
    if not goal.messages:
        if not goal.prompt.strip():
            raise invalid('the prompt is empty: say something in prompt or messages')
        return [Message('user', goal.prompt)]
    for number, message in enumerate(goal.messages):
        if message.role not in ROLES:
            raise invalid(f'messages[{number}].role is {message.role!r:.80}: choose one of '
                          f'{", ".join(ROLES)}')
        if message.role in ('system', 'user') and not message.content.strip() and not (
                message.images or message.compressed_images):
            raise invalid(f'messages[{number}] ({message.role}) is empty: say something or '
                          'leave it out')
    return [Message(m.role, m.content, tuple(ToolCall(c.id, c.name, c.arguments)
                                             for c in m.tool_calls), m.tool_call_id)
            for m in goal.messages]


def tools(goal) -> tuple[Tool, ...]:
    """Return the tools of a goal; the engine checks them."""
    return tuple(Tool(tool.name, tool.description, tool.parameters) for tool in goal.tools)


def tool_call_messages(calls: tuple[ToolCall, ...]) -> list[msg.ToolCall]:
    return [msg.ToolCall(id=c.id, name=c.name, arguments=c.arguments) for c in calls]


def sampling(values: msg.SamplingParams) -> Sampling:
    """Return how the tokens of a goal are sampled."""
    if len(values.biased_tokens) != len(values.biases):
        raise invalid(f'sampling.biased_tokens has {len(values.biased_tokens)} tokens and biases '
                      f'{len(values.biases)} numbers: give one for each')
    if values.top_logprobs > (MAX_LOGPROBS if values.logprobs else 0):
        raise invalid(f'sampling.top_logprobs is {values.top_logprobs}: give {MAX_LOGPROBS} at '
                      'most, and set sampling.logprobs with it')
    try:
        return Sampling(
            logit_bias=tuple(zip(values.biased_tokens, values.biases)),
            temperature=values.temperature, top_k=values.top_k, top_p=values.top_p,
            min_p=values.min_p, repetition_penalty=values.repetition_penalty,
            seed=None if values.seed < 0 else values.seed,
            logprobs=values.top_logprobs if values.logprobs else None)
    except ValueError as error:
        raise invalid(f'sampling.{error}') from error


def response_format(goal) -> ResponseFormat:
    """Return the format of the answer; the engine checks whether it can be enforced.

    With the choice `none` the model is not shown any tools.
    """
    form, choice = goal.response_format, goal.tool_choice or 'auto'
    if not goal.tools and choice not in ('none', 'auto'):
        raise invalid(f'tool_choice is {choice!r:.80}, but no tools are given')
    return ResponseFormat(form.type, tuple(form.choices), form.grammar,
                          () if choice == 'none' else tools(goal), choice)


def chat_options(goal, of_class: ChatOptions) -> ChatOptions:
    """Return how a goal is rendered and thought about: as its class, where it says nothing.

    Arguments that turn thoughts on or off count as the goal's own word on them.
    """
    try:
        says = 'default' if names_a_switch(goal.template_arguments) else of_class.reasoning
        return ChatOptions(goal.reasoning or says, goal.reasoning_budget or of_class.budget,
                           goal.template_arguments, of_class.defaults)
    except ValueError as error:
        raise invalid(str(error)) from error


def session_id(goal) -> str:
    """Return the id of the conversation of a goal ('' for none)."""
    if goal.reset_session and not goal.session_id:
        raise invalid('reset_session needs a session_id: give the one to forget')
    return goal.session_id


def session_hash(session_id: str) -> str:
    """Return what is published in place of a session id, which opens the session to everybody.

    It is the same for all requests of a session, until the process ends; '' for none.
    """
    if not session_id:
        return ''
    return blake2s(session_id.encode(errors='replace'), key=_HASH_KEY,
                   digest_size=HASH_BYTES).hexdigest()


def slo_message(slo: SloClass) -> msg.SloClass:
    return msg.SloClass(
        name=slo.name, ttft_ms=float(slo.ttft_ms), tpot_ms=float(slo.tpot_ms),
        deadline_ms=float(slo.deadline_ms), utility=float(slo.utility))


def report_message(report: SloReport, requested: str, stamp: Time, reason: str,
                   error: ErrorCode, sentence: str) -> msg.SloReport:
    """Return the report of a request for class `requested` that was received at `stamp`."""
    return msg.SloReport(
        stamp=stamp, request_id=report.request_id,
        session_id=session_hash(report.session_id),
        requested_class=requested,
        slo=slo_message(report.slo), served=report.served, attained=report.attained,
        ttft_met=report.ttft_met, tpot_met=report.tpot_met, deadline_met=report.deadline_met,
        prompt_tokens=report.prompt_tokens, output_tokens=report.output_tokens,
        reused_tokens=report.reused_tokens, reasoning_tokens=report.reasoning_tokens,
        answer_ms=report.answer * 1e3, ttft_ms=report.ttft * 1e3, tpot_ms=report.tpot * 1e3,
        completion_ms=report.completion * 1e3, elapsed_ms=report.elapsed * 1e3,
        max_gap_ms=report.max_gap * 1e3,
        finish_reason=reason, error_code=int(error), error_msg=sentence)


def report_from(message: msg.SloReport) -> SloReport:
    """Return a report from its message."""
    m = message
    slo = SloClass(m.slo.name, m.slo.ttft_ms, m.slo.tpot_ms, m.slo.deadline_ms, m.slo.utility)
    return SloReport(
        request_id=m.request_id, slo=slo, served=m.served, prompt_tokens=m.prompt_tokens,
        output_tokens=m.output_tokens, ttft=m.ttft_ms / 1e3, tpot=m.tpot_ms / 1e3,
        completion=m.completion_ms / 1e3, max_gap=m.max_gap_ms / 1e3, elapsed=m.elapsed_ms / 1e3,
        reused_tokens=m.reused_tokens, session_id=m.session_id,
        reasoning_tokens=m.reasoning_tokens, answer=m.answer_ms / 1e3)


def engine_message(info: EngineInfo, max_batch: int) -> msg.EngineStatus:
    """Return what is loaded, with the memory of the process now."""
    return msg.EngineStatus(
        model=info.model, family=info.family, device=info.device, weights=info.weights,
        path=info.path, kernels=info.kernels, max_context=info.max_context, slots=info.slots,
        max_batch=max_batch, kv_tokens=info.kv_tokens, weight_bytes=info.weight_bytes,
        kv_bytes=info.kv_bytes, kv_bits=info.kv_bits, resident_bytes=_resident_bytes(),
        vocab_size=info.vocab_size, embedding_size=info.hidden, adapters=list(info.adapters))


def state_message(snapshot: Snapshot, max_queued: int, stamp: Time) -> msg.SchedulerState:
    """Return the state of the scheduler."""
    return msg.SchedulerState(
        stamp=stamp, policy=snapshot.policy, rate_control=snapshot.rate_control,
        gate_open=snapshot.gate_open, gate_age_ms=snapshot.gate_age * 1e3,
        gate_shut=snapshot.gate_shut, gated=snapshot.gated,
        capacity_ratio=float(snapshot.capacity_ratio), load=snapshot.load,
        window_s=snapshot.window, prediction_error=snapshot.prediction_error,
        step_p50_ms=snapshot.step[0] * 1e3, step_p99_ms=snapshot.step[1] * 1e3,
        plan_p50_ms=snapshot.plan[0] * 1e3, overhead=snapshot.overhead,
        tokens_per_s=snapshot.tokens_per_s, steps=snapshot.steps, tokens=snapshot.tokens,
        engine_failures=snapshot.engine_failures, queued=snapshot.queued, max_queued=max_queued,
        sessions=snapshot.sessions, slots_used=snapshot.slots_used,
        kv_tokens_used=snapshot.kv_tokens_used,
        requests=[_request_message(r, snapshot.at) for r in snapshot.requests[:MAX_LISTED]],
        classes=[_class_message(c) for c in snapshot.classes.values()])


def _request_message(request: Request, now: float) -> msg.RequestStatus:
    return msg.RequestStatus(
        request_id=request.id, slo_class=request.slo.name,
        session_id=session_hash(request.session_id),
        state=request.state.value, gated=request.gated, prompt_tokens=request.prompt_tokens,
        cached_tokens=request.cached,
        output_tokens=request.generated, max_tokens=request.max_tokens,
        age_ms=(now - request.arrival) * 1e3, ttft_ms=request.ttft * 1e3,
        tpot_ms=request.tpot * 1e3)


def _class_message(c: ClassSnapshot) -> msg.ClassStatus:
    return msg.ClassStatus(
        slo=slo_message(c.slo), received=c.received, finished=c.finished, attained=c.attained,
        cancelled=c.cancelled, failed=c.failed, rejected=c.rejected, live=c.live,
        waiting=c.waiting, window_s=c.window, window_requests=c.window_requests,
        attainment=c.attainment, ttft_p50_ms=c.ttft[0] * 1e3, ttft_p99_ms=c.ttft[1] * 1e3,
        tpot_p50_ms=c.tpot[0] * 1e3, tpot_p99_ms=c.tpot[1] * 1e3,
        completion_p50_ms=c.completion[0] * 1e3, completion_p99_ms=c.completion[1] * 1e3)


def _resident_bytes() -> int:
    try:
        with open('/proc/self/statm') as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux: the peak is the next best figure
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == 'darwin' else peak * 1024
